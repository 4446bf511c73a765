"""Anchors: the boxes from which proposals start, a few at every position of every level.

They are centred on the *corner* of a position, not on its middle (detectron2 ``anchor_generator.py``, offset 0), and
cover the padded image; proposals are clipped to the image later.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from mvitv2.core.grid import Grid


def cell_anchors(size: float, ratios: Sequence[float]) -> list[list[float]]:
    """The anchors around (0, 0): area ``size ** 2`` each, height over width as in ``ratios``."""
    widths = [math.sqrt(size**2 / ratio) for ratio in ratios]
    sides = [(width, ratio * width) for width, ratio in zip(widths, ratios, strict=True)]
    return [[-w / 2, -h / 2, w / 2, h / 2] for w, h in sides]


@lru_cache(maxsize=64)
def level_anchors(
    grid: Grid, stride: int, size: float, ratios: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """All anchors of a level, ``(H * W * A, 4)``, rows first and the anchors of a position together.

    Made once per grid and device; usable in training even if inference asked first.

    Args:
        grid: Positions of the level.
        stride: Pixels per position.
        size: Square root of an anchor's area, in pixels.
        ratios: Height over width.
        dtype: float32, or float64 of the same numbers rounded to float32.
        device: Where they are used.
    """
    with torch.inference_mode(False):
        cells = torch.tensor(cell_anchors(size, ratios), dtype=torch.float32, device=device).to(dtype)
        rows, columns = (torch.arange(n, dtype=dtype, device=device) * stride for n in grid)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        corners = torch.stack((x, y, x, y), dim=2).flatten(0, 1)
        return (corners[:, None] + cells).flatten(0, 1)
