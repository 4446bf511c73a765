"""Finding ``train/``, ``val/`` and ``test/`` in a folder."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from mvitv2.data.folder import subfolders
from mvitv2.data.labelled import DataError
from mvitv2.data.names import shown
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


def missing_message(root: Path, missing: Sequence[str], found: Mapping[str, Path]) -> str:
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
