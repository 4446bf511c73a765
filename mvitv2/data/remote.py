"""Shards behind a URL: fetched once into a cache of bounded size, then read in place.

The webdataset library knows http, https, hf, gs, ais, sftp, ``pipe:`` and more; fsspec other stores (s3, abfs, ...).
Readers of webdataset are streams, which cannot go on exactly in the middle of an epoch; a fetched shard is a local one,
which can.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from mvitv2.data.labelled import DataError
from mvitv2.data.store import cache_folder, is_offline, written_whole
from mvitv2.extras import MissingExtra, required

MAX_SMALL = 1 << 28
"""Bytes of an index that are read at most."""
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)
_CHUNK = 1 << 20
_WEBDATASET = {"file", "pipe", "http", "https", "hf", "gs", "htgs", "ais", "sftp", "ftps", "scp"}


@dataclass(frozen=True)
class Expected:
    """What an index says about a shard."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardCache:
    """Where fetched shards are kept."""

    folder: Path
    max_bytes: int | None = None
    """What they take at most; the ones unused for longest make room. ``None``: no limit."""


def is_url(name: str) -> bool:
    """Whether ``name`` is a URL and no path (nor a path with a drive letter)."""
    return _SCHEME.match(name) is not None


def default_cache() -> ShardCache:
    """The cache in the usual folder, without a limit."""
    return ShardCache(cache_folder("shards"))


def sibling(url: str, name: str) -> str | None:
    """The URL of ``name`` beside ``url``; ``None`` where there is nothing beside, as for a command."""
    if url.lower().startswith("pipe:") or "?" in url:
        return None
    return f"{url.rpartition('/')[0]}/{name}"


def fetched(url: str, cache: ShardCache, expected: Expected | None = None) -> Path:
    """The local copy of a shard; other processes that want it wait for the one that fetches.

    Raises:
        DataError: It cannot be fetched, or is another file than its index says.
        MissingExtra: webdataset is not installed.
    """
    folder = cache.folder / hashlib.sha256(url.encode()).hexdigest()[:32]
    name = re.sub(r"[^A-Za-z0-9._-]", "_", url.rpartition("/")[2])[-100:] or "shard.tar"
    target = folder / (name if name.endswith(".tar") else f"{name}.tar")
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / "lock"):
            if not target.is_file():
                _fetch(url, target, expected)
        if cache.max_bytes is not None:
            _make_room(cache, target)
    os.utime(target)
    return target


def small(url: str) -> bytes | None:
    """A small file that may be there; ``None`` where it is not, or the network may not be used."""
    if is_offline():
        return None
    with contextlib.suppress(OSError), _open(url) as stream:
        data = stream.read(MAX_SMALL)
        return data or None
    return None


def _fetch(url: str, target: Path, expected: Expected | None) -> None:
    """Write what ``url`` gives to ``target``.

    Raises:
        DataError: It gives nothing, or something else than expected.
    """
    if is_offline():
        raise DataError(f"{url}: is not in {target.parent.parent}, and MVITV2_OFFLINE forbids the network")
    digest, size = hashlib.sha256(), 0
    with written_whole(target) as temporary:
        try:
            with _open(url) as stream, temporary.open("wb") as file:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    size += file.write(chunk)
        except OSError as error:
            raise DataError(
                f"{url}: the shard cannot be fetched ({error}); check the address and the network"
            ) from error
        if expected is not None and (size, digest.hexdigest()) != (expected.bytes, expected.sha256):
            raise DataError(
                f"{url}: gave {size} bytes with sha256 {digest.hexdigest()[:12]}..., its index.json says "
                f"{expected.bytes} and {expected.sha256[:12]}...; it changed or was cut off"
            )
        if not size:
            raise DataError(f"{url}: gave nothing; check the address")


@contextlib.contextmanager
def _open(url: str) -> Iterator[Any]:
    """A URL opened by webdataset, or by fsspec where only that knows its scheme (s3, gs with gcsfs, abfs, ...).

    A failure shows at the end of a stream of webdataset, so the stream is closed here.

    Raises:
        OSError: The command behind it failed.
        DataError: Its scheme is unknown, or the library for it is missing.
    """
    scheme = url.partition(":")[0].lower()
    stream = _by_fsspec(url) if scheme in _only_fsspec() else _by_webdataset(url, scheme)
    try:
        yield stream
    finally:
        stream.close()


def _only_fsspec() -> set[str]:
    """Schemes of fsspec that webdataset does not have; none where fsspec is not there."""
    try:
        known: set[str] = set(required("fsspec", extra="remote").available_protocols())
    except MissingExtra:
        return set()
    return known - _WEBDATASET


def _by_fsspec(url: str) -> Any:
    library = required("fsspec", extra="remote")
    try:
        return library.open(url, "rb").open()
    except (ImportError, ValueError) as error:
        raise DataError(f"{url}: fsspec cannot open it: {error}") from error


def _by_webdataset(url: str, scheme: str) -> Any:
    library = required("webdataset.gopen", extra="train")
    if scheme != "file" and scheme not in library.gopen_schemes:
        known = ", ".join(sorted({*library.gopen_schemes, *_only_fsspec(), "file"} - {"__default__"}))
        raise DataError(
            f"{url}: webdataset and fsspec open {known}; for another store use pipe:, as in 'pipe:aws s3 cp URL -'"
        )
    return library.gopen(url, "rb")


def _make_room(cache: ShardCache, newest: Path) -> None:
    """Remove the shards unused for longest while there is more than may be; one being read stays readable."""
    kept = []
    for path in cache.folder.glob("*/*.tar"):
        with contextlib.suppress(FileNotFoundError):  # another process makes room as well
            status = path.stat()
            kept.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        if total <= (cache.max_bytes or 0):
            break
        if path != newest:
            path.unlink(missing_ok=True)
            total -= size
