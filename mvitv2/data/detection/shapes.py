"""The mask of one object as annotation files write it: polygons or run lengths, checked, as corners and as pixels.

========================  ==========================================================================================
polygons                  ``[[x0, y0, x1, y1, ...], ...]``: the object is the union of its parts
run lengths               ``{"size": [H, W], "counts": [n0, n1, ...]}``: pixels down the columns, outside first
compressed run lengths    the same with ``counts`` as text, COCO's base 32 of differences (cocoapi ``maskApi.c``)
========================  ==========================================================================================
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvitv2.data.instances import Instances
from mvitv2.extras import required

Segmentation = Any
"""As it stands in a JSON file; whatever that is."""

_LEAST = 6
"""Numbers of a polygon: three corners."""


class ShapeError(ValueError):
    """A segmentation that means nothing; the message says why."""


def polygons(segmentation: Segmentation) -> list[Tensor] | None:
    """The parts of an object, each ``(K, 2)`` float64; ``None`` for run lengths.

    Parts of fewer than three corners have no area and are left out.

    Raises:
        ShapeError: Numbers are missing or are none, or no part is left.
    """
    if isinstance(segmentation, dict):
        return None
    if not isinstance(segmentation, list) or not segmentation:
        raise ShapeError(f"is {_short(segmentation)}; expected polygons [[x, y, x, y, ...], ...] or run lengths")
    parts = []
    for part in segmentation:
        if not isinstance(part, list) or not all(_is_number(value) for value in part):
            raise ShapeError(f"has a part {_short(part)}; expected a list of numbers x, y, x, y, ...")
        if len(part) % 2:
            raise ShapeError(f"has a part of {len(part)} numbers; expected an even count, x and y of each corner")
        if len(part) >= _LEAST:
            parts.append(torch.tensor(part, dtype=torch.float64).view(-1, 2))
    if not parts:
        raise ShapeError(f"has {len(segmentation)} parts, none with three corners")
    return parts


def run_lengths(segmentation: dict[str, Any]) -> tuple[list[int], tuple[int, int]]:
    """Lengths of the runs down the columns, outside first, and ``(H, W)``.

    Raises:
        ShapeError: The size is missing, or the runs do not fill it.
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise ShapeError(f"has run lengths of size {_short(size)}; expected [height, width]")
    if isinstance(counts, str):
        runs = _decompressed(counts)
    elif isinstance(counts, list) and all(type(count) is int for count in counts):
        runs = counts
    else:
        raise ShapeError(f"has run lengths {_short(counts)}; expected a list of whole numbers, or COCO's text")
    height, width = size
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ShapeError(f"has run lengths of {sum(runs)} pixels in all for {height} x {width} = {height * width}")
    return runs, (height, width)


def _decompressed(text: str) -> list[int]:
    """COCO's text: 5 bits a letter, low ones first; from the fourth run on, the change since two before."""
    runs: list[int] = []
    value, shift = 0, 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64:
            raise ShapeError(f"has the letter {letter!r} in its run lengths, which COCO's text does not use")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ShapeError("has run lengths that are cut off")
    return runs


def pixels(segmentation: Segmentation, size: tuple[int, int]) -> np.ndarray:
    """``(H, W)`` bool: where an object is, by COCO's own rasterising.

    Raises:
        ShapeError: It means nothing, or is of another size.
        mvitv2.extras.MissingExtra: Polygons need the extra ``detect``.
    """
    parts = polygons(segmentation)
    if parts is not None:
        return filled(parts, size)
    runs, own = run_lengths(segmentation)
    if own != tuple(size):
        raise ShapeError(f"has run lengths of {own[0]} x {own[1]} pixels in a picture of {size[0]} x {size[1]}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(own[1], own[0]).T


def filled(parts: Sequence[Tensor], size: tuple[int, int]) -> np.ndarray:
    """``(H, W)`` bool: the union of polygons ``(K, 2)``, rasterised as COCO does; parts outside are cut off."""
    api = required("faster_coco_eval.core.mask", extra="detect")
    height, width = size
    flat = [part.double().flatten().tolist() for part in parts]
    return api.decode(api.merge(api.frPyObjects(flat, height, width))).astype(bool)


def bitmaps(objects: Instances, size: tuple[int, int]) -> Tensor | None:
    """``(N, H, W)`` bool of the masks of some objects; ``None`` where they have none."""
    if objects.masks is None or isinstance(objects.masks, Tensor):
        return objects.masks
    drawn = [torch.from_numpy(filled(parts, size)) for parts in objects.masks]
    return torch.stack(drawn) if drawn else torch.zeros(0, *size, dtype=torch.bool)


def compressed(mask: np.ndarray) -> dict[str, Any]:
    """A mask ``(H, W)`` as COCO's compressed run lengths, as they stand in JSON files."""
    api = required("faster_coco_eval.core.mask", extra="detect")
    encoded = api.encode(np.asfortranarray(mask, dtype=np.uint8))
    counts = encoded["counts"]
    return {"size": list(mask.shape), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
