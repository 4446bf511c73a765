"""Weights files in and out: any container a peer uses becomes names and tensors, and back.

Reading trusts nothing: the container is told by content, nothing in the file is run, sizes are checked before memory
is taken. Writing is atomic: the file is there whole, or the old one stays.
"""

import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from torch import Tensor

from mvitv2.weights import own, writers
from mvitv2.weights.containers import ZIP_ERRORS, Contents, is_tensor, open_pickle, open_zip
from mvitv2.weights.records import Refused
from mvitv2.weights.unpickle import NotPlain, plain

MAX_BYTES = 16 << 30
"""The largest published file, a detector with MViTv2-H, is below 3 GB."""
WRAPPERS = (
    "model_state",
    "state_dict",
    "model",
    "model_state_dict",
    "net",
    "module",
    "state_dict_ema",
    "model_ema",
    "ema",
)
"""Keys a state dict lies under, in the order in which they are looked for."""
PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""
CONTAINERS = ("torch zip", "raw pickle", "safetensors", "npz")
"""Containers that can be written; ``torch legacy`` can be read as well."""
SIGNS = (
    (b"\x1f\x8b", "it is compressed with gzip; unpack it first"),
    (b"BZh", "it is compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ", "it is compressed with xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd; unpack it first"),
    (b"7z\xbc\xaf", "it is a 7z archive; unpack it first"),
    (b"\x89HDF", "it is an HDF5 file, which no peer of MViT writes"),
    (b"\x93NUMPY", "it is a single numpy array; save a dict of arrays with numpy.savez"),
    (b"version https://git-lfs", "it is a git-lfs pointer, not the file; run `git lfs pull` or download it"),
)


class WeightsFileError(ValueError):
    """A weights file cannot be read; the message names the file, the reason and what to do."""


@dataclass(frozen=True)
class StoredTensors:
    """What a weights file holds."""

    tensors: dict[str, Tensor]
    """Flat names as in the file, without a prefix that all of them share (``prefix``)."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Everything else that is plain data: epoch, cfg, arch, args, meta. Our own format: ``metadata["mvitv2"]``."""
    container: str = ""
    """``torch zip``, ``torch legacy``, ``raw pickle``, ``safetensors`` or ``npz``."""
    wrapper: str = ""
    """Key the state dict lay under; empty where the file is the state dict."""
    prefix: str = ""
    """What was taken off every name: ``module.``, ``_orig_mod.``, or both."""
    left_out: tuple[str, ...] = ()
    """Keys that hold neither the chosen tensors nor plain data: optimizer state, other sets of weights."""


def read(
    path: str | os.PathLike[str], *, wrapper: str | None = None, max_bytes: int = MAX_BYTES, inert: Collection[str] = ()
) -> StoredTensors:
    """The tensors and plain data of a weights file, whatever its container.

    Args:
        path: ``.pyth .pth .pt .pth.tar .pkl .safetensors .npz``; the ending is not looked at.
        wrapper: Key of the state dict, where the file has several (``"state_dict_ema"``); ``None``: see ``WRAPPERS``.
        max_bytes: Largest file, and largest unfolded size, that is read.
        inert: Further classes (``"package.module.Class"``) whose objects are kept as plain dicts instead of refused.

    Raises:
        FileNotFoundError: There is no such file.
        WeightsFileError: The file is damaged, dangerous, too large, holds no tensors, or our hash does not match.
    """
    path = Path(path)
    try:
        with _opened(path, max_bytes) as (file, size):
            contents = _contents(file, size, max_bytes, inert)
            stored = _stored(contents, wrapper)
        if own.KEY in contents.metadata:
            named = {stored.prefix + name: value for name, value in stored.tensors.items()}
            own.verify(named, contents.metadata[own.KEY])
    except (Refused, *ZIP_ERRORS) as error:
        raise WeightsFileError(f"{path} is not read: {error}") from error
    return stored


