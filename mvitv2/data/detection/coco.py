"""COCO's and LVIS's JSON files: categories with gaps in their numbers, crowds, masks in any of their three forms.

LVIS is COCO with categories that were looked for in some pictures only: ``neg_category_ids`` of a picture are known to
be absent, ``not_exhaustive_category_ids`` are not all marked, and a category's ``frequency`` is ``r``, ``c`` or ``f``.
Its pictures are named by ``coco_url``, as ``train2017/000000000009.jpg``.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mvitv2.data.detection.rows import Faults, ImageRow, ObjectRow, Rows, sides
from mvitv2.data.labelled import DataError
from mvitv2.data.names import shown

_PARTS = ("images", "annotations", "categories")


def is_coco(value: Any) -> bool:
    """Whether the content of a JSON file is of this form."""
    return isinstance(value, dict) and all(isinstance(value.get(part), list) for part in _PARTS)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: It cannot be read, or is not JSON.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            return json.load(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, cut off
        raise DataError(f"{path}: is not JSON ({error}); was it downloaded whole?") from error


def coco_rows(path: Path, classes: Sequence[str] | None = None) -> Rows:
    """The pictures and objects of a COCO or LVIS file.

    Args:
        path: The file.
        classes: The classes labels number (those of the training split), by name; ``None``: those of the file, in the
            order of their ids.

    Raises:
        DataError: The file is of another form, or two categories share an id or a name.
    """
    content = read_json(path)
    if not is_coco(content):
        there = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{path}: is not COCO's form: expected lists {', '.join(_PARTS)}, found {there}")
    categories = _categories(path, content["categories"])
    known = tuple(categories.values()) if classes is None else tuple(classes)
    ids = {name: number for number, name in categories.items()}
    places = {name: place for place, name in enumerate(known)}
    labels = {number: places.get(name, -1) for number, name in categories.items()}
    faults = Faults()
    lvis = any("neg_category_ids" in image for image in content["images"][:1] if isinstance(image, dict))
    return Rows(
        source=path,
        images=list(_images(content["images"], faults)),
        objects=list(_objects(content["annotations"], labels, faults)),
        classes=known,
        category_ids=tuple(ids.get(name, -1) for name in known),
        faults=faults,
        extra=_lvis(content) if lvis else {},
    )


def _categories(path: Path, entries: Sequence[Any]) -> dict[int, str]:
    """Name by id, in the order of the ids.

    Raises:
        DataError: One is no record of id and name, or shares one of them with another.
    """
    sound = [c for c in entries if isinstance(c, dict) and _is_id(c.get("id")) and isinstance(c.get("name"), str)]
    if len(sound) < len(entries) or not sound:
        raise DataError(f"{path}: {len(entries) - len(sound)} of {len(entries)} categories have no id and name")
    for field in ("id", "name"):
        twice = [str(value) for value, count in Counter(c[field] for c in sound).items() if count > 1]
        if twice:
            raise DataError(f"{path}: categories share the {field} {shown(twice)}; give every category its own")
    return {c["id"]: c["name"] for c in sorted(sound, key=lambda c: c["id"])}


def _images(entries: Sequence[Any], faults: Faults):
    """A row for every picture that has an id and a file."""
    for place, entry in enumerate(entries):
        file = _file(entry) if isinstance(entry, dict) else None
        if file is None or not _is_id(entry.get("id")):
            faults.note("image", f"picture record {place}", f"{entry!r:.80}")
            continue
        yield ImageRow(entry["id"], file, *sides(entry))


def _file(entry: Mapping[str, Any]) -> str | None:
    """The file of a picture, from its folder on: LVIS gives COCO's address instead."""
    name, address = entry.get("file_name"), entry.get("coco_url")
    if isinstance(name, str) and name:
        return name
    return "/".join(address.split("/")[-2:]) if isinstance(address, str) and address else None


def _objects(entries: Sequence[Any], labels: Mapping[int, int], faults: Faults):
    """A row for every annotation that has an image and a category."""
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_id(entry.get("image_id")) or "bbox" not in entry:
            faults.note("record", f"annotation record {place}", f"{entry!r:.80}")
            continue
        area = entry.get("area")
        category: Any = entry.get("category_id")
        yield ObjectRow(
            name=f"annotation {entry['id']}" if "id" in entry else f"annotation record {place}",
            image_id=entry["image_id"],
            label=labels.get(category, -1) if _is_id(category) else -1,
            box=entry["bbox"],
            crowd=entry.get("iscrowd") in (1, True),
            area=float(area) if isinstance(area, int | float) else None,
            shape=entry.get("segmentation") or None,
        )


def _is_id(value: Any) -> bool:
    return type(value) is int


def _lvis(content: Mapping[str, Any]) -> dict[str, Any]:
    """What LVIS's measure needs beside the objects."""
    fields = ("neg_category_ids", "not_exhaustive_category_ids")
    images = [image for image in content["images"] if isinstance(image, dict)]
    found: dict[str, Any] = {
        field: {image.get("id"): tuple(image.get(field) or ()) for image in images} for field in fields
    }
    return {**found, "frequency": {c["name"]: c.get("frequency", "f") for c in content["categories"]}}
