"""From what people type for their data to pictures with boxes: COCO's and LVIS's files, or a list of one's own.

=====================================  ==========================================================================
``coco``                               a folder with ``annotations/instances_train2017.json`` and ``..._val2017.json``
                                       beside ``train2017/`` and ``val2017/``; LVIS's ``lvis_v1_train.json`` likewise
``photos``                             ``instances_train.json`` or ``train.json`` beside ``train/``; or, in ``train/``,
                                       a JSON file beside the pictures (as Roboflow writes)
``photos``                             ``train.jsonl`` and ``val.jsonl``: :mod:`mvitv2.data.detection.boxlist`
``train.json,val.json``                the files themselves; one alone is data that is not split
=====================================  ==========================================================================
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mvitv2.data.detection.annotations import Annotations, annotations, is_inside
from mvitv2.data.detection.augment import SceneTransform
from mvitv2.data.detection.boxlist import boxlist_rows, is_boxlist
from mvitv2.data.detection.coco import coco_rows
from mvitv2.data.detection.dataset import DetectionImages
from mvitv2.data.detection.rows import Rows
from mvitv2.data.images import ImageError, read_size
from mvitv2.data.labelled import DataError
from mvitv2.data.names import shown
from mvitv2.data.splits import SPLITS, WHOLE, Spec, parts_by_split, role_of

_HEAD = 1 << 16  # bytes of a JSON file that tell what it is
_PROBED = 16  # pictures that are looked for before a folder is taken for theirs
_OTHER = ("captions", "keypoints", "panoptic", "stuff", "image_info", "results")
"""Words in the names of COCO's other files."""


def is_detection(spec: Spec) -> bool:
    """Whether some data is pictures with boxes."""
    try:
        return all(_holds_boxes(path) for path in annotation_files(spec).values())
    except DataError:
        return False


def annotation_files(spec: Spec) -> dict[str, Path]:
    """The file of every split, in the order train, val, test; under :data:`mvitv2.data.splits.WHOLE` one alone.

    Raises:
        DataError: There are none, or two files claim one split.
    """
    parts = parts_by_split(spec)
    if WHOLE not in parts:
        return {split: _one_file(Path(text), split) for split, text in parts.items()}
    path = Path(parts[WHOLE])
    if path.is_file():
        if not _holds_boxes(path):
            raise DataError(f"{path}: is neither COCO's JSON nor a list of boxes (JSON lines)")
        return {WHOLE: path}
    found = _in_folder(path)
    if not found:
        raise DataError(
            f"{path}: has no annotations of boxes; expected {path}/annotations/instances_train.json (COCO), or "
            f"{path}/train.jsonl with a line for each picture"
        )
    return found


def open_detection(
    spec: Spec,
    transforms: Mapping[str, SceneTransform | None],
    *,
    need: Sequence[str] = ("train", "val"),
    classes: Sequence[str] | None = None,
    masks: bool | None = None,
    data_root: str | os.PathLike[str] | None = None,
    **options: Any,
) -> dict[str, DetectionImages]:
    """Each split that ``transforms`` names and that is there; all have the classes of the first.

    Args:
        spec: See this module.
        transforms: Split -> transform; under :data:`mvitv2.data.splits.WHOLE` that of data which is not split.
        need: Splits without which it is an error.
        classes: The classes labels are of (those of a model); ``None``: those of the first split.
        masks: Give objects their masks; ``None``: if there are any.
        data_root: Folder that file names start from; ``None``: it is looked for near the annotations.
        **options: ``on_error`` and ``max_pixels``, as for :class:`DetectionImages`.

    Raises:
        DataError: A needed split is missing, or a file cannot be used as it lies there.
    """
    files = annotation_files(spec)
    missing = [split for split in need if split not in files]
    if missing:
        there = ", ".join(split or f"one file, {path.name}" for split, path in files.items())
        raise DataError(f"{spec}: has no boxes of {' and '.join(missing)}; it has {there}. Give both: TRAIN,VAL")
    opened: dict[str, DetectionImages] = {}
    for split, path in files.items():
        if split in transforms:
            found, root = read_annotations(path, classes, data_root)
            classes = classes or found.classes
            learnt = {"only_with_objects": split == "train"}
            opened[split] = DetectionImages(found, root, transforms[split], masks=masks, **learnt, **options)
    return opened


