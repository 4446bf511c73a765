"""What is wrong, odd or worth knowing about a data set, as records: for the terminal, for programs, for a page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mvitv2.data.labelled import DataError

PROBLEM, WARNING, NOTE = "problem", "warning", "note"
"""Stops training; may spoil it; good to know."""
CLEAN, STOPS, WARNS = 0, 1, 3
"""Exit codes: nothing, problems, warnings alone."""

KEPT = 100
"""Examples a finding keeps at most."""


@dataclass(frozen=True)
class Limits:
    """From where on something is told; sizes in pixels."""

    min_side: int = 32
    """Pictures with a shorter side are tiny."""
    max_aspect: float = 4.0
    """Pictures longer than so many times their width (or wider) are odd."""
    max_imbalance: float = 10.0
    """The largest class has at most so many times the pictures of the smallest."""
    min_images: int = 5
    """A class has at least so many pictures to be trained on."""
    max_unreadable: float = 0.5
    """Training stops if a greater part of a split cannot be read."""
    similar: float = 0.99
    """Correlation of thumbnails from which on two pictures are one."""
    mean_distance: float = 0.15
    """The mean of a channel differs so much from ImageNet's before another normalisation is suggested."""
    std_ratio: float = 1.6
    """The deviation of a channel is so many times ImageNet's, or so many times less, before that."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    severity: str
    """``"problem"``, ``"warning"`` or ``"note"``."""
    kind: str
    """A word for programs: ``"unreadable"``, ``"leak"``, ``"classes"``, ..."""
    text: str
    """A sentence for people."""
    split: str = ""
    """Where; empty for more than one."""
    count: int = 0
    """Of pictures or classes."""
    examples: tuple[str, ...] = ()
    """At most a hundred: files, groups of files joined by `` = ``, classes."""


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """Figures of one split."""

    images: int
    unreadable: int
    counts: dict[str, int]
    """Pictures by class, readable or not, in the order of the classes."""
    kinds: dict[str, int]
    """Pictures by format and mode."""
    sides: tuple[int, int, int]
    """Shorter side: least, median, most."""
    mean: tuple[float, ...]
    """Per channel (red, green, blue) of values in 0..1, averaged over pictures."""
    std: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    """All that was found."""

    data: str
    """As it was given."""
    splits: Mapping[str, SplitFacts]
    findings: tuple[Finding, ...]
    normalisation: Mapping[str, Any]
    """``mean`` and ``std`` to train with, and ``source``: ``"imagenet"`` or ``"measured"``."""
    limits: Limits = field(default_factory=Limits)

    def of(self, severity: str) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    @property
    def exit_code(self) -> int:
        """0 for clean data, 1 where training cannot start, 3 for warnings alone."""
        return STOPS if self.of(PROBLEM) else WARNS if self.of(WARNING) else CLEAN

    def stop_if_needed(self) -> None:
        """Do nothing unless training cannot start.

        Raises:
            DataError: It cannot; all problems are said.
        """
        if problems := self.of(PROBLEM):
            raise DataError("; ".join(finding.text for finding in problems))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        splits = {name: asdict(facts) for name, facts in self.splits.items()}
        return {
            "data": self.data,
            "exit_code": self.exit_code,
            "findings": [asdict(finding) for finding in self.findings],
            "splits": splits,
            "normalisation": dict(self.normalisation),
            "limits": asdict(self.limits),
        }


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Problems first, notes last."""
    order = (PROBLEM, WARNING, NOTE)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.severity)))


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 picture``, ``2 pictures``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def some(names: Sequence[str], most: int = 5) -> str:
    """A few of some names."""
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more
