"""The containers weights come in, each opened without trust: what is inside, and how to fetch a tensor of it.

Sizes that a header announces are compared with the bytes that are there before memory is taken. A container is told by
its first bytes, never by the file's ending.
"""

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from mvitv2.weights import unpickle
from mvitv2.weights.records import ArrayRef, Refused, Slice, StorageRef, StorageType, TensorRef

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OverflowError)
"""What ``zipfile`` raises for damaged archives."""
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First value of a torch file from before the zip format (``torch/serialization.py``)."""
MAX_DEFLATE_RATIO = 1032
"""Deflate cannot shrink further; a member that claims more is a bomb."""
CHUNK = 16 << 20

Fetch = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Contents:
    """What an open container holds; ``fetch`` works while its file is open."""

    container: str
    value: Any
    """The tree of the file: plain data, with :class:`TensorRef` and :class:`ArrayRef` where tensors are."""
    fetch: Fetch
    metadata: dict[str, Any] = field(default_factory=dict)
    """What a safetensors header says beside the tensors."""


def is_tensor(value: Any) -> bool:
    """Whether ``fetch`` gives a tensor for it."""
    return isinstance(value, TensorRef | Slice) or (isinstance(value, ArrayRef) and value.is_numeric)


def filled(source: Any, nbytes: int) -> Tensor:
    """``(nbytes,)`` bytes read from ``source`` at its position."""
    buffer = torch.empty(nbytes, dtype=torch.uint8)
    view = buffer.numpy().data
    for start in range(0, nbytes, CHUNK):
        try:
            part = source.read(min(CHUNK, nbytes - start))
        except EOFError:  # zipfile, where the archive ends inside a member
            part = b""
        if len(part) != min(CHUNK, nbytes - start):
            raise Refused(f"{nbytes} bytes of a tensor are announced, {start + len(part)} are there (truncated)")
        view[start : start + len(part)] = part
    return buffer


def fetched(storage: Callable[[StorageRef], Tensor], budget: int) -> Fetch:
    """Turns references into tensors; what is shared in the file stays shared.

    Args:
        storage: Gives the bytes of a torch storage.
        budget: Bytes that all numpy arrays together may have: those of the file.
    """
    storages: dict[str, torch.UntypedStorage] = {}
    arrays: dict[int, Tensor] = {}

    def fetch(ref: TensorRef | ArrayRef) -> Tensor:
        nonlocal budget
        if isinstance(ref, TensorRef):
            if ref.storage.key not in storages:
                storages[ref.storage.key] = storage(ref.storage).untyped_storage()
            empty = torch.empty(0, dtype=ref.dtype)
            return empty.set_(storages[ref.storage.key], ref.offset, ref.size, ref.stride)  # type: ignore[call-overload]
        if id(ref) not in arrays:
            budget -= len(ref.data)
            if budget < 0:
                raise Refused("its arrays share their bytes and would unfold to more than the file holds")
            arrays[id(ref)] = from_array(ref)
        return arrays[id(ref)]

    return fetch


def from_array(ref: ArrayRef) -> Tensor:
    """The array as a tensor of the same type, in this machine's byte order."""
    if ref.dtype is None:
        raise Refused("a numpy array has no content (damaged)")
    flat = np.frombuffer(ref.data, ref.dtype).reshape(ref.shape, order="F" if ref.fortran else "C")
    native = np.array(flat, dtype=ref.dtype.newbyteorder("="), order="C")
    try:
        return torch.from_numpy(native)
    except TypeError as error:
        raise Refused(f"torch has no numbers of numpy's type {ref.dtype}") from error


def storage_ref(identifier: Any) -> StorageRef:
    """The storage that a persistent id of torch's containers names: ``("storage", type, key, device, numel, view)``."""
    match identifier:
        case ("storage", StorageType(dtype=dtype), str() | int() as key, _device, int() as numel, *views) if (
            numel >= 0 and views in ([], [None])
        ):
            return StorageRef(str(key), dtype, numel)
    raise Refused("its pickle refers to something else than a torch storage")


def open_pickle(file: BinaryIO, size: int, inert: Collection[str]) -> Contents:
    """A raw pickle (detectron2's ``.pkl``), or a torch file from before the zip format."""
    value, _ = unpickle.load(file, size, inert=inert)
    if isinstance(value, int) and value == LEGACY_MAGIC:
        return _open_legacy(file, size, inert)
    if file.tell() != size:
        raise Refused(f"{size - file.tell()} bytes follow the end of its pickle")
    return Contents("raw pickle", value, fetched(_no_storage, size))


def _no_storage(ref: StorageRef) -> Tensor:
    raise Refused(f"storage {ref.key!r} lies outside the file")


