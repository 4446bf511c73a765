"""Pooling attention by the C++ operators: pooling with its norm in one pass, attention and what is added in another."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mvitv2.core.attention import MultiScaleAttention, add_pooled_queries, pooling_attention
from mvitv2.core.grid import Grid, Layer, num_prefix, pooled
from mvitv2.core.layers import pool_then_norm

from .operators import has_tiles, load
from .remembered import RememberingPool, pool_vectors

AXES = 3
DTYPES = (torch.float32, torch.bfloat16)


def fused(attn: MultiScaleAttention, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """:func:`mvitv2.core.attention.pooling_attention` on a CPU in float32 or bfloat16; shapes as there.

    Where another function than :func:`attend` stands at ``attn.attend``, that one is asked, in the readable whole.

    Raises:
        BuildError: The operators cannot be had.
        RuntimeError: Tensors are not on the CPU, or of another dtype.
    """
    return (whole if attn.attend is attend else pooling_attention)(attn, x, grid)


def whole(attn: MultiScaleAttention, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """:func:`fused` without a look at ``attn.attend``, which is asked for windows alone."""
    (q, q_grid), (k, k_grid), (v, _) = attn.queries_keys_values(x, grid)
    if attn.spec.windows is not None:
        y = add_pooled_queries(attn.mix_grids(q, k, v, q_grid, k_grid), q, q_grid, attn.residual)
        return y.transpose(1, 2).flatten(2), q_grid
    first = {"none": -1, "grid": num_prefix(q, q_grid), "all": 0}[attn.residual]
    y = mixed(q, k, v, position_terms(attn, q, q_grid, k_grid), first)
    return y.flatten(2), q_grid


def position_terms(attn: MultiScaleAttention, q: Tensor, q_grid: Grid, k_grid: Grid) -> list[Tensor]:
    """``attn.position_terms``; by the matrix units where there are such, and no gradients are asked for."""
    every_axis = all(axis in attn.tabled for axis in attn.axes)
    recorded = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
    if recorded or not every_axis or attn.position_scale != 1.0 or not has_tiles():
        return attn.position_terms(q, q_grid, k_grid)
    rows = [attn.rows(axis, q_grid, k_grid) for axis in attn.axes]
    grid = (1,) * (AXES - len(q_grid)) + tuple(q_grid)
    return torch.ops.mvitv2_cpu.tile_terms(q[:, :, num_prefix(q, q_grid) :], rows, grid)


def attend(q: Tensor, k: Tensor, v: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """:func:`mvitv2.core.attend.reference` on a CPU in float32 or bfloat16; shapes and errors as for :func:`fused`."""
    return mixed(q, k, v, terms, -1).transpose(1, 2)


def mixed(q: Tensor, k: Tensor, v: Tensor, terms: Sequence[Tensor], residual_from: int) -> Tensor:
    """Attention in the layout of tokens, ``(B, L', h, d)``; from a query on, queries are added to it (-1: nowhere)."""
    load()
    if q.shape[0] == 0:
        raise ValueError("attention of an empty batch; the C++ operators need at least one sample")
    # an image is a clip of one frame
    missing = [q.new_zeros(*q.shape[:2], terms[0].shape[2], 1)] * (AXES - len(terms)) if terms else []
    like_queries = [term.to(q.dtype) for term in (*missing, *terms)]
    return torch.ops.mvitv2_cpu.attend(q, k.to(q.dtype), v.to(q.dtype), like_queries, residual_from)[0]


def pool_tokens(x: Tensor, grid: Grid, pool: Layer | None, norm: Layer | None) -> tuple[Tensor, Grid]:
    """:func:`mvitv2.core.layers.pool_then_norm`; shapes as there.

    Depthwise convolutions with layer norm run in C++; dense ones, average and max pooling are PyTorch's.
    """
    if not isinstance(pool, (nn.Conv2d, nn.Conv3d)) or not isinstance(norm, nn.LayerNorm):
        return pool_then_norm(x, grid, pool, norm)
    if pool.groups != pool.in_channels:
        return pool_then_norm(x, grid, pool, norm)
    load()
    if x.shape[0] == 0:
        raise ValueError("pooling of an empty batch; the C++ operators need at least one sample")
    num_prefix(x, grid)
    kernel, stride, padding = pool.kernel_size, pool.stride, tuple(int(n) for n in pool.padding)
    ones, zeros = (1,) * (AXES - len(grid)), (0,) * (AXES - len(grid))
    vectors = pool.vectors(norm) if isinstance(pool, RememberingPool) else pool_vectors(pool, norm)
    sizes = (ones + grid, ones + kernel, ones + stride, zeros + padding)
    y = torch.ops.mvitv2_cpu.pool_norm(x.transpose(1, 2), *vectors, *sizes, norm.eps)
    return y.transpose(1, 2), pooled(grid, kernel, stride, padding)
