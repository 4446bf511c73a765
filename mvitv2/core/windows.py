"""Attention inside windows of the pooled grids (hybrid window attention, paper Sec. 4.3).

A grid that is no multiple of the window is padded with zero tokens *after* pooling. Whether those are attended to is a
convention: the released detectors were trained with them (detectron2 ``backbone/utils.py:16-37``), so that is the
default.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .grid import Grid
from .relpos import traced

Mix = Callable[[Tensor, Tensor, Tensor, Grid, Grid], Tensor]

MASKED = -1e4
"""Logit of a key nobody may see; finite, so that folded backends can multiply it by zero."""


def windowed(mix: Mix, q_window: Grid, k_window: Grid) -> Mix:
    """The same mixing of queries, keys and values, each window for itself.

    Args:
        mix: ``(q, k, v, q_grid, k_grid) -> (B, h, N', d)`` over whole grids.
        q_window: Sides of a window on the grid of pooled queries.
        k_window: Sides of the same window on the grid of pooled keys.
    """

    def mix_windows(q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, k_grid: Grid) -> Tensor:
        (q, counts), (k, _), (v, _) = split(q, q_grid, q_window), split(k, k_grid, k_window), split(v, k_grid, k_window)
        return merge(mix(q, k, v, q_window, k_window), q_grid, q_window, counts)

    return mix_windows


def split(x: Tensor, grid: Grid, window: Grid) -> tuple[Tensor, Grid]:
    """``(B, h, N, d) -> (B * windows, h, prod(window), d)`` and the number of windows along each axis."""
    rank = len(grid)
    counts = num_windows(grid, window)
    x = x.unflatten(2, grid)
    for axis in reversed(range(rank)):
        x = cut(x, 2 + axis, counts[axis], window[axis])
    outer, inner = range(2, 2 + 2 * rank, 2), range(3, 3 + 2 * rank, 2)
    return x.permute(0, *outer, 1, *inner, 2 + 2 * rank).flatten(0, rank).flatten(2, -2), counts


def num_windows(grid: Grid, window: Grid) -> Grid:
    """Windows along each axis; the last one may reach beyond the grid."""
    return tuple((n + w - 1) // w for n, w in zip(grid, window, strict=True))


def cut(x: Tensor, dim: int, count: int, window: int) -> Tensor:
    """``(..., n, ...) -> (..., count, window, ...)`` along an axis, filled up with zeros.

    A symbolic size is gathered, not viewed: torch.export cannot prove that ``count * window`` divides by ``count``.
    """
    size, behind = x.shape[dim], x.ndim - dim - 1
    if isinstance(size, int):
        missing = count * window - size
        x = F.pad(x, [0, 0] * behind + [0, missing]) if missing else x
        return x.unflatten(dim, (count, window))
    place = places(count, window, device=x.device)
    inside = (place < size).to(x.dtype)[(..., *[None] * behind)]
    return x[(*[slice(None)] * dim, place.clamp(max=size - 1))] * inside


def places(count: int, window: int, *, device: torch.device) -> Tensor:
    """Positions on the axis that windows cover, ``(count, window)``."""
    return torch.arange(count, device=device)[:, None] * window + torch.arange(window, device=device)


def cropped(x: Tensor, dim: int, size: int) -> Tensor:
    """The first ``size`` entries along an axis; symbolic sizes export without a guard on strides."""
    if isinstance(size, int):
        return x.narrow(dim, 0, size)
    return x.index_select(dim, torch.arange(size, device=x.device))


def merge(x: Tensor, grid: Grid, window: Grid, counts: Grid) -> Tensor:
    """Undo :func:`split`: ``(B * windows, h, prod(window), d) -> (B, h, N, d)``; padding is cut away."""
    rank = len(grid)
    x = x.unflatten(2, window).unflatten(0, (-1, *counts))
    pairs = [dim for axis in range(rank) for dim in (1 + axis, 2 + rank + axis)]
    x = x.permute(0, 1 + rank, *pairs, 2 + 2 * rank)
    for axis in range(rank):
        x = cropped(x.flatten(2 + axis, 3 + axis), 2 + axis, grid[axis])
    return x.flatten(2, -2)


def padding_terms(grid: Grid, window: Grid, *, like: Tensor) -> list[Tensor]:
    """Per axis a term ``(windows, 1, 1, window[axis])`` that is 0 for keys of the grid and ``MASKED`` for padding.

    A key is padding if it lies outside along any axis, so a sum over axes says it; no dense mask is needed.

    Args:
        grid: Sizes of the key grid before padding.
        window: Sides of a window on it.
        like: Tensor whose device and dtype the terms take.
    """
    terms = hidden_places if traced(like) else remembered_hidden_places
    return [term.to(like.dtype) * MASKED for term in terms(grid, window, like.device)]


def hidden_places(grid: Grid, window: Grid, device: torch.device) -> tuple[Tensor, ...]:
    """Per axis ``(windows, 1, 1, window[axis])``: whether a place of a window lies beyond the grid along that axis."""
    counts = num_windows(grid, window)
    hidden: list[Tensor] = []
    for axis, (n, w, count) in enumerate(zip(grid, window, counts, strict=True)):
        outside = places(count, w, device=device) >= n
        shape = [1] * len(grid)
        shape[axis] = count
        hidden.append(outside.reshape(*shape, w).expand(*counts, w).reshape(-1, 1, 1, w))
    return tuple(hidden)


@lru_cache(maxsize=256)
def remembered_hidden_places(grid: Grid, window: Grid, device: torch.device) -> tuple[Tensor, ...]:
    """:func:`hidden_places`, computed once per grid and device; usable in training even if inference asked first."""
    with torch.inference_mode(False):
        return hidden_places(grid, window, device)
