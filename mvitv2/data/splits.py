"""Which splits data has: ``train/``, ``val/`` and ``test/`` in a folder, or parts that people name one by one."""

import os
import re
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
        "val": ("val", "valid", "validation", "validate", "eval", "dev"),
        "test": ("test", "testing"),
    }
)
"""Folder names of each split, upper or lower case."""


Spec = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[str, str | os.PathLike[str]]
"""What people type, a part per split in the order train, val, test, or a part by the name of its split."""

WHOLE = ""
"""Stands for the split of data that is not split."""


def parts_by_split(spec: Spec) -> dict[str, str]:
    """The part of every split, in the order train, val, test; under :data:`WHOLE` what is one part.

    Raises:
        DataError: A split that is none, or too many parts.
    """
    if isinstance(spec, Mapping):
        unknown = [name for name in spec if name not in SPLITS]
        if unknown:
            raise DataError(f"{unknown[0]!r} is no split; they are called {', '.join(SPLITS)}")
        return {split: os.fspath(spec[split]) for split in SPLITS if split in spec}
    parts = _parts(os.fspath(spec)) if isinstance(spec, str | os.PathLike) else [os.fspath(part) for part in spec]
    if len(parts) == 1:
        return {WHOLE: parts[0]}
    roles = [role_of(part) for part in parts]
    usual = list(SPLITS)[: len(parts)]
    if sorted(map(str, roles)) != sorted(usual):  # their names do not say it, their order does
        roles = usual
    if len(parts) > len(roles):
        raise DataError(f"{len(parts)} parts are given; expected training, validation and maybe test data")
    named = dict(zip([str(role) for role in roles], parts, strict=True))
    return {split: named[split] for split in SPLITS if split in named}


def _parts(text: str) -> list[str]:
    """A text at its commas, those in braces and in names that exist left alone."""
    if Path(text).exists() or text.lower().startswith("pipe:"):
        return [text]
    return [part for part in re.split(r",(?![^{}]*\})", text) if part] or [text]


def role_of(text: str) -> str | None:
    """The split that the name of some data says, if it says one."""
    words = re.split(r"[^a-z]+", re.split(r"[/\\#]", text.rstrip("/\\"))[-1].lower())
    return next((split for split, known in SPLITS.items() if any(word in known for word in words)), None)


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
