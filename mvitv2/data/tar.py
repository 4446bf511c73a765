"""Where the samples of a tar shard are: one pass over its headers gives random access, and nothing is ever extracted.

The form is WebDataset's: the members of a sample follow each other and share their name up to the first dot, as in
``000012.jpg``, ``000012.cls``. With every offset known, a tar is a folder: shuffling, resuming in the middle of an
epoch and counting each sample once are those of any other data set, exact and independent of workers and processes.
"""

import contextlib
import hashlib
import io
import json
import re
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mvitv2.data.labelled import DataError, file_stamp
from mvitv2.data.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, suffix_counts
from mvitv2.data.store import cache_folder, written_whole

LABEL_SUFFIXES = ("cls", "label", "class", "json")
"""Members that hold the label, the first of them; JSON has it as ``label``, ``cls`` or ``class``."""
SIDECAR = ".index.npz"
"""Added to the name of a shard: its index, as :func:`mvitv2.data.pack.pack` writes it."""

_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")
_MAX_LABEL = 1 << 20  # bytes of a member that holds a label
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_MEDIA = tuple({suffix[1:] for suffix in suffixes} for suffixes in (VIDEO_SUFFIXES, IMAGE_SUFFIXES))
"""A clip comes before the picture that shows it."""


@dataclass
class TarIndex:
    """The samples of one shard."""

    bytes: int
    """Of the whole file."""
    names: list[str] = field(default_factory=list)
    """Of the picture of each sample."""
    offsets: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    sizes: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    kinds: tuple[str, ...] = ()
    """The different labels, as written."""
    codes: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    """Which of them each sample has."""
    ignored: dict[str, int] = field(default_factory=dict)
    """What made no sample, by reason."""

    def __len__(self) -> int:
        return len(self.offsets)


