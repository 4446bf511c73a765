"""The rows that readers of boxes give, and what is wrong with them: plain records, nothing checked but their form."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mvitv2.data.detection.shapes import Segmentation
from mvitv2.data.images import one_line

LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "image": "picture records without an id, a file and a size",
        "image-id": "picture records with the id of another",
        "image-path": "pictures outside the folder",
        "record": "annotations that are no records of an image, a category and a box",
        "orphan": "annotations of pictures that are not listed",
        "category": "annotations of unknown categories",
        "box": "boxes that are not four finite numbers",
        "empty": "boxes without area",
        "outside": "boxes outside their picture",
    }
)
"""Kinds of faults whose row is left out."""
KEPT_ROW: Mapping[str, str] = MappingProxyType(
    {
        "beyond": "boxes that reach more than a pixel beyond their picture; they are cut in training",
        "mask": "masks that mean nothing; their boxes are kept",
        "annotation-id": "annotations with the id of another; new ids are given",
        "twice": "objects that are listed twice, with the same class and box",
        "file": "pictures that are listed twice",
    }
)
"""Kinds of faults whose row is kept."""
EXAMPLES = 100
"""Examples kept of each kind."""


class ImageRow(NamedTuple):
    """A picture as it is listed."""

    id: int
    file: str
    height: int
    """0: not said."""
    width: int


def sides(record: Mapping[str, Any]) -> tuple[int, int]:
    """``height`` and ``width`` of a record, both 0 where one is no whole number above 0."""
    height, width = record.get("height"), record.get("width")
    if type(height) is int and type(width) is int and height > 0 and width > 0:
        return height, width
    return 0, 0


class ObjectRow(NamedTuple):
    """An object as it is listed."""

    name: str
    """Where it stands, for people: ``annotation 17``, ``line 3, box 2``."""
    image_id: int
    label: int
    """Index of the class; -1: unknown."""
    box: Any
    """Left, top, width, height; whatever stands there."""
    crowd: bool = False
    area: float | None = None
    """As written; ``None``: that of the box."""
    shape: Segmentation = None


@dataclass(frozen=True)
class Faults:
    """What was wrong, by kind."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, kind: str, where: str, reason: str) -> None:
        """Count one, and keep the first hundred by name."""
        self.counts[kind] += 1
        kept = self.examples.setdefault(kind, [])
        if len(kept) < EXAMPLES:
            kept.append(one_line(f"{where}: {reason}"))

    @property
    def sentences(self) -> tuple[str, ...]:
        """One per kind, with the first example."""
        said = {**LEFT_OUT, **KEPT_ROW}
        return tuple(
            f"{count} {said[kind]}{' (left out)' * (kind in LEFT_OUT)}, first {self.examples[kind][0]}"
            for kind, count in self.counts.items()
        )


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a reader gives: the rows of a file, nothing checked but their form."""

    source: Path
    images: Sequence[ImageRow]
    objects: Sequence[ObjectRow]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    """Of the classes, as the file numbers them."""
    faults: Faults
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What else the evaluation of the data needs (LVIS)."""
