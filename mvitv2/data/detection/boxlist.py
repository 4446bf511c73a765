"""One's own boxes as JSON lines, the simple form: one picture a line.

.. code-block:: text

    {"file": "a.jpg", "boxes": [[12, 30, 200, 220.5]], "labels": ["dog"]}
    {"file": "b.jpg", "boxes": [], "labels": []}

``boxes`` are left, top, right, bottom in pixels; ``labels`` are names of classes, or numbers from 0 where a
``classes.txt`` lies beside the list. Beside them there may be ``masks``, one for each box: polygons
``[[x, y, x, y, ...], ...]``, run lengths as COCO writes them, or ``null``; and ``height`` and ``width``, which save
opening every picture.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mvitv2.data.classes import class_file_in, class_list, numbered
from mvitv2.data.detection.rows import Faults, ImageRow, ObjectRow, Rows, sides
from mvitv2.data.labelled import DataError

_KNOWN = ("file", "boxes", "labels", "masks", "height", "width")


def is_boxlist(path: Path) -> bool:
    """Whether the first line of a file is of this form."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = next((line for line in file if line.strip()), "")
        record = json.loads(first)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and "boxes" in record


def boxlist_rows(path: Path, classes: Sequence[str] | None = None) -> Rows:
    """The pictures and objects of a list.

    Args:
        path: JSON lines.
        classes: The classes labels name or number; ``None``: ``classes.txt`` and the like beside the list, else the
            names that occur.

    Raises:
        DataError: The list cannot be read, or no line has a picture.
    """
    faults = Faults()
    records = list(_records(path, faults))
    if not records:
        raise DataError(f'{path}: has no line like {{"file": "a.jpg", "boxes": [[0, 0, 9, 9]], "labels": ["dog"]}}')
    if classes is None and (beside := class_file_in(path.parent)) is not None:
        classes = class_list(beside)[0]
    written = [str(label) for _, record in records for label in record["labels"]]
    places, known, _ = numbered(written, classes)
    images = [ImageRow(place, record["file"], *sides(record)) for place, (_, record) in enumerate(records)]
    objects: list[ObjectRow] = []
    for place, (line, record) in enumerate(records):
        masks = record.get("masks") or [None] * len(record["boxes"])
        for number, (box, shape) in enumerate(zip(record["boxes"], masks, strict=True), 1):
            label = int(places[len(objects)])
            objects.append(ObjectRow(f"line {line}, box {number}", place, label, _extents(box), shape=shape or None))
    return Rows(
        source=path,
        images=images,
        objects=objects,
        classes=known,
        category_ids=tuple(range(1, len(known) + 1)),
        faults=faults,
    )


def _records(path: Path, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every sound line with its number.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.note("image", f"line {number}", f"is not JSON ({error})")
            continue
        if (reason := _offence(record)) is None:
            yield number, record
        else:
            faults.note("image", f"line {number}", reason)


def _offence(record: Any) -> str | None:
    """What is wrong with a line; ``None`` if nothing is."""
    if not isinstance(record, dict) or not isinstance(record.get("file"), str):
        return f'has no "file": {record!r:.60}'
    unknown = sorted(set(record) - set(_KNOWN))
    if unknown:
        return f"has unknown fields {', '.join(unknown)}; known are {', '.join(_KNOWN)}"
    for name in ("boxes", "labels"):
        if not isinstance(record.get(name), list):
            return f"needs a list {name!r}, got {record.get(name)!r:.40}"
    counts = [len(record[name]) for name in ("boxes", "labels", "masks") if record.get(name) is not None]
    if len(set(counts)) > 1:
        return f"has {counts[0]} boxes, {counts[1]} labels" + (f", {counts[2]} masks" if len(counts) > 2 else "")
    return None


def _extents(box: Any) -> Any:
    """Left, top, width, height of a box by its corners; what is none stays as it is, to be found faulty."""
    numbers = isinstance(box, list) and len(box) == 4 and all(type(value) in (int, float) for value in box)
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]] if numbers else box