def tar_index(path: Path, *, cached: bool = True) -> TarIndex:
    """The index of a shard: the one beside it, the one in the cache, or a new one.

    Raises:
        DataError: It is no tar, is compressed or cut off, or holds no samples.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: the shard cannot be read ({error.strerror})") from error
    beside = path.with_name(path.name + SIDECAR)
    if beside.is_file() and (index := loaded(beside)).bytes == size:
        return index
    key = hashlib.sha256(file_stamp(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    kept = cache_folder("shards") / f"{key}{SIDECAR}"
    if cached and kept.is_file():
        with contextlib.suppress(DataError):  # a cache that was damaged is made again
            return loaded(kept)
    index = scanned(path)
    if cached:
        kept.parent.mkdir(parents=True, exist_ok=True)
        save(kept, index)
    return index


def scanned(path: Path) -> TarIndex:
    """The index of a shard, from its headers and labels.

    Raises:
        DataError: See :func:`tar_index`.
    """
    try:
        with path.open("rb") as file:
            _check_plain(path, file)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                index = _collected(path, file, _members(archive))
    except tarfile.TarError as error:
        raise DataError(f"{path}: is no whole tar file ({error}); copy or download it again") from error
    except OSError as error:
        raise DataError(f"{path}: the shard cannot be read ({error.strerror})") from error
    index.bytes = path.stat().st_size
    return index


def _check_plain(path: Path, file: BinaryIO) -> None:
    """Refuse compressed archives: they cannot be read from the middle.

    Raises:
        DataError: It is one.
    """
    head = file.read(8)
    file.seek(0)
    for mark, name in _COMPRESSED.items():
        if head.startswith(mark):
            raise DataError(
                f"{path}: is compressed ({name}); unpack it to a plain .tar, pictures do not get smaller by it"
            )


def _members(archive: Any) -> Iterator[tarfile.TarInfo]:
    """The members one after another, none of them kept."""
    while (member := archive.next()) is not None:
        archive.members.clear()
        yield member


def _collected(path: Path, file: BinaryIO, members: Iterator[tarfile.TarInfo]) -> TarIndex:
    """Samples of consecutive members of one key.

    Raises:
        DataError: There are none.
    """
    index, ignored, suffixes = TarIndex(0), Counter[str](), Counter[str]()
    places: list[tuple[int, int, str]] = []
    current, parts = "", dict[str, tarfile.TarInfo]()

    def finish() -> None:
        image = next((parts[name] for kind in _MEDIA for name in parts if name.rpartition(".")[2] in kind), None)
        label = next((parts[suffix] for suffix in LABEL_SUFFIXES if suffix in parts), None)
        if image is not None and label is not None:
            index.names.append(image.name)
            places.append((image.offset_data, image.size, sys.intern(_label(path, file, label))))
        elif parts:
            ignored["without a label" if image is not None else "without a picture"] += 1

    for member in members:
        match = _KEY.fullmatch(member.name)
        if not member.isreg() or match is None:
            ignored["links and devices"] += not (member.isreg() or member.isdir())
            continue
        key, suffix = match[1], match[2].lower()
        suffixes[f".{suffix}"] += 1
        if key != current:
            finish()
            current, parts = key, {}
        parts[suffix] = member
    finish()
    if not places:
        raise DataError(
            f"{path}: holds no samples; expected NAME.jpg and NAME.cls one after another, "
            f"found {suffix_counts(suffixes)}"
        )
    offsets, sizes, labels = zip(*places, strict=True)
    index.offsets, index.sizes = np.asarray(offsets, np.int64), np.asarray(sizes, np.int64)
    index.kinds = tuple(sorted(set(labels)))
    code = {kind: place for place, kind in enumerate(index.kinds)}
    index.codes = np.fromiter((code[label] for label in labels), np.int32, count=len(labels))
    index.ignored = {reason: count for reason, count in ignored.items() if count}
    return index


def _label(path: Path, file: BinaryIO, member: tarfile.TarInfo) -> str:
    """The label that a member holds.

    Raises:
        DataError: None can be made of it.
    """
    if member.size > _MAX_LABEL:
        raise DataError(f"{path}: {member.name} has {member.size} bytes, too many for a label")
    file.seek(member.offset_data)
    data = file.read(member.size)
    try:
        text = data.decode("utf-8").strip()
        if member.name.lower().endswith(".json"):
            entry = json.loads(text)
            values = (
                [entry[key] for key in ("label", "cls", "class") if key in entry] if isinstance(entry, dict) else []
            )
            text = str(values[0]).strip() if values and isinstance(values[0], str | int) else ""
    except ValueError as error:
        raise DataError(f"{path}: {member.name} is no label ({error})") from error
    if not text or "\n" in text:
        raise DataError(f"{path}: {member.name} is no label; expected a number or a name on one line")
    return text


def save(path: Path, index: TarIndex) -> None:
    """Write an index."""
    texts = {"names": index.names, "kinds": index.kinds, "ignored": index.ignored}
    encoded = np.frombuffer(json.dumps(texts).encode(), np.uint8)
    size = np.asarray(index.bytes, np.int64)
    places = {"offsets": index.offsets, "sizes": index.sizes, "codes": index.codes}
    arrays: dict[str, Any] = {"bytes": size, "texts": encoded, **places}
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def loaded(path: Path | str, data: bytes | None = None) -> TarIndex:
    """An index that :func:`save` wrote, checked: it may come from somebody else.

    Args:
        path: Its file, or with ``data`` what to call it.
        data: Its bytes, where they were fetched.

    Raises:
        DataError: It is none, or does not fit itself.
    """
    try:
        stream = io.BytesIO(Path(path).read_bytes() if data is None else data)
        with np.load(stream, allow_pickle=False) as file:
            texts = json.loads(file["texts"].tobytes())
            size = int(file["bytes"])
            offsets, sizes, codes = (file[name] for name in ("offsets", "sizes", "codes"))
        names, kinds = [str(name) for name in texts["names"]], tuple(str(kind) for kind in texts["kinds"])
        fits = (
            offsets.shape == sizes.shape == codes.shape == (len(names),)
            and bool((offsets >= 0).all() and (sizes >= 0).all() and (offsets + sizes <= size).all())
            and bool((codes >= 0).all() and (codes < len(kinds)).all())
        )
        ignored = {str(reason): int(count) for reason, count in texts["ignored"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is no index of a shard ({error}); delete it, and it is made again") from error
    if not fits:
        raise DataError(f"{path}: is a damaged index of a shard; delete it, and it is made again")
    return TarIndex(size, names, offsets, sizes, kinds, codes, ignored)
