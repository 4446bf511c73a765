"""What one look at every picture of a data set tells: content, size, colours, and a thumbnail to know it again by.

The columns of a whole data set take about 260 bytes a picture, and are kept between runs for as long as no file
changes its name, size or time.
"""

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mvitv2.data.images import ImageError, opened
from mvitv2.data.labelled import Pictures
from mvitv2.data.store import cache_folder, written_whole

Told = Callable[[int, int], None]
"""Told how many are done, and of how many."""

DIGEST, THUMB = 16, 8 * 8 * 3
"""Bytes of the content's checksum, and of the thumbnail."""

_SMALL = (72, 64)
"""Whole multiples of the 9 x 8 points of the difference hash and of the 8 x 8 of the thumbnail."""
_VERSION = 2
_CHUNK = 32  # pictures a thread is given at a time
_KEPT = 64  # data sets remembered
_LEVELS = np.arange(256) / 255


class Look(NamedTuple):
    """One picture."""

    digest: bytes
    """Of the file's bytes: the first 16 of its sha256."""
    hash: int
    """64 bits: whether each of 8 x 8 points is darker than its right neighbour."""
    thumb: bytes
    """8 x 8 RGB."""
    size: tuple[int, int]
    """Width and height, upright."""
    kind: str
    """Format and mode of the file, as in ``"JPEG RGB"``."""
    mean: tuple[float, ...]
    """Per channel, of values in 0..1."""
    square: tuple[float, ...]
    """Mean of their squares."""
    frames: int = 1
    fps: float = 0.0
    """Of a clip; see :class:`mvitv2.data.images.Traits`."""


@dataclass
class Looks:
    """Columns of all pictures of a data set; rows of unreadable ones are zero."""

    digests: np.ndarray
    """``(N, 16)`` uint8."""
    hashes: np.ndarray
    """``(N,)`` uint64."""
    thumbs: np.ndarray
    """``(N, 192)`` uint8."""
    sizes: np.ndarray
    """``(N, 2)`` int32: width and height."""
    moments: np.ndarray
    """``(N, 2, 3)`` float32: mean and mean square per channel."""
    codes: np.ndarray
    """``(N,)`` int32: which of ``kinds``."""
    frames: np.ndarray
    """``(N,)`` int32: of clips."""
    fps: np.ndarray
    """``(N,)`` float32: of clips."""
    kinds: list[str]
    faults: dict[int, str]
    """Why a picture cannot be read, by index."""

    @classmethod
    def empty(cls, count: int) -> "Looks":
        """Columns that are to be filled."""
        return cls(
            np.zeros((count, DIGEST), np.uint8),
            np.zeros(count, np.uint64),
            np.zeros((count, THUMB), np.uint8),
            np.zeros((count, 2), np.int32),
            np.zeros((count, 2, 3), np.float32),
            np.zeros(count, np.int32),
            np.zeros(count, np.int32),
            np.zeros(count, np.float32),
            [],
            {},
        )

    @property
    def readable(self) -> np.ndarray:
        """``(N,)`` bool."""
        mask = np.ones(len(self.hashes), bool)
        mask[list(self.faults)] = False
        return mask

    def put(self, index: int, found: Look | str) -> None:
        """Fill a row."""
        if isinstance(found, str):
            self.faults[index] = found
            return
        if found.kind not in self.kinds:
            self.kinds.append(found.kind)
        self.digests[index] = np.frombuffer(found.digest, np.uint8)
        self.hashes[index] = found.hash
        self.thumbs[index] = np.frombuffer(found.thumb, np.uint8)
        self.sizes[index] = found.size
        self.moments[index] = (found.mean, found.square)
        self.codes[index] = self.kinds.index(found.kind)
        self.frames[index], self.fps[index] = found.frames, found.fps


def look(dataset: Pictures, index: int) -> Look | str:
    """One look at a picture, or why it cannot be read."""
    try:
        source = dataset.source(index)
        if isinstance(source, Path) and source.is_dir():  # a clip of pictures
            digest = _folder_digest(source)
            image, traits = dataset.look(source, index)
        elif isinstance(source, Path):
            with opened(source) as file:
                digest = hashlib.file_digest(file, "sha256").digest()
                file.seek(0)
                image, traits = dataset.look(file, index)
        else:
            digest = hashlib.sha256(source if isinstance(source, bytes) else b"").digest()
            image, traits = dataset.look(source, index)
    except ImageError as error:
        return error.reason
    except OSError as error:  # the disk gives out while the checksum is made
        return f"cannot be read ({error.strerror or error})"
    seen = described(image, digest[:DIGEST], f"{traits.format} {traits.mode}")
    return seen._replace(frames=traits.frames, fps=traits.fps)


