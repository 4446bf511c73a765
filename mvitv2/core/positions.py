"""Absolute positions: one table for all tokens, or one for space and one for time, resampled to the grid at hand."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .grid import Grid

SMOOTH = {1: "linear", 2: "bicubic", 3: "trilinear"}
"""How a table of that rank is resampled: bicubic in detectron2, trilinear in mmaction2, linear in time in SlowFast."""


def resample_grid(table: Tensor, made_for: Grid, grid: Grid) -> Tensor:
    """``(1, prod(made_for), C) -> (1, prod(grid), C)``, smoothly (``align_corners=False``)."""
    if all(isinstance(n, int) for n in grid) and made_for == grid:
        return table
    lattice = table.transpose(1, 2).unflatten(2, made_for)
    resampled = F.interpolate(lattice, size=grid, mode=SMOOTH[len(grid)])
    # contiguous, or torch.export compares strides that depend on the number of frames
    return resampled.flatten(2).transpose(1, 2).contiguous()


def joint_positions(table: Tensor, made_for: Grid, grid: Grid, prefix: int) -> Tensor:
    """Positions ``(1, P + N, C)`` from one table whose first ``prefix`` rows belong to the class token."""
    resampled = resample_grid(table[:, prefix:], made_for, grid)
    return torch.cat((table[:, :prefix], resampled), dim=1) if prefix else resampled


def separable_positions(spatial: Tensor, temporal: Tensor, made_for: Grid, grid: Grid) -> Tensor:
    """Positions ``(1, N, C)`` of a clip: ``pos[t, y, x] = temporal[t] + spatial[y, x]`` (MViT, arXiv 2104.11227)."""
    spatial = resample_grid(spatial, made_for[1:], grid[1:])
    temporal = resample_grid(temporal, made_for[:1], grid[:1])
    return (temporal[:, :, None] + spatial[:, None]).flatten(1, 2)


def sincos_positions(dim: int, grid: Grid) -> Tensor:
    """Fixed sine and cosine positions of a clip, ``(prod(grid), dim)`` (SlowFast ``get_3d_sincos_pos_embed``).

    A quarter of the channels encodes time, the rest width and then height, each as sines followed by cosines.

    Raises:
        ValueError: ``dim`` is no multiple of 8 that also gives width and height whole pairs, or the grid has no time.
    """
    if len(grid) != 3 or dim % 16:
        raise ValueError(
            f"sincos positions need a (T, H, W) grid and channels in multiples of 16, got {grid} and {dim}"
        )
    time, height, width = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    share = dim // 4 * 3 // 2
    parts = [_waves(time, dim // 4), _waves(width, share), _waves(height, share)]
    return torch.cat(parts, dim=-1).flatten(0, 2)


def _waves(position: Tensor, dim: int) -> Tensor:
    frequency = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
    angle = position[..., None] * frequency
    return torch.cat((angle.sin(), angle.cos()), dim=-1)
