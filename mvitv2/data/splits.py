"""Finding ``train/``, ``val/`` and ``test/`` in a folder, and the names people know its classes by."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mvitv2.data.folder import DataError, ImageFolder, Transform, shown, subfolders
from mvitv2.data.sources import close_names

SPLITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("train", "training"),
        "val": ("val", "valid", "validation", "eval", "dev"),
        "test": ("test", "testing"),
    }
)
"""Folder names of each split, upper or lower case."""


def find_splits(root: str | os.PathLike[str]) -> dict[str, Path]:
    """The split folders in ``root`` by their plain names, in the order train, val, test; empty where there are none.

    A folder counts only if it holds folders: ``train`` may be a class beside ``bus`` and ``car``.

    Raises:
        DataError: ``root`` cannot be listed, or two folders claim one split.
    """
    folder = Path(root)
    names = subfolders(folder)
    found: dict[str, Path] = {}
    for split, known in SPLITS.items():
        claims = [name for name in names if name.lower() in known and subfolders(folder / name)]
        if len(claims) > 1:
            raise DataError(f"{folder} has {' and '.join(claims)}, both of which name the {split} split; keep one")
        if claims:
            found[split] = folder / claims[0]
    return found


def open_splits(
    root: str | os.PathLike[str],
    transforms: Mapping[str, Transform | None],
    *,
    need: Sequence[str] = ("train", "val"),
    **options: Any,
) -> dict[str, ImageFolder]:
    """Each split of ``root`` that ``transforms`` names and that is there; all have the classes of the first.

    Args:
        root: A folder with split folders of class folders.
        transforms: Split -> transform.
        need: Splits without which it is an error.
        **options: For :class:`ImageFolder`.

    Raises:
        DataError: A needed split is missing (what is there instead is said), or the classes differ.
    """
    found = find_splits(root)
    missing = [split for split in need if split not in found]
    if missing:
        raise DataError(_missing_message(Path(root), missing, found))
    opened: dict[str, ImageFolder] = {}
    for split in (split for split in found if split in transforms):
        classes = next(iter(opened.values())).classes if opened else options.get("classes")
        opened[split] = ImageFolder(found[split], transforms[split], **{**options, "classes": classes})
    return opened


def _missing_message(root: Path, missing: Sequence[str], found: Mapping[str, Path]) -> str:
    """What is there instead of the ``missing`` splits, and what to do."""
    there = subfolders(root)
    looked = " and ".join(f"{root / split}" for split in missing)
    unknown = [name for name in there if root / name not in found.values()]
    hints = [f"{name!r} looks like {split!r}: rename it" for name in unknown for split in missing if _like(name, split)]
    flat = [name for name in there for split in missing if name.lower() in SPLITS[split]]
    if flat:
        hints = [f"{root / flat[0]} holds no class folders; sort its images into one folder per class"]
    elif not hints and unknown and not found:
        hints = [f"put these class folders into {root / 'train'}, and some images of each into {root / 'val'}"]
    hint = hints[0] if hints else f"make it: {root / missing[0]}/CLASS/image.jpg"
    return f"looked for {looked} with class folders in it; found {shown(there) or 'no folders'}; {hint}"


def _like(name: str, split: str) -> bool:
    """Whether ``name`` is nearly one of the names of ``split``, or begins with one."""
    lower = name.lower()
    return any(close_names(lower, [known]) or lower.startswith(f"{known}_") for known in SPLITS[split])


def class_names(path: str | os.PathLike[str], classes: Sequence[str]) -> tuple[str, ...]:
    """What people call ``classes`` (WordNet ids, say), in their order, from a file that lists names.

    Read are Keras' ``imagenet_class_index.json`` (``{"0": [id, name]}``), a JSON object of id to name, tables with
    columns ``wnid`` and ``name`` (CSV or TSV), and lines of an id, a space or tab and a name (``synset_words.txt``,
    ``LOC_synset_mapping.txt``).

    Raises:
        DataError: The file is in none of these forms, or lacks some of the classes (they are listed).
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: class names cannot be read ({error})") from error
    names = _json_names(file, text) if text.lstrip().startswith(("{", "[")) else _table_names(text)
    missing = [name for name in classes if name not in names]
    if missing:
        raise DataError(f"{file} names {len(names)} classes but lacks {len(missing)} of these: {shown(missing)}")
    return tuple(names[name] for name in classes)


def _json_names(file: Path, text: str) -> dict[str, str]:
    """Id to name from either JSON form."""
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise DataError(f"{file}: not valid JSON ({error})") from error
    if isinstance(entries, dict) and all(isinstance(value, str) for value in entries.values()):
        return entries
    pairs = list(entries.values()) if isinstance(entries, dict) else entries
    if not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in pairs
    ):
        raise DataError(f'{file}: expected {{"id": "name"}} or {{"0": ["id", "name"]}}')
    return {key: value for key, value in pairs}


def _table_names(text: str) -> dict[str, str]:
    """Id to name from lines: a table whose header says ``wnid`` and ``name``, or an id and the rest of the line."""
    lines = text.splitlines()
    header = lines[0] if lines else ""
    delimiter = "\t" if "\t" in header else ","
    columns = header.split(delimiter)
    if {"wnid", "name"} <= set(columns):
        return {row["wnid"]: row["name"] for row in csv.DictReader(lines, delimiter=delimiter)}
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {pair[0]: pair[-1].strip() for pair in pairs}
