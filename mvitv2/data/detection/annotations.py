"""The pictures and objects of one split as columns, and what was wrong with them as records.

Readers (:mod:`mvitv2.data.detection.coco`, :mod:`mvitv2.data.detection.boxlist`) give rows; here they are checked one
by one and packed, so that loading processes share them. Nothing is lost without a word: every row that is left out or
changed is a :class:`Fault`, counted by kind and named.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mvitv2.data.detection.rows import Faults, ImageRow, ObjectRow, Rows
from mvitv2.data.detection.shapes import Segmentation, ShapeError, polygons, run_lengths
from mvitv2.data.names import PackedNames

_SLACK = 1.0  # pixels; COCO's own boxes reach up to a hundredth of one beyond


@dataclass(frozen=True, eq=False)
class Annotations:
    """``N`` pictures and their ``M`` objects, sorted by picture."""

    source: Path
    """The file they come from."""
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_ids: np.ndarray
    """``(N,)`` int64."""
    files: PackedNames
    """``N`` names, relative to the folder of the pictures."""
    sizes: np.ndarray
    """``(N, 2)`` int32: height and width; 0 where not said."""
    starts: np.ndarray
    """``(N + 1,)`` int64: the objects of picture ``i`` are ``starts[i]`` up to ``starts[i + 1]``."""
    boxes: np.ndarray
    """``(M, 4)`` float64: left, top, width, height, as written."""
    labels: np.ndarray
    """``(M,)`` int64: index of the class."""
    crowd: np.ndarray
    """``(M,)`` bool."""
    areas: np.ndarray
    """``(M,)`` float64, as written."""
    shapes: PackedNames
    """``M`` segmentations as JSON; empty where there is none."""
    faults: Faults
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image_ids)

    def objects(self, index: int) -> slice:
        """The rows of a picture's objects."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))

    def shape(self, row: int) -> Segmentation:
        """The segmentation of an object; ``None`` without one."""
        text = self.shapes[row]
        return json.loads(text) if text else None

    @property
    def usable(self) -> np.ndarray:
        """``(N,)`` bool: pictures with an object that is no crowd."""
        solid = np.concatenate(([0], np.cumsum(~self.crowd)))
        return solid[self.starts[1:]] > solid[self.starts[:-1]]


def annotations(rows: Rows, size_of: Callable[[str], tuple[int, int]] | None = None) -> Annotations:
    """Check rows and pack them; faulty ones are noted in their ``faults``.

    Args:
        rows: Of a reader.
        size_of: Height and width of a file whose row does not say it, 0 where it cannot be told.
    """
    faults = rows.faults
    listed = _images(rows.images, size_of, faults)
    places = {row.id: place for place, row in enumerate(listed)}
    good = _objects(rows.objects, listed, places, faults)
    good.sort(key=lambda row: places[row.image_id])  # stable: objects stay in the order of the file
    counts = np.bincount(np.asarray([places[row.image_id] for row in good], np.int64), minlength=len(listed))
    return Annotations(
        source=rows.source,
        classes=rows.classes,
        category_ids=rows.category_ids,
        image_ids=np.asarray([row.id for row in listed], np.int64),
        files=PackedNames(row.file for row in listed),
        sizes=np.asarray([(row.height, row.width) for row in listed], np.int32).reshape(-1, 2),
        starts=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        boxes=np.asarray([row.box for row in good], np.float64).reshape(-1, 4),
        labels=np.asarray([row.label for row in good], np.int64),
        crowd=np.asarray([row.crowd for row in good], bool),
        areas=np.asarray([row.box[2] * row.box[3] if row.area is None else row.area for row in good], np.float64),
        shapes=PackedNames("" if row.shape is None else json.dumps(row.shape) for row in good),
        faults=faults,
        extra=rows.extra,
    )


def _images(
    rows: Sequence[ImageRow], size_of: Callable[[str], tuple[int, int]] | None, faults: Faults
) -> list[ImageRow]:
    """The pictures that can be used; each id once."""
    kept: dict[int, ImageRow] = {}
    files: set[str] = set()
    for row in rows:
        if row.id in kept:
            faults.note("image-id", f"picture {row.id}", f"{row.file} after {kept[row.id].file}")
        elif not is_inside(row.file):
            faults.note("image-path", f"picture {row.id}", f"{row.file} leads out of the folder of the pictures")
        else:
            if row.file in files:
                faults.note("file", f"picture {row.id}", row.file)
            files.add(row.file)
            sized = row if row.width or size_of is None else ImageRow(row.id, row.file, *size_of(row.file))
            kept[row.id] = sized
    return list(kept.values())


def is_inside(file: str) -> bool:
    """Whether a name stays below the folder it starts from."""
    path = PurePosixPath(file.replace("\\", "/"))
    return (
        bool(file)
        and "\0" not in file
        and not path.is_absolute()
        and ".." not in path.parts
        and ":" not in path.parts[0]
    )


def _objects(
    rows: Sequence[ObjectRow], images: Sequence[ImageRow], places: Mapping[int, int], faults: Faults
) -> list[ObjectRow]:
    """The objects that can be used, and what is odd about them."""
    kept: list[ObjectRow] = []
    names: Counter[str] = Counter()
    seen: set[tuple[Any, ...]] = set()
    for row in rows:
        image = images[places[row.image_id]] if row.image_id in places else None
        where = f"{row.name} of {image.file}" if image else row.name
        if image is None:
            faults.note("orphan", where, f"picture {row.image_id} is not listed")
            continue
        if (fault := _fault(row, image)) is not None:
            faults.note(fault[0], where, fault[1])
            continue
        names[row.name] += 1
        if names[row.name] > 1:
            faults.note("annotation-id", where, "its id is taken")
        key = (row.image_id, row.label, row.crowd, *row.box)
        if key in seen:
            faults.note("twice", where, _spoken(row.box))
        seen.add(key)
        kept.append(_with_sound_shape(row, where, image, faults))
    return kept


def _fault(row: ObjectRow, image: ImageRow) -> tuple[str, str] | None:
    """Kind and reason of what makes an object useless; ``None`` if nothing does."""
    box = row.box
    if row.label < 0:
        return "category", "its category is not listed"
    if not (isinstance(box, list | tuple) and len(box) == 4 and all(_is_number(value) for value in box)):
        return "box", f"{box!r:.60}"
    if box[2] <= 0 or box[3] <= 0:
        return "empty", _spoken(box)
    outside = image.width and (
        box[0] >= image.width or box[1] >= image.height or box[0] + box[2] <= 0 or box[1] + box[3] <= 0
    )
    return ("outside", f"{_spoken(box)} in {image.width} x {image.height}") if outside else None


def _with_sound_shape(row: ObjectRow, where: str, image: ImageRow, faults: Faults) -> ObjectRow:
    """An object without its mask where that means nothing."""
    x, y, width, height = row.box
    ends = (x + width - image.width, y + height - image.height) if image.width else (0, 0)
    if min(x, y) < -_SLACK or max(ends) > _SLACK:
        faults.note("beyond", where, f"{_spoken(row.box)} in {image.width} x {image.height}")
    if row.shape is None:
        return row
    try:
        if polygons(row.shape) is None:
            size = run_lengths(row.shape)[1]
            if image.width and size != (image.height, image.width):
                raise ShapeError(f"has run lengths of {size[0]} x {size[1]} pixels")
    except ShapeError as error:
        faults.note("mask", where, str(error))
        return row._replace(shape=None)
    return row


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _spoken(box: Sequence[float]) -> str:
    """A box for people."""
    x, y, width, height = box
    return f"x {x:g}, y {y:g}, {width:g} x {height:g}"
