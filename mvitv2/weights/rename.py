"""Renaming by tables: a rule is a pair of patterns, and reads both ways. The fields are told in ``dialects.py``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from torch import Tensor

Rules = tuple[tuple[str, str], ...]
FIELDS = {
    "block": r"\d+",
    "stage": r"\d+",
    "place": r"\d+",
    "level": r"\d+",
    "scale": r"\d+",
    "last": r"\d+",
    "q": "[qkv]",
    "rest": r".+",
    "x": r"[^.]+",
}
FIRST_LEVEL = 2
"""The finest level of a pyramid is called 2: its stride is 4."""


class DialectError(ValueError):
    """A file's names fit no dialect, or not the one asked for."""


@lru_cache(maxsize=512)
def matcher(pattern: str) -> re.Pattern[str]:
    """A rule's pattern as a regular expression; a field that occurs twice must be the same twice."""
    seen: set[str] = set()
    out: list[str] = []
    for i, part in enumerate(re.split(r"\{(\w+)\}", pattern)):
        if i % 2 == 0:
            out.append(re.escape(part))
        else:
            out.append(f"(?P={part})" if part in seen else f"(?P<{part}>{FIELDS[part]})")
            seen.add(part)
    return re.compile("".join(out))


@dataclass(frozen=True)
class Numbering:
    """How blocks are counted: through all stages and per stage."""

    depths: tuple[int, ...]

    def block(self, stage: int, place: int) -> int:
        """Number of a block through all stages."""
        return sum(self.depths[:stage]) + place

    def stage_and_place(self, block: int) -> tuple[int, int]:
        """Stage of a block, and its number there."""
        ends = list(accumulate(self.depths))
        stage = next(s for s, end in enumerate(ends) if block < end)
        return stage, block - sum(self.depths[:stage])

    def completed(self, fields: dict[str, str]) -> dict[str, str] | None:
        """A rule's fields with those that follow from them; ``None`` where they contradict each other."""
        full = dict(fields)
        if "stage" in fields:
            full["block"] = str(self.block(int(fields["stage"]), int(fields["place"])))
        elif "block" in fields and self.depths:
            stage, place = self.stage_and_place(int(fields["block"]))
            full |= {"stage": str(stage), "place": str(place)}
        if "level" in fields:
            full["scale"] = str(int(fields["level"]) - FIRST_LEVEL)
        elif "scale" in fields:
            full["level"] = str(int(fields["scale"]) + FIRST_LEVEL)
        last = str(len(self.depths) - 1)
        if fields.get("last", last) != last:
            return None
        return full | {"last": last}


def renamed(tensors: Mapping[str, Tensor], rules: Rules, numbering: Numbering, *, what: str) -> dict[str, Tensor]:
    """Rename every key by the first rule that fits.

    Args:
        tensors: Names on the left of the rules.
        rules: ``(from, to)`` patterns.
        numbering: How blocks are counted.
        what: Whose names these are, for the message.

    Raises:
        DialectError: Keys that no rule fits, or several that become one; all of them are named.
    """
    result: dict[str, Tensor] = {}
    strangers: list[str] = []
    for key, value in tensors.items():
        name = _renamed_key(key, rules, numbering)
        if name is None:
            strangers.append(key)
        elif name in result:
            raise DialectError(f"two {what} names become {name!r}; the second is {key!r}")
        else:
            result[name] = value
    if strangers:
        raise DialectError(f"{len(strangers)} names are no {what} MViT names: {', '.join(strangers)}")
    return result


def _renamed_key(key: str, rules: Rules, numbering: Numbering) -> str | None:
    for theirs, ours in rules:
        match = matcher(theirs).fullmatch(key)
        fields = numbering.completed(match.groupdict()) if match else None
        if fields is not None:
            return ours.format(**fields)
    return None


def reversed_rules(rules: Rules) -> Rules:
    """The same table read from right to left."""
    return tuple((ours, theirs) for theirs, ours in rules)