def _open_legacy(file: BinaryIO, size: int, inert: Collection[str]) -> Contents:
    """Magic number (read already), protocol, system, the tree, the storages' keys, then the storages one by one."""
    protocol, _ = unpickle.load(file, size)
    system, _ = unpickle.load(file, size)
    if protocol != 1001 or not isinstance(system, dict) or not system.get("little_endian", True):
        raise Refused("its old torch format is not version 1001 in little-endian byte order; save it anew with torch")
    announced: dict[str, StorageRef] = {}

    def persistent(identifier: Any) -> StorageRef:
        ref = storage_ref(identifier)
        return announced.setdefault(ref.key, ref)

    value, _ = unpickle.load(file, size, persistent=persistent, inert=inert)
    keys, _ = unpickle.load(file, size)
    starts: dict[str, int] = {}
    for key in map(str, keys if isinstance(keys, list) else ()):
        numel = int.from_bytes(file.read(8), "little")
        starts[key] = file.tell()
        if key not in announced or numel != announced[key].numel or starts[key] + announced[key].nbytes > size:
            raise Refused(f"storage {key!r} does not have the size its tensors need (truncated or damaged)")
        file.seek(announced[key].nbytes, io.SEEK_CUR)

    def storage(ref: StorageRef) -> Tensor:
        if ref.key not in starts:
            raise Refused(f"storage {ref.key!r} is missing (truncated)")
        file.seek(starts[ref.key])
        return filled(file, ref.nbytes)

    return Contents("torch legacy", value, fetched(storage, size))


def open_zip(file: BinaryIO, size: int, inert: Collection[str], *, max_bytes: int) -> Contents:
    """A torch file, or numpy's ``.npz``.

    Raises:
        Refused: It is another zip, is damaged, or unfolds to more than ``max_bytes``.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (*ZIP_ERRORS, ValueError, OSError) as error:
        raise Refused(f"its zip directory cannot be read ({error}): truncated or damaged, fetch it again") from error
    members = {info.filename: info for info in archive.infolist()}
    if len(members) != len(archive.infolist()) or sum(info.compress_size for info in members.values()) > size:
        raise Refused("members of its zip archive overlap")
    if not all(0 <= info.header_offset < size for info in members.values()):
        raise Refused("members of its zip archive lie outside the file (truncated or damaged)")
    if any(info.flag_bits & 1 for info in members.values()):
        raise Refused("its zip archive is encrypted")
    if any(name.endswith("/data.pkl") for name in members):
        return _open_torch(archive, members, size, inert)
    if members and all(name.endswith(".npy") for name in members):
        return _open_npz(archive, members, max_bytes)
    raise Refused(f"its zip archive is neither torch's nor numpy's; it holds {sorted(members)[:4]}. Unpack it first")


@contextmanager
def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[Any]:
    """One member of the archive, open; its checksum is compared when its last byte is read."""
    try:
        member = archive.open(info)
    except (*ZIP_ERRORS, UnicodeError) as error:
        raise Refused(f"{info.filename} in its zip archive cannot be read: {error} (damaged)") from error
    with member:
        yield member


def _open_torch(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], size: int, inert: Any) -> Contents:
    """``NAME/data.pkl`` and one stored member per storage, ``NAME/data/KEY``."""
    root = next(name for name in members if name.endswith("/data.pkl")).removesuffix("data.pkl")
    if any(info.file_size != info.compress_size for info in members.values()):
        raise Refused("its zip archive is compressed, torch's is not; unpack and save it anew with torch")
    if f"{root}constants.pkl" in members:
        raise Refused("it is a TorchScript program; load it with torch.jit and save its state_dict()")
    if f"{root}byteorder" in members:
        with _member(archive, members[f"{root}byteorder"]) as member:
            if member.read() != b"little":
                raise Refused("it was written in big-endian byte order; save it anew on a little-endian machine")
    with _member(archive, members[f"{root}data.pkl"]) as member:
        pickled = member.read()
    value, _ = unpickle.load(io.BytesIO(pickled), len(pickled), persistent=storage_ref, inert=inert)

    def storage(ref: StorageRef) -> Tensor:
        info = members.get(f"{root}data/{ref.key}")
        if info is None or info.file_size != ref.nbytes:
            held = "no" if info is None else info.file_size
            raise Refused(f"storage {ref.key!r} is announced with {ref.nbytes} bytes, its archive holds {held}")
        with _member(archive, info) as member:
            return filled(member, ref.nbytes)

    return Contents("torch zip", value, fetched(storage, size))


def _open_npz(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], max_bytes: int) -> Contents:
    """Arrays by name; their headers are read now, their numbers when fetched."""
    methods = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
    for info in members.values():
        if info.compress_type not in methods or info.file_size > MAX_DEFLATE_RATIO * info.compress_size:
            raise Refused(f"{info.filename} announces {info.file_size} bytes from {info.compress_size}")
    unfolded = sum(info.file_size for info in members.values())
    if unfolded > max_bytes:
        raise Refused(f"it unfolds to {unfolded} bytes, more than max_bytes={max_bytes}")

    def fetch(ref: ArrayRef) -> Tensor:
        return from_array(ref)

    return Contents("npz", {name.removesuffix(".npy"): _npy(archive, info) for name, info in members.items()}, fetch)


def _npy(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArrayRef:
    """One array: what its header says must be exactly what follows it."""
    formats = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with _member(archive, info) as member:
        try:
            version = np.lib.format.read_magic(member)
            if version not in formats:
                raise Refused(f"{info.filename} is of npy version {version}; 1.0 and 2.0 hold numbers")
            shape, fortran, dtype = formats[version](member)
        except ValueError as error:
            raise Refused(f"{info.filename} has no readable npy header: {str(error)[:120]}") from error
        if dtype.kind not in "biufcSU":
            raise Refused(f"{info.filename} holds {dtype}, which is neither numbers nor text")
        expected = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or expected != info.file_size - member.tell():
            raise Refused(f"{info.filename} announces {expected} bytes, has {info.file_size - member.tell()}")
        return ArrayRef(dtype, shape, fortran, member.read(expected))
