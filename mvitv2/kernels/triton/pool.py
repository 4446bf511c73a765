"""Pooling and LayerNorm as one operator of PyTorch: ``mvitv2_triton::pool_norm`` and its backward.

Cases to measure: S at 224, (B, L, 3, h, 96): 56x56 with 1 head and strides 1 and 4, 56x56 with 2 heads, strides 2
and 4, 28x28 with 2 heads, strides 1 and 2, 14x14 with 4 heads and stride 1, 7x7 with 8; detection at 1024: 256x256 with
1 head and strides 1 and 4, 64x64 with 4 heads; video S 16x224: 8x56x56 with 1 head, 3x3x3 taps, strides 1 and 1x8x8;
bf16, fp16 and fp32, forward and backward. None is measured yet.
"""

# ruff: noqa: PLR0917  (arguments of operators are positional)

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mvitv2.core.grid import Grid, half, num_prefix, pooled

from . import pool_launch as launch
from .autocast import autocast
from .device import check_runs_on

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LARGEST_HEAD = 256


class Pool(NamedTuple):
    """A depthwise convolution and the LayerNorm after it.

    Attributes:
        weight: ``(d, 1, *kernel)``.
        gamma: ``(d,)``.
        beta: ``(d,)``.
        stride: Step, one number per axis.
        padding: Zeros on each side; half the kernel if not given.
    """

    weight: Tensor
    gamma: Tensor
    beta: Tensor
    stride: Grid
    padding: Grid | None = None

    @property
    def zeros(self) -> Grid:
        """Padding, given or not."""
        return half(tuple(self.weight.shape[2:])) if self.padding is None else self.padding


def pool_norm(x: Tensor, grid: Grid, pool: Pool, *, eps: float) -> tuple[Tensor, Grid]:
    """:func:`mvitv2.core.grid.attention_pool` by a depthwise convolution and a LayerNorm, in one pass.

    Args:
        x: ``(B, h, L, d)``, float32, float16 or bfloat16, any strides; read where it lies if channels are dense.
        grid: How the ``N`` grid tokens are laid out. A class token before them is normed, but not pooled.
        pool: Parameters, in any of the three types; they keep theirs under autocast, x takes autocast's.
        eps: Of the norm.

    Returns:
        ``(B, h, L', d)`` and ``grid'``.

    Raises:
        ValueError: Types, shapes or devices that are not the above, or an empty batch.
    """
    if x.ndim != 4:
        raise ValueError(f"x is {tuple(x.shape)}; expected (B, h, L, d)")
    return pool_norm_each(x.transpose(1, 2)[:, :, None], grid, [pool], eps=eps)[0]


def pool_norm_each(qkv: Tensor, grid: Grid, pools: Sequence[Pool], *, eps: float) -> list[tuple[Tensor, Grid]]:
    """Queries, keys and values pooled and normed straight from what their linear layer gave; one gradient for it.

    Args:
        qkv: ``(B, L, parts, h, d)``, as ``qkv(x).unflatten(2, (3, h, d))``; types as in :func:`pool_norm`.
        grid: How the ``N`` grid tokens are laid out, before pooling.
        pools: One for every part.
        eps: Of the norms.

    Returns:
        ``(B, h, L', d)`` and ``grid'`` for every part.

    Raises:
        ValueError: As :func:`pool_norm`.
    """
    (qkv,) = autocast(qkv)
    check_tokens(qkv, pools)
    num_prefix(qkv[:, :, 0, 0], grid)
    for pool in pools:
        check_pool(pool, qkv, grid)
    weights, gammas, betas = ([pool[i] for pool in pools] for i in range(3))
    strides = [n for pool in pools for n in pool.stride]
    paddings = [n for pool in pools for n in pool.zeros]
    outs = pool_norm_op(qkv, weights, gammas, betas, list(grid), strides, paddings, eps)
    grids = [pooled(grid, tuple(pool.weight.shape[2:]), pool.stride, pool.zeros) for pool in pools]
    return list(zip(outs, grids, strict=True))


def check_tokens(qkv: Tensor, pools: Sequence[Pool]) -> None:
    """Refuse tokens that the kernels do not take.

    Raises:
        ValueError: With what came and what is expected.
    """
    if qkv.ndim != 5 or qkv.shape[2] != len(pools):
        raise ValueError(f"tokens are {tuple(qkv.shape)} for {len(pools)} pools; expected (B, L, {len(pools)}, h, d)")
    if qkv.numel() == 0:
        raise ValueError(f"tokens are {tuple(qkv.shape)}, which is empty; pooling needs at least one of everything")
    if qkv.dtype not in DTYPES:
        raise ValueError(
            f"tokens are {qkv.dtype}; the triton kernels take float32, float16 or bfloat16; use the readable "
            "mvitv2.core.grid.attention_pool for others"
        )
    if qkv.shape[4] > LARGEST_HEAD:
        raise ValueError(f"heads have {qkv.shape[4]} channels; the triton kernels take at most {LARGEST_HEAD}")


