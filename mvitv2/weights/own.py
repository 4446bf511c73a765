"""Our own format: safetensors whose header carries the configuration, the card and a hash of all of it.

The header's ``mvitv2`` entry is JSON: ``{"format": 1, "config": {...}, "card": {...}, "sha256": "..."}``. Any reader of
safetensors can load the tensors; ours refuses a file whose hash does not match. Plain safetensors have no such entry.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from mvitv2.weights.containers import Contents, filled
from mvitv2.weights.records import Refused, Slice

KEY = "mvitv2"
FORMAT = 1
MAX_HEADER = 32 << 20
SAFETENSORS_TYPES = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U64": torch.uint64,
        "U32": torch.uint32,
        "U16": torch.uint16,
        "U8": torch.uint8,
        "BOOL": torch.bool,
        "C64": torch.complex64,
    }
)


def open_safetensors(file: BinaryIO, size: int) -> Contents:
    """A safetensors file: eight bytes of header length, a JSON header, the tensors back to back.

    Raises:
        Refused: The header does not describe exactly the bytes that follow it.
    """
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, MAX_HEADER):
        raise Refused(f"its safetensors header announces {length} bytes, the file has {size - 8} more (truncated)")
    try:
        header = json.loads(file.read(length), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Refused(f"its safetensors header is no JSON: {str(error)[:120]}") from error
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise Refused("its safetensors header is no JSON object with text metadata")
    data = 8 + length
    slices = {name: _slice(name, entry, data) for name, entry in header.items()}
    end = data
    for name, found in sorted(slices.items(), key=lambda item: (item[1].start, math.prod(item[1].shape))):
        if found.start != end:
            raise Refused(f"tensor {name!r} starts at byte {found.start}, expected {end} (overlap or hole)")
        end += math.prod(found.shape) * found.dtype.itemsize
    if end != size:
        raise Refused(f"its safetensors header describes {end} bytes, the file has {size} (truncated or damaged)")

    def fetch(found: Slice) -> Tensor:
        file.seek(found.start)
        return filled(file, math.prod(found.shape) * found.dtype.itemsize).view(found.dtype).view(found.shape)

    return Contents("safetensors", slices, fetch, {**metadata, **_own_entry(metadata)})


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are all different."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _slice(name: str, entry: Any, data: int) -> Slice:
    """One entry of the header, checked against itself."""
    match entry:
        case {"dtype": str() as kind, "shape": list() as shape, "data_offsets": [int() as begin, int() as end]}:
            dtype = SAFETENSORS_TYPES.get(kind)
            if dtype is None:
                raise Refused(f"tensor {name!r} is of type {kind!r}; known are {sorted(SAFETENSORS_TYPES)}")
            if all(type(n) is int and n >= 0 for n in shape) and end - begin == math.prod(shape) * dtype.itemsize:
                return Slice(dtype, tuple(shape), data + begin)
    raise Refused(f"its safetensors header describes tensor {name!r} with sizes that contradict each other")


def _own_entry(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Our entry of the header, decoded; nothing for plain safetensors."""
    if KEY not in metadata:
        return {}
    try:
        entry = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise Refused(f"its {KEY} header is no JSON: {error}") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("format"), int):
        raise Refused(f"its {KEY} header has no format number")
    if entry["format"] > FORMAT:
        raise Refused(f"it has format {entry['format']} of a newer mvitv2, this one reads {FORMAT}; upgrade mvitv2")
    if not all(isinstance(entry.get(key), kind) for key, kind in (("config", dict), ("card", dict), ("sha256", str))):
        raise Refused(f"its {KEY} header lacks config, card or sha256; it was not written by mvitv2")
    return {KEY: entry}


def header(tensors: Mapping[str, Tensor], config: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, str]:
    """The text metadata of our own format.

    Raises:
        ValueError: ``config`` or ``card`` holds what JSON cannot hold.
    """
    try:
        plain = {
            key: json.loads(json.dumps(value, allow_nan=False)) for key, value in (("config", config), ("card", card))
        }
    except (TypeError, ValueError) as error:
        raise ValueError(f"config and card must be plain JSON values: {error}") from error
    entry = {"format": FORMAT, **plain, "sha256": content_hash(tensors, **plain)}
    return {"format": "pt", KEY: json.dumps(entry)}


def verify(tensors: Mapping[str, Tensor], entry: Mapping[str, Any]) -> None:
    """Refuse tensors, configuration or card that are not those the file was written with."""
    found = content_hash(tensors, config=entry["config"], card=entry["card"])
    if found != entry["sha256"]:
        raise Refused(
            f"its content has sha256 {found[:16]}..., it was written with {entry['sha256'][:16]}...: "
            "it was damaged or edited; fetch it again, or convert it anew from its source"
        )


def content_hash(tensors: Mapping[str, Tensor], *, config: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    """sha256 over configuration and card as canonical JSON, then name, type, shape and bytes of each tensor by name."""
    digest = hashlib.sha256(json.dumps({"config": config, "card": card}, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{json.dumps(name)} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
