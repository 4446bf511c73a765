"""Checkpoints that are there whole or not at all, and the one before as well.

A file is a torch zip of tensors and plain data, read with ``weights_only``, and only if every part's checksum is right.
"""

import os
import pickle
import platform
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mvitv2._version import __version__
from mvitv2.train.adapters import merged
from mvitv2.train.failures import CheckpointError
from mvitv2.weights.files import replacing, write_own

FORMAT = 2
LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.safetensors"


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that was read, and what had to be said on the way."""

    tree: dict[str, Any]
    notes: tuple[str, ...] = ()
    shards: Path | None = None
    """The folder that holds the tensors, where they are not in ``tree``."""


def save(folder: Path, tree: Mapping[str, Any]) -> None:
    """Write ``last.pt``; the one it replaces becomes ``previous.pt``.

    At every moment one of the two is whole: the new file is on the disk before the old one is renamed.

    Raises:
        CheckpointError: It cannot be written; what was there still is.
    """
    last = folder / LAST
    try:
        with replacing(last) as temporary:
            write(temporary, tree)
            if last.exists():
                last.replace(folder / PREVIOUS)
    except (OSError, RuntimeError) as error:
        raise unwritten(last, error) from error


def write(path: Path, tree: Mapping[str, Any]) -> None:
    """A file for :func:`read`, on the disk when this returns.

    Raises:
        OSError, RuntimeError: It cannot be written; torch reports a full disk as RuntimeError.
    """
    with path.open("wb") as file:
        torch.save({"format": FORMAT, **tree}, file)
        file.flush()
        os.fsync(file.fileno())


def unwritten(path: Path, error: BaseException) -> CheckpointError:
    """What to say of a checkpoint that could not be written."""
    # of a full disk torch only tells that bytes are missing
    reason = error.strerror if isinstance(error, OSError) else "not all of it arrived on the disk"
    there = next(folder for folder in path.parents if folder.exists())
    free = shutil.disk_usage(there).free >> 20
    return CheckpointError(f"{path} could not be written ({reason}; {free} MiB are free)")


def load(folder: Path) -> Loaded | None:
    """The newest checkpoint of a folder that is whole; ``None`` where there is none at all.

    A damaged file is renamed, so that it never takes the place of a good one.

    Raises:
        CheckpointError: There are checkpoints, and none of them is whole.
    """
    notes: list[str] = []
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            tree = read(path)
        except CheckpointError as error:
            aside = path.with_suffix(".damaged")
            path.replace(aside)
            notes.append(f"{error}; it is now {aside.name}")
            continue
        if notes:
            notes.append(f"going on from {path.name}, step {tree.get('step')}")
        return Loaded(tree, tuple(notes))
    if notes:
        raise CheckpointError(
            f"no checkpoint in {folder} can be read: {'; '.join(notes)}. Start anew in another folder"
        )
    return None


def read(path: Path) -> dict[str, Any]:
    """One checkpoint file.

    Raises:
        CheckpointError: It is damaged, or no checkpoint of ours.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise CheckpointError(f"{path} is damaged in {broken}")
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f"{path} is damaged or cut off ({reason})") from error
    if not isinstance(tree, dict) or "format" not in tree:
        raise CheckpointError(
            f"{path} is no checkpoint of a training run; weights to start from are named by weights=..."
        )
    if tree["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {tree['format']}, this version reads {FORMAT}; use the mvitv2 that wrote it"
        )
    return tree


def write_best(
    folder: Path, state: Mapping[str, torch.Tensor], config: Mapping[str, Any], card: Mapping[str, Any]
) -> Path:
    """The weights to use, in our own format with all that prediction needs: configuration, classes, preprocessing.

    Raises:
        CheckpointError: They cannot be written; what was there still is.
    """
    path = folder / BEST
    try:
        write_own(path, merged(state), config=config, card=card)
    except OSError as error:
        raise unwritten(path, error) from error
    return path


def versions() -> dict[str, str]:
    """What the numbers of a run depend on besides its recipe."""
    return {
        "mvitv2": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def remove(folder: Path) -> None:
    """Remove all checkpoints of one file: the run goes on with others."""
    for name in (LAST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)