def read_annotations(
    path: Path, classes: Sequence[str] | None = None, data_root: str | os.PathLike[str] | None = None
) -> tuple[Annotations, Path]:
    """The annotations in a file, and the folder of their pictures.

    Raises:
        DataError: It is of no form known here, or none of its pictures is found.
    """
    rows = boxlist_rows(path, classes) if is_boxlist(path) else coco_rows(path, classes)
    root = _root(rows, None if data_root is None else Path(data_root))

    def size_of(file: str) -> tuple[int, int]:
        try:
            return read_size(root / file)
        except ImageError:  # it is told when the picture is to be read
            return 0, 0

    return annotations(rows, size_of), root


def _one_file(path: Path, split: str) -> Path:
    """The annotations of one split: a file, or what a folder has of it."""
    if path.is_file():
        return path
    found = _in_folder(path) if path.is_dir() else {}
    if split not in found:
        raise DataError(
            f"{path}: has no annotations of {split}; expected a JSON file of COCO's form or a list of boxes"
        )
    return found[split]


def _in_folder(folder: Path) -> dict[str, Path]:
    """The file of every split in a folder.

    Raises:
        DataError: Two files claim one split.
    """
    found: dict[str, Path] = {}
    for split, known in SPLITS.items():
        candidates = [path for path in _files(folder) if role_of(path.stem) == split]
        own = [path for name in known for path in _files(folder / name, deep=False)]
        named = sorted((path for path in [*candidates, *own] if _holds_boxes(path)), key=_rank)
        best = [path for path in named if _rank(path) == _rank(named[0])]
        if len(best) > 1:
            both = " and ".join(str(path.relative_to(folder)) for path in best[:2])
            raise DataError(f"{folder} has {both}, both of which list the {split} split; keep one, or name it")
        if best:
            found[split] = best[0]
    return found


def _files(folder: Path, *, deep: bool = True) -> Iterator[Path]:
    """JSON files in a folder and in its ``annotations``."""
    for place in (folder, folder / "annotations") if deep else (folder,):
        if place.is_dir():
            yield from sorted(p for p in place.iterdir() if p.suffix.lower() in (".json", ".jsonl") and p.is_file())


def _rank(path: Path) -> int:
    """COCO's own file of objects first, then LVIS's, then any."""
    name = path.name.lower()
    return 0 if name.startswith("instances") else 1 if name.startswith("lvis") else 2


def _holds_boxes(path: Path) -> bool:
    """Whether a file looks like annotations of boxes, by its name and its first or last bytes."""
    if any(word in path.name.lower() for word in _OTHER):
        return False
    if is_boxlist(path):
        return True
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(max(0, path.stat().st_size - _HEAD))
            text = head + file.read()
    except OSError:
        return False
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and bool(
        re.search(rb'"(images|annotations|categories)"\s*:\s*\[', text)
    )


def _root(rows: Rows, given: Path | None) -> Path:
    """The folder that the names of pictures start from: the first in which one of a few is found.

    Raises:
        DataError: None is found anywhere.
    """
    names = [row.file for row in rows.images if is_inside(row.file)]
    step = max(1, len(names) // _PROBED)
    probed = names[::step][:_PROBED]
    places = [given] if given is not None else list(_places(rows.source))
    for place in places:
        if any((place / name).is_file() for name in probed):
            return place
    if not names:
        return places[0]
    looked = shown([str(place) for place in places])
    raise DataError(
        f"{rows.source}: none of its pictures is there ({probed[0]}, ...); looked in {looked}. Say where they are: "
        "data_root"
    )


def _places(source: Path) -> Iterator[Path]:
    """Folders in which the pictures of a file may lie, likely ones first."""
    stem = source.stem.lower()
    for base in dict.fromkeys((source.parent, source.parent.parent)):
        yield base
        inside = sorted(entry for entry in base.iterdir() if entry.is_dir()) if base.is_dir() else []
        split = role_of(stem)
        yield from (entry for entry in inside if entry.name.lower() in re.split(r"[_.-]", stem))
        yield from (entry for entry in inside if split is not None and role_of(entry.name) == split)
        images = base / "images"
        if images.is_dir():
            yield images
            yield from sorted(entry for entry in images.iterdir() if entry.is_dir() and role_of(entry.name) == split)
