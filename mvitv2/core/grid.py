"""Token grids: the sizes of a token sequence when it is laid out in space, or in time and space.

A grid is a tuple of sizes, slowest axis first: ``(H, W)`` for an image, ``(T, H, W)`` for a clip. The package is
written once for a grid of any rank; image and video are two values of ``len(grid)``, not two code paths.

Letters for shapes, everywhere in the package: ``B`` batch, ``h`` heads, ``P`` prefix tokens (the class token, 0 or 1),
``N`` grid tokens, ``L = P + N``, ``C`` channels, ``d`` channels per head. A prime (``N'``) means "after pooling".
"""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

Grid = tuple[int, ...]
Tokens = tuple[Tensor, Grid]
Layer = Callable[[Tensor], Tensor]


def half(kernel: Grid) -> Grid:
    """Padding that centres an odd kernel."""
    return tuple(k // 2 for k in kernel)


def one_wider(stride: Grid) -> Grid:
    """Kernel whose windows overlap by one: ``stride + 1``, and 1 along axes that are not strided."""
    return tuple(s + 1 if s > 1 else 1 for s in stride)


def pooled(grid: Grid, kernel: Grid | None, stride: Grid, padding: Grid | None = None) -> Grid:
    """Grid left by a strided layer: what convolutions and pools do, not ``size // stride``.

    Args:
        grid: Sizes before.
        kernel: Window of the layer; ``None`` for no layer at all.
        stride: Step of the layer, one number per axis.
        padding: Zeros on each side; half the kernel if not given.
    """
    if kernel is None:
        return grid
    padding = half(kernel) if padding is None else padding
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(grid, kernel, stride, padding, strict=True))


def num_prefix(x: Tensor, grid: Grid) -> int:
    """How many of the ``L`` tokens of ``x`` (``(..., L, C)``) stand before the grid: 1 with a class token, else 0.

    Raises:
        ValueError: ``x`` does not hold ``prod(grid)`` tokens, with or without a class token.
    """
    extra = x.shape[-2] - prod(grid)
    if extra == 0:
        return 0
    if extra == 1:
        return 1
    raise ValueError(
        f"{x.shape[-2]} tokens cannot be a grid of {grid} = {prod(grid)} tokens plus at most one class token"
    )


def over_grid(x: Tensor, grid: Grid, layer: Layer) -> tuple[Tensor, Grid]:
    """Run a channels-first spatial layer on the grid tokens; a class token goes around it.

    Args:
        x: ``(B, L, C)``.
        grid: How the ``N`` grid tokens are laid out.
        layer: ``(B, C, *grid) -> (B, C', *grid')``.

    Returns:
        ``(B, L', C')`` and ``grid'``.
    """
    p = num_prefix(x, grid)
    # the grid before the channels move: of a single picture, PyTorch sees in these strides alone where channels lie
    lattice = layer(x[:, p:].unflatten(1, grid).movedim(-1, 1))
    tokens = lattice.flatten(2).transpose(1, 2)
    return torch.cat((x[:, :p], tokens), dim=1) if p else tokens, tuple(lattice.shape[2:])


def attention_pool(x: Tensor, pool: Layer | None, grid: Grid, norm: Layer | None = None) -> tuple[Tensor, Grid]:
    """Pool queries, keys or values on the grid (paper Sec. 3; facebookresearch/mvit ``attention.py``, same name).

    Heads ride in the batch, so that they share one kernel. The class token is not pooled, but it is normed.

    Args:
        x: ``(B, h, L, d)``.
        pool: ``(B * h, d, *grid) -> (B * h, d, *grid')``; ``None`` leaves ``x`` as it is, norm and all.
        grid: How the ``N`` grid tokens are laid out.
        norm: Layer over the channels of every pooled token.

    Returns:
        ``(B, h, L', d)`` and ``grid'``.
    """
    if pool is None:
        return x, grid
    tokens, new_grid = over_grid(x.flatten(0, 1), grid, pool)
    tokens = tokens.unflatten(0, x.shape[:2])
    return tokens if norm is None else norm(tokens), new_grid
