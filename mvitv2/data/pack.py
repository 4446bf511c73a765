"""Any data set as tar shards, which plain WebDataset readers take as well.

The files go in as they are, byte for byte. Beside the shards lie their indices and ``index.json`` with sizes,
checksums and classes; it is written last, so that a folder without it was not finished.
"""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mvitv2.data.images import ImageError, ImageSource, opened
from mvitv2.data.labelled import SHUFFLE, DataError, LabelledImages
from mvitv2.data.samples import sample_seed
from mvitv2.data.shards import INDEX, shard_list
from mvitv2.data.sources import IMAGE_SUFFIXES
from mvitv2.data.store import written_whole
from mvitv2.data.tar import SIDECAR, save, scanned

SHARD_SIZE = 1 << 28
"""Bytes of a shard: 256 MiB."""
_BLOCK = 512
_PLAIN = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class PackedShard:
    """A shard that was written."""

    name: str
    bytes: int
    sha256: str
    samples: int


def pack(
    dataset: LabelledImages,
    folder: str | os.PathLike[str],
    shard_size: int = SHARD_SIZE,
    *,
    seed: int | None = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[PackedShard]:
    """Write a data set as ``shards-000000.tar`` and so on.

    The same data gives the same bytes. Files that cannot be opened are left out where the data set skips such files,
    and named in ``index.json``; whether a file is a whole picture is not looked at.

    Args:
        dataset: Any form.
        folder: Made if it is not there; one per split, ``shards/train`` and ``shards/val``.
        shard_size: Bytes after which a new shard begins; a shard holds at least one sample.
        seed: Mixes the samples, for readers that stream; ``None`` keeps their order.
        on_progress: Told samples done and samples in all.

    Returns:
        The shards.

    Raises:
        DataError: The folder holds shards already.
        ImageError: A file cannot be opened and the data set does not skip such files.
        OSError: The disk is full.
    """
    target = Path(folder)
    if any(target.glob("*.tar")) or (target / INDEX).exists():
        raise DataError(f"{target}: holds shards already; give an empty folder, or remove them")
    if shard_size < 1:
        raise ValueError(f"shard_size={shard_size} must be a number of bytes above 0")
    target.mkdir(parents=True, exist_ok=True)
    order = range(len(dataset))
    if seed is not None:
        order = np.random.default_rng(sample_seed(seed, 0, SHUFFLE)).permutation(len(dataset)).tolist()
    skipped: list[dict[str, str]] = []
    samples = _samples(dataset, order, skipped, on_progress)
    shards: list[PackedShard] = []
    waiting = next(samples, None)
    while waiting is not None:
        path = target / f"shards-{len(shards):06}.tar"
        waiting = _write_shard(path, waiting, samples, shard_size, shards)
    if not shards:
        raise DataError(f"{dataset}: holds no file that can be opened, so there is nothing to pack")
    entries = {
        "samples": sum(shard.samples for shard in shards),
        "classes": dataset.classes,
        "class_names": dataset.class_names,
        "skipped": skipped,
        "shards": [asdict(shard) for shard in shards],
    }
    with written_whole(target / INDEX) as temporary:
        temporary.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return shards


Member = tuple[str, bytes]
Sample = tuple[Member, Member]


def _samples(
    dataset: LabelledImages,
    order: range | list[int],
    skipped: list[dict[str, str]],
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[Sample]:
    """Picture and label of every sample under a key that tells where it came from."""
    for done, index in enumerate(order):
        path = dataset.path(index)
        try:
            data = whole(dataset.source(index))
        except ImageError as error:
            if dataset.on_error == "raise":
                raise
            skipped.append({"path": str(path), "reason": error.reason})
            continue
        finally:
            if on_progress is not None:
                on_progress(done + 1, len(order))
        suffix = path.suffix.lower().lstrip(".")
        suffix = suffix if f".{suffix}" in IMAGE_SUFFIXES else _suffix(data)
        key = f"{done:08}_{_PLAIN.sub('_', f'{path.parent.name}_{path.stem}')[-60:]}"
        yield (f"{key}.{suffix}", data), (f"{key}.cls", str(int(dataset.labels[index])).encode())


def whole(source: ImageSource) -> bytes:
    """The bytes of a picture's file.

    Raises:
        ImageError: It cannot be opened.
    """
    if isinstance(source, str | os.PathLike):
        with opened(Path(source)) as file:
            return file.read()
    return bytes(source) if isinstance(source, bytes | bytearray | memoryview) else source.read()


def _suffix(data: bytes) -> str:
    """A suffix for a file whose name has none; readers go by the content, so it is for people."""
    marks = {b"\x89PNG": "png", b"GIF8": "gif", b"BM": "bmp", b"II*\x00": "tif", b"MM\x00*": "tif"}
    named = next((suffix for mark, suffix in marks.items() if data.startswith(mark)), "jpg")
    return "webp" if data[8:12] == b"WEBP" else named


def _write_shard(
    path: Path, first: Sample, rest: Iterator[Sample], shard_size: int, shards: list[PackedShard]
) -> Sample | None:
    """One shard and its index; gives the sample that did not fit any more."""
    count, waiting = 0, first
    with written_whole(path) as temporary:
        with tarfile.open(temporary, "w:", format=tarfile.PAX_FORMAT) as archive:
            while waiting is not None and (not count or archive.offset + _room(waiting) <= shard_size):
                for name, data in waiting:
                    member = tarfile.TarInfo(name)
                    member.size = len(data)  # no time, no owner: the same data gives the same bytes
                    archive.addfile(member, io.BytesIO(data))
                count, waiting = count + 1, next(rest, None)
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    save(path.with_name(path.name + SIDECAR), scanned(path))
    shards.append(PackedShard(path.name, path.stat().st_size, digest, count))
    return waiting


def _room(sample: Sample) -> int:
    """Bytes that a sample takes in a tar."""
    return sum(_BLOCK + -(-len(data) // _BLOCK) * _BLOCK for _, data in sample)


def damaged(folder: str | os.PathLike[str]) -> list[str]:
    """What is wrong with packed shards, a sentence each: missing ones, other sizes, other checksums.

    Raises:
        DataError: There is no ``index.json``.
    """
    place = Path(folder) / INDEX
    if not place.is_file():
        raise DataError(f"{place} does not exist; without it nothing is known of the shards")
    faults = []
    for name, expected in shard_list(place.read_bytes(), str(place)).shards.items():
        path = place.parent / name
        if not path.is_file():
            faults.append(f"{name} is missing")
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if path.stat().st_size != expected.bytes or digest != expected.sha256:
            faults.append(f"{name} has {path.stat().st_size} bytes and sha256 {digest[:12]}..., expected {expected}")
    return faults
