"""Launching the pooling kernels: sizes with three axes, strides and room for the results."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from mvitv2.core.grid import pooled

from .device import launching, rows_dense
from .tiling import PROGRAMS, padded

TOKENS = 16
TAPS_AT_ONCE = 32


@dataclass(frozen=True)
class Shape:
    """Sizes of one pooling, with three axes each: time, height, width.

    Attributes:
        grid: Of the tokens that come.
        kernel: Taps.
        stride: Step.
        padding: Zeros on each side.
        prefix: Tokens before the grid.
    """

    grid: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    prefix: int

    @property
    def new_grid(self) -> tuple[int, ...]:
        """The grid of pooled tokens."""
        return pooled(self.grid, self.kernel, self.stride, self.padding)

    @property
    def num_in(self) -> int:
        """Tokens that come."""
        return self.prefix + prod(self.grid)

    @property
    def num_out(self) -> int:
        """Tokens that leave."""
        return self.prefix + prod(self.new_grid)

    def arguments(self) -> dict[str, Any]:
        """What all kernels of pooling take."""
        return {
            "num_in": self.num_in,
            "num_out": self.num_out,
            "sizes": self.grid,
            "new_sizes": self.new_grid,
            "stride": self.stride,
            "padding": self.padding,
            "KERNEL": self.kernel,
            "PREFIX": self.prefix,
        }


def shape_of(
    num_tokens: int, grid: Sequence[int], weight: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> Shape:
    """The sizes of a pooling; an image gets a time axis of one frame."""
    missing = 3 - len(grid)
    ones = (1,) * missing
    return Shape(
        grid=(*ones, *grid),
        kernel=(*ones, *weight.shape[2:]),
        stride=(*ones, *stride),
        padding=((0,) * missing + tuple(padding)),
        prefix=num_tokens - prod(grid),
    )


def channels(dim: int) -> dict[str, Any]:
    """Channels of a head, and the tile that holds them."""
    return {"D": dim, "PAD": padded(dim), "num_warps": 4}


def steps(x: Tensor) -> tuple[int, ...]:
    """Strides of batch, token and head of ``(B, L, h, d)``."""
    return x.stride()[:3]


def forward(x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, shape: Shape, eps: float) -> Tensor:
    """``(B, L, h, d)``, with any strides but the last, to pooled and normed ``(B, h, L', d)``."""
    from .pool_forward import pool_norm_forward

    x = rows_dense(x)
    b, _, h, d = x.shape
    out = x.new_empty(b, h, shape.num_out, d)
    with launching(x):
        pool_norm_forward[(-(-shape.num_out // TOKENS) * b * h,)](
            x, weight.contiguous(), gamma.contiguous(), beta.contiguous(), out, steps(x), heads=h, eps=eps,
            BLOCK=TOKENS, **shape.arguments(), **channels(d),
        )  # fmt: skip
    return out


def backward(
    d_out: Tensor, d_x: Tensor, x: Tensor, parameters: tuple[Tensor, Tensor], shape: Shape, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the weight, gamma and beta; those of the input are written to ``d_x``, ``(B, L, h, d)``.

    Args:
        d_out: ``(B, h, L', d)``.
        d_x: Where the gradients of ``x`` go.
        x: ``(B, L, h, d)``.
        parameters: Weight and gamma.
        shape: Sizes.
        eps: Of the norm.
    """
    from .pool_backward import pool_norm_backward_input

    x, d_out = rows_dense(x), rows_dense(d_out)
    weight, gamma = (parameter.contiguous() for parameter in parameters)
    b, length, h, d = x.shape
    d_pooled, sums = backward_norm(d_out, x, (weight, gamma), shape, eps)
    with launching(x):
        pool_norm_backward_input[(-(-length // TOKENS) * b * h,)](
            weight, d_pooled, d_x, steps(d_x), heads=h, BLOCK=TOKENS, **shape.arguments(), **channels(d)
        )
    d_weight = torch.empty_like(weight)
    d_weight.view(d, -1).copy_(sums[:-2].T)
    d_gamma, d_beta = (row.to(gamma.dtype, copy=True) for row in sums[-2:])  # results of an operator may not overlap
    return d_weight, d_gamma, d_beta


def backward_norm(
    d_out: Tensor, x: Tensor, parameters: tuple[Tensor, Tensor], shape: Shape, eps: float
) -> tuple[Tensor, Tensor]:
    """Gradients of pooled tokens before the norm, and those of the parameters, ``(taps + 2, d)`` in float32."""
    from .pool_backward import pool_norm_backward

    b, _, h, d = x.shape
    taps = prod(shape.kernel)
    group = min(padded(taps, least=1), TAPS_AT_ONCE)
    num_tiles = -(-shape.num_out // TOKENS) * b * h
    programs = min(num_tiles, PROGRAMS)
    d_pooled = x.new_empty(b * h, shape.num_out, d)
    partial = x.new_empty(programs, taps + 2, d, dtype=torch.float32)
    with launching(x):
        pool_norm_backward[(programs, -(-taps // group))](
            x, *parameters, d_out, d_pooled, partial, steps(x), d_out.stride()[:3],
            heads=h, num_tiles=num_tiles, eps=eps, GROUP=group, BLOCK=TOKENS, **shape.arguments(), **channels(d),
        )  # fmt: skip
    return d_pooled, partial.sum(0)