def _folder_digest(folder: Path) -> bytes:
    """A checksum of the files in a folder, whatever they are called."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file():
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()


def described(image: Image.Image, digest: bytes, kind: str) -> Look:
    """What is kept of an RGB picture."""
    small = image.resize(_SMALL, Image.Resampling.BOX)
    gray = np.asarray(small.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = np.packbits(gray[:, :-1] < gray[:, 1:])
    thumb = small.resize((8, 8), Image.Resampling.BOX).tobytes()
    counts = np.asarray(image.histogram(), np.float64).reshape(3, 256) / (image.width * image.height)
    mean, square = counts @ _LEVELS, counts @ _LEVELS**2
    return Look(digest, int.from_bytes(bits.tobytes(), "big"), thumb, image.size, kind, tuple(mean), tuple(square))


def looks(
    dataset: Pictures, *, threads: int | None = None, cached: bool = True, on_progress: Told | None = None
) -> Looks:
    """A look at every picture, from the cache where no file has changed since.

    Args:
        dataset: Any form.
        threads: That read at a time; ``None``: one per core.
        cached: Use what was kept, and keep what is found.
        on_progress: Told how many are done, and of how many.

    Raises:
        OSError: The cache cannot be written.
    """
    place = cache_folder("looks") / f"{fingerprint(dataset)}.npz" if cached else None
    if place is not None and place.is_file() and (kept := _loaded(place, len(dataset))) is not None:
        os.utime(place)
        if on_progress is not None:
            on_progress(len(dataset), len(dataset))
        return kept
    found = Looks.empty(len(dataset))
    for done, (index, one) in enumerate(_all(dataset, threads or _cores()), 1):
        found.put(index, one)
        if on_progress is not None:
            on_progress(done, len(dataset))
    if place is not None:
        _keep(place, found)
    return found


def fingerprint(dataset: Pictures) -> str:
    """Changes when a file of the data set changes its name, size or time, or another comes or goes."""
    digest = hashlib.sha256(f"{_VERSION} {dataset.max_pixels} {len(dataset)}".encode())
    for index in range(len(dataset)):
        digest.update(dataset.stamp(index).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()[:40]


def _all(dataset: Pictures, threads: int) -> Iterator[tuple[int, Look | str]]:
    """A look at every picture, few of them in memory at a time."""
    indices = iter(range(len(dataset)))
    with ThreadPoolExecutor(threads) as pool:
        while chunk := list(islice(indices, _CHUNK * threads)):
            yield from zip(chunk, pool.map(lambda index: look(dataset, index), chunk), strict=True)


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_ARRAYS = ("digests", "hashes", "thumbs", "sizes", "moments", "codes", "frames", "fps")


def _keep(place: Path, found: Looks) -> None:
    """Write what was found, and forget what was not used for longest."""
    place.parent.mkdir(parents=True, exist_ok=True)
    texts = json.dumps({"kinds": found.kinds, "faults": list(found.faults.items())})
    arrays: dict[str, Any] = {name: getattr(found, name) for name in _ARRAYS}
    with written_whole(place) as temporary, temporary.open("wb") as file:
        np.savez(file, texts=np.frombuffer(texts.encode(), np.uint8), **arrays)
    by_age: list[tuple[int, Path]] = []
    for path in place.parent.glob("*.npz"):
        with contextlib.suppress(FileNotFoundError):  # another process forgets as well
            by_age.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(by_age)[:-_KEPT]:
        path.unlink(missing_ok=True)


def _loaded(place: Path, count: int) -> Looks | None:
    """What was kept; ``None`` where it is damaged, so that it is made again."""
    try:
        with place.open("rb") as opened_file, np.load(opened_file, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
            texts = json.loads(file["texts"].tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if any(len(array) != count for array in arrays.values()):
        return None
    return Looks(**arrays, kinds=texts["kinds"], faults={int(index): reason for index, reason in texts["faults"]})