def check_pool(pool: Pool, qkv: Tensor, grid: Grid) -> None:
    """Refuse a pooling that is not depthwise, or does not fit tokens and grid.

    Raises:
        ValueError: With what came and what is expected.
    """
    d, rank = qkv.shape[4], len(grid)
    weight = tuple(pool.weight.shape)
    if rank not in {2, 3} or len(weight) != 2 + rank or weight[:2] != (d, 1):
        raise ValueError(
            f"a weight {weight} pools heads of {d} channels on grid {grid}; expected a depthwise ({d}, 1, *kernel) "
            "with as many axes as the grid, two or three"
        )
    if tuple(pool.gamma.shape) != (d,) or tuple(pool.beta.shape) != (d,):
        raise ValueError(f"gamma {tuple(pool.gamma.shape)} and beta {tuple(pool.beta.shape)}: expected ({d},) twice")
    if len(pool.stride) != rank or len(pool.zeros) != rank or min(pool.stride) < 1 or min(pool.zeros) < 0:
        raise ValueError(
            f"stride={pool.stride} and padding={pool.zeros} need {rank} numbers each, one per axis of {grid}"
        )
    if min(pooled(grid, weight[2:], pool.stride, pool.zeros)) < 1:
        raise ValueError(f"a kernel of {weight[2:]} with padding {pool.zeros} does not fit on the grid {grid}")
    if any(x.dtype not in DTYPES for x in pool[:3]) or pool.gamma.dtype != pool.beta.dtype:
        raise ValueError(
            f"weight, gamma, beta are {[x.dtype for x in pool[:3]]}; expected float32, float16 or bfloat16, and one "
            "type for gamma and beta"
        )


def shapes(num_tokens: int, weights: list[Tensor], grid: list[int], strides: list[int], paddings: list[int]) -> Any:
    """The sizes of every part's pooling."""
    rank = len(grid)
    return [
        launch.shape_of(num_tokens, grid, w, strides[i * rank : (i + 1) * rank], paddings[i * rank : (i + 1) * rank])
        for i, w in enumerate(weights)
    ]


@torch.library.custom_op("mvitv2_triton::pool_norm", mutates_args=())
def pool_norm_op(
    qkv: Tensor,
    weights: list[Tensor],
    gammas: list[Tensor],
    betas: list[Tensor],
    grid: list[int],
    strides: list[int],
    paddings: list[int],
    eps: float,
) -> list[Tensor]:
    """``(B, h, L', d)`` for every part of ``(B, L, parts, h, d)``; strides and paddings one part after another."""
    check_runs_on(qkv)
    parts = zip(
        qkv.unbind(2), weights, gammas, betas, shapes(qkv.shape[1], weights, grid, strides, paddings), strict=True
    )
    return [launch.forward(x, weight, gamma, beta, shape, eps) for x, weight, gamma, beta, shape in parts]


@pool_norm_op.register_fake
def _(
    qkv: Tensor,
    weights: list[Tensor],
    gammas: list[Tensor],
    betas: list[Tensor],
    grid: list[int],
    strides: list[int],
    paddings: list[int],
    eps: float,
) -> list[Tensor]:
    b, length, _, h, d = qkv.shape
    return [qkv.new_empty(b, h, s.num_out, d) for s in shapes(length, weights, grid, strides, paddings)]


@torch.library.custom_op("mvitv2_triton::pool_norm_backward", mutates_args=())
def pool_norm_backward_op(
    d_outs: list[Tensor],
    qkv: Tensor,
    weights: list[Tensor],
    gammas: list[Tensor],
    grid: list[int],
    strides: list[int],
    paddings: list[int],
    eps: float,
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    """Gradients of the tokens, contiguous, and of all weights, gammas and betas."""
    check_runs_on(qkv)
    d_qkv = qkv.new_empty(qkv.shape)
    sizes = shapes(qkv.shape[1], weights, grid, strides, paddings)
    parameters = zip(weights, gammas, strict=True)
    parts = zip(d_outs, d_qkv.unbind(2), qkv.unbind(2), parameters, sizes, strict=True)
    d_parameters = [launch.backward(*part, eps) for part in parts]
    d_weights, d_gammas, d_betas = (list(d) for d in zip(*d_parameters, strict=True))
    return d_qkv, d_weights, d_gammas, d_betas


@pool_norm_backward_op.register_fake
def _(
    d_outs: list[Tensor],
    qkv: Tensor,
    weights: list[Tensor],
    gammas: list[Tensor],
    grid: list[int],
    strides: list[int],
    paddings: list[int],
    eps: float,
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    d_weights = [weight.new_empty(weight.shape) for weight in weights]
    d_gammas, d_betas = ([gamma.new_empty(gamma.shape) for gamma in gammas] for _ in range(2))
    return qkv.new_empty(qkv.shape), d_weights, d_gammas, d_betas


def save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    """Keep what the backward pass needs."""
    qkv, weights, gammas, _, *ctx.sizes = inputs
    ctx.parts = len(weights)
    ctx.save_for_backward(qkv, *weights, *gammas)


def differentiate(ctx: Any, d_outs: list[Tensor]) -> tuple[Tensor | list[Tensor] | None, ...]:
    """The backward pass of the operator."""
    qkv, *parameters = ctx.saved_tensors
    weights, gammas = parameters[: ctx.parts], parameters[ctx.parts :]
    return (*pool_norm_backward_op(list(d_outs), qkv, weights, gammas, *ctx.sizes), None, None, None, None)


pool_norm_op.register_autograd(differentiate, setup_context=save)
