"""Whether we became slower: ratios to the peers of one run against those of another, never times."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ALLOWED = 0.15
"""A ratio may fall by this share before it counts: what the same code varies by on a shared machine."""

REFERENCE = "mvitv2 reference"
"""What ours are compared with where there is no peer, as of the backbones of detectors."""


@dataclass(frozen=True)
class Fall:
    """A ratio that became worse.

    Attributes:
        case: Name of the case.
        candidate: Ours.
        peer: What it is compared with, the fastest that both runs measured.
        before: How many times as fast as the peer.
        now: The same in the new run.
    """

    case: str
    candidate: str
    peer: str
    before: float
    now: float

    def __str__(self) -> str:
        return f"{self.case}: {self.candidate} was {self.before:.2f}x {self.peer}, now {self.now:.2f}x"


def last_result(folder: Path, name: str) -> Path | None:
    """The newest stored result of a set on a device; ``None`` if there is none."""
    return max(folder.glob(f"*-{name}.json"), default=None)


def falls(before: Mapping[str, Any], now: Mapping[str, Any], allowed: float = ALLOWED) -> Iterator[Fall]:
    """Every ratio of ours to the fastest common peer that fell by more than what is allowed.

    Where no peer was measured in both runs, our reference backend is what ours are compared with.
    """
    earlier = {case["name"]: case["timings"] for case in before["cases"]}
    for case in now["cases"]:
        old, new = earlier.get(case["name"], {}), case["timings"]
        common = [name for name in new if name in old]
        peer = measure_of({name: new[name] for name in common})
        if peer is None:
            continue
        for name in common:
            if new[name]["kind"] != "ours" or name == peer:
                continue
            then, today = (times[peer]["median"] / times[name]["median"] for times in (old, new))
            if today < then * (1 - allowed):
                yield Fall(case["name"], name, peer, then, today)


def measure_of(timings: Mapping[str, Any]) -> str | None:
    """The fastest peer, or our reference backend where no peer was measured; ``None`` where that was not either."""
    peers = [name for name, row in timings.items() if row["kind"] == "peer"]
    found = peers or [name for name in timings if name == REFERENCE]
    return min(found, key=lambda name: timings[name]["median"], default=None)


def read(path: Path) -> dict[str, Any]:
    """A stored result.

    Raises:
        ValueError: The file is none of this form.
    """
    record = json.loads(path.read_text())
    if not isinstance(record, dict) or any("name" not in case for case in record.get("cases", [{}])):
        raise ValueError(f"{path} is no result of python -m benchmarks, or one of an older form; measure again")
    return record