@contextmanager
def _opened(path: Path, max_bytes: int) -> Iterator[tuple[BinaryIO, int]]:
    """The file and its size, if it is a regular file of a size that can hold weights."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise Refused("it is a folder; name the file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise Refused("it is no regular file; save its content to one first")
    if status.st_size == 0:
        raise Refused("it is empty; download or save it again")
    if status.st_size > max_bytes:
        raise Refused(
            f"it has {status.st_size} bytes, more than max_bytes={max_bytes}; raise the limit if you trust it"
        )
    with path.open("rb") as file:
        yield file, status.st_size


def _contents(file: BinaryIO, size: int, max_bytes: int, inert: Collection[str]) -> Contents:
    """Open the container that the first bytes announce."""
    head = file.read(512)
    file.seek(0)
    for sign, reason in SIGNS:
        if head.startswith(sign):
            raise Refused(reason)
    if head[257:262] == b"ustar":
        raise Refused("it is a tar archive (torch before 0.1.10 wrote such); unpack it, or save it anew with torch")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return open_zip(file, size, inert, max_bytes=max_bytes)
    if head[4:9] == b"\0\0\0\0{":  # a header below 4 GiB; a pickle may start with the same two bytes, never with these
        return own.open_safetensors(file, size)
    if head.startswith((b"\x80", b"(", b"}", b"]", b"c")):
        return open_pickle(file, size, inert)
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        raise Refused("it is a web page; the link has moved or needs a login, download it again")
    raise Refused(f"it begins with {head[:12]!r}, which no container of weights does; download it again")


def _stored(contents: Contents, wrapper: str | None) -> StoredTensors:
    """Split the tree of the file into the chosen tensors, plain data and the rest."""
    tree = contents.value
    if not isinstance(tree, dict):
        raise Refused(f"it holds a {type(tree).__name__}, expected a dict of tensors; save model.state_dict()")
    chosen = _wrapper(tree) if wrapper is None else wrapper
    state = tree if chosen == "" else tree.get(chosen)
    if not _is_state(state):
        raise Refused(f"it holds no tensors{f' under {chosen!r}' if chosen else ''}; its keys are {_listed(tree)}")
    beside = {key: value for key, value in tree.items() if key != chosen} if chosen else {}
    beside |= {key: value for key, value in state.items() if not is_tensor(value)}
    metadata, left_out = dict(contents.metadata), []
    for key, value in beside.items():
        try:
            metadata[key] = plain(value)
        except NotPlain:
            left_out.append(str(key))
    tensors = {name: contents.fetch(ref) for name, ref in state.items() if is_tensor(ref)}
    prefix = _shared_prefix(tensors)
    bare = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return StoredTensors(bare, metadata, contents.container, chosen, prefix, tuple(left_out))


def _is_state(value: Any) -> TypeGuard[dict[str, Any]]:
    """A dict with text keys and at least one tensor."""
    return (
        isinstance(value, dict) and all(isinstance(key, str) for key in value) and any(map(is_tensor, value.values()))
    )


def _wrapper(tree: dict[Any, Any]) -> str:
    """The key of the state dict: a usual one, none, or the only one there is."""
    candidates = [key for key, value in tree.items() if isinstance(key, str) and _is_state(value)]
    for key in WRAPPERS:
        if key in candidates:
            return key
    if _is_state(tree) or not candidates:
        return ""
    if len(candidates) > 1:
        raise Refused(f"it holds several sets of tensors, {_listed(candidates)}; name one with wrapper=...")
    return candidates[0]


def _listed(keys: Collection[Any]) -> str:
    """The first keys, for a message."""
    return str([str(key)[:60] for key in list(keys)[:12]])


def _shared_prefix(names: Collection[str]) -> str:
    """``module.`` and ``_orig_mod.`` as far as every name starts with them."""
    found = ""
    while longer := [found + prefix for prefix in PREFIXES if all(name.startswith(found + prefix) for name in names)]:
        found = longer[0]
    return found


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path in the same folder, which takes the place of ``path`` at the end: whole, or not at all.

    A failure inside the block removes it and leaves the old file. A symbolic link stays, its target is replaced.
    """
    target = Path(path).resolve()
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    done = False
    try:
        yield temporary
        if target.exists():
            shutil.copymode(target, temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)  # noqa: PTH105  Path.replace is the same call, less well known to be atomic
        done = True
    finally:
        if not done:
            temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where folders can be opened (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    *,
    container: str,
    wrapper: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a weights file in a peer's container, atomically.

    Args:
        path: Where to; an existing file is replaced.
        tensors: Dense tensors by name, on any device.
        container: One of ``CONTAINERS``.
        wrapper: Key to put them under; ``None``: bare (torch zip), ``"model"`` (raw pickle).
        extra: Plain data beside the wrapper (torch zip, raw pickle), or text for the header (safetensors).

    Raises:
        ValueError: The container cannot hold this, or a tensor is not dense.
        TypeError: ``tensors`` holds something else than tensors by name.
    """
    if container not in CONTAINERS:
        raise ValueError(f"container {container!r} is not written; choose one of {list(CONTAINERS)}")
    dense = writers.dense(tensors)
    writers.check_extra(container, wrapper, extra)
    with replacing(path) as temporary:
        writers.WRITERS[container](temporary, dense, wrapper, dict(extra or {}))


def write_own(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], *, config: Mapping[str, Any], card: Mapping[str, Any]
) -> None:
    """Write our own format: safetensors with configuration, card and a hash of all of it, atomically.

    Raises:
        ValueError: ``config`` or ``card`` is no plain JSON, or a tensor is not dense.
    """
    dense = writers.dense(tensors)
    write(path, dense, container="safetensors", extra=own.header(dense, config, card))
