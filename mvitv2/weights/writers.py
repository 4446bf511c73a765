"""Each container written the way its peer reads it; ``files.write`` makes it atomic."""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from mvitv2.weights.containers import CHUNK
from mvitv2.weights.own import SAFETENSORS_TYPES

Writer = Callable[[Path, dict[str, Tensor], str | None, dict[str, Any]], None]


def dense(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached, contiguous, on the CPU; a view of a larger storage is copied out of it, aliases stay aliases.

    Raises:
        TypeError: Something is no tensor, or its name no text; all are listed.
        ValueError: There are none, or some are sparse, quantised or without data; all are listed.
    """
    if not isinstance(tensors, Mapping):
        raise TypeError(f"tensors must be a mapping of names to tensors, got {type(tensors).__name__}")
    wrong = [name for name, value in tensors.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if wrong:
        raise TypeError(f"{wrong[:12]} are not tensors under text names; weights files hold nothing else")
    odd = [n for n, t in tensors.items() if t.layout != torch.strided or t.is_quantized or t.is_meta]
    if odd or not tensors:
        raise ValueError(f"{odd[:12]} are sparse, quantised or on the meta device" if odd else "there are no tensors")
    return {name: _compact(value.detach().cpu().contiguous()) for name, value in tensors.items()}


def _compact(value: Tensor) -> Tensor:
    """``value`` in a storage of its own size: torch saves whole storages."""
    return value if value.untyped_storage().nbytes() == value.numel() * value.itemsize else value.clone()


def check_extra(container: str, wrapper: str | None, extra: Mapping[str, Any] | None) -> None:
    """Refuse what the container has no place for, before anything is written."""
    extra = extra or {}
    if container in ("safetensors", "npz") and wrapper is not None:
        raise ValueError(f"{container} holds tensors only, wrapper={wrapper!r} has no place in it")
    if container == "npz" and extra:
        raise ValueError(f"npz holds arrays only, extra={sorted(extra)} has no place in it")
    if container == "safetensors" and not all(isinstance(text, str) for pair in extra.items() for text in pair):
        raise ValueError("a safetensors header holds text only; encode extra as JSON text")
    if container == "torch zip" and extra and not wrapper:
        raise ValueError(f"extra={sorted(extra)} needs a wrapper to stand beside, such as wrapper='state_dict'")
    if extra.keys() & {wrapper or "model"}:
        raise ValueError(f"extra holds {wrapper or 'model'!r}, which is the key of the tensors")
    unfit = [key for key, value in extra.items() if not _is_plain(value)]
    if unfit:
        raise ValueError(f"extra holds {unfit}, which are not plain data (text, numbers, lists, dicts of these)")


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Text, bytes, numbers, None, and lists, tuples, dicts of them, nested 32 deep at most."""
    if value is None or type(value) in (bool, int, float, str, bytes):
        return True
    if depth > 32:
        return False
    if type(value) is dict:
        return all(_is_plain(part, depth + 1) for pair in value.items() for part in pair)
    return type(value) in (list, tuple) and all(_is_plain(part, depth + 1) for part in value)


def _torch_zip(path: Path, tensors: dict[str, Tensor], wrapper: str | None, extra: dict[str, Any]) -> None:
    """``torch.save``; through an open file, so that the name inside does not depend on the path."""
    with path.open("wb") as file:
        torch.save({**extra, wrapper: tensors} if wrapper else tensors, file)


def _raw_pickle(path: Path, tensors: dict[str, Tensor], wrapper: str | None, extra: dict[str, Any]) -> None:
    """detectron2's zoo format: ``{"model": {name: ndarray}, "__author__": ...}``, pickle protocol 3.

    The instructions are written one by one: ``pickle.dump`` under numpy 2 names ``numpy._core``, which numpy 1 lacks.
    Protocol 3 is the zoo's; 2 would write every byte as escaped text.
    """
    arrays = {name: _array(name, value, "a raw pickle") for name, value in tensors.items()}
    with path.open("wb") as file:
        file.write(b"\x80\x03}(")
        for key, value in {"__author__": "mvitv2", **extra}.items():
            file.write(_pickled(key) + _pickled(value))
        file.write(_pickled(wrapper or "model") + b"}(")
        for name, array in arrays.items():
            file.write(_pickled(name))
            _write_array(file, array)
        file.write(b"uu.")


def _pickled(value: Any) -> bytes:
    """Instructions that leave ``value`` on the stack. Its memo starts anew each time, nothing later refers to it."""
    return pickle.dumps(value, protocol=3)[2:-1]


def _write_array(file: BinaryIO, array: np.ndarray[Any, Any]) -> None:
    """``numpy.core.multiarray._reconstruct(ndarray, (0,), b"b")``, then its state."""
    file.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n")
    file.write(_pickled((0,)) + _pickled(b"b") + b"\x87R(")
    file.write(_pickled(1) + _pickled(array.shape) + _pickled(array.dtype) + b"\x89")
    file.write(b"B" + struct.pack("<I", array.nbytes) if array.nbytes < 1 << 32 else _too_large(array))
    flat = array.reshape(-1).view(np.uint8).data
    for start in range(0, array.nbytes, CHUNK):
        file.write(flat[start : start + CHUNK])
    file.write(b"tb")


def _too_large(array: np.ndarray[Any, Any]) -> bytes:
    raise ValueError(f"a tensor of {array.nbytes} bytes does not fit into protocol 3 of pickle (4 GiB); use torch zip")


def _array(name: str, value: Tensor, where: str) -> np.ndarray[Any, Any]:
    """The tensor as a numpy array of the same type."""
    try:
        return value.numpy()
    except TypeError as error:
        raise ValueError(f"{name} is {value.dtype}, which {where} cannot hold; convert it to float32 first") from error


def _safetensors(path: Path, tensors: dict[str, Tensor], _wrapper: str | None, extra: dict[str, Any]) -> None:
    """Header, then the tensors back to back, wide types first so that each is aligned; aliases are written twice.

    Written here because the library orders the header by chance: equal content must give equal files.
    """
    kinds = {dtype: kind for kind, dtype in SAFETENSORS_TYPES.items()}
    unknown = sorted({str(value.dtype) for value in tensors.values()} - set(map(str, kinds)))
    if unknown:
        raise ValueError(f"safetensors has no place for {unknown}; convert to one of {sorted(map(str, kinds))}")
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **extra}}
    end = 0
    for name, value in ordered:
        begin, end = end, end + value.nbytes
        header[name] = {"dtype": kinds[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, value in ordered:
            file.write(value.reshape(-1).view(torch.uint8).numpy().data)


def _npz(path: Path, tensors: dict[str, Tensor], _wrapper: str | None, _extra: dict[str, Any]) -> None:
    """``numpy.savez``, uncompressed; names may hold what Python keywords may not."""
    arrays = {name: _array(name, value, "npz") for name, value in tensors.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: equal tensors give equal files
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


WRITERS: Mapping[str, Writer] = MappingProxyType(
    {"torch zip": _torch_zip, "raw pickle": _raw_pickle, "safetensors": _safetensors, "npz": _npz}
)
"""By the names of ``files.CONTAINERS``."""
