"""Pooling attention up to its last projection in one call, where no gradient is asked for.

What Python does between the operators takes as long as they do for a single picture; of many pictures, projections are
read while they are in the caches.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mvitv2.core.attention import MultiScaleAttention
from mvitv2.core.grid import Grid, num_prefix, pooled

from . import cpp
from .auto import auto
from .cpp.remembered import RememberingAttention, RememberingConv2d, RememberingConv3d
from .packed import PackedLinear

AXES = 3
PARTS = 3
"""Queries, keys and values."""
DEPTHWISE = (RememberingConv2d, RememberingConv3d)


@dataclass(frozen=True)
class Call:
    """What the operator is given beside the projected tokens, for one grid; see ``operators.cpp``."""

    heads: int
    pools: list[Tensor]
    rows: list[Tensor]
    grid: Grid
    sizes: list[int]
    eps: list[float]
    pooled: Grid
    """How queries lie after it."""


def at_once(attn: MultiScaleAttention, x: Tensor, grid: Grid) -> tuple[Tensor, Grid] | None:
    """:func:`mvitv2.core.attention.pooling_attention`; ``None`` where it takes more than one call. Shapes as there."""
    qkv = getattr(attn, "qkv", None)
    if type(attn) is not RememberingAttention or not isinstance(qkv, PackedLinear) or not qkv.suits(x):
        return None
    wanted = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in attn.parameters())
    if wanted or not cpp.has_tiles():
        return None
    key = ("call", grid)
    if key not in attn.made:
        attn.made[key] = call(attn, grid)
    given: Call | None = attn.made[key]
    if given is None:
        return None
    first = {"none": -1, "grid": num_prefix(x, grid), "all": 0}[attn.residual]
    norm = (*qkv.vectors(qkv.before[0]), qkv.before[0].eps) if qkv.before else (None, None, 0.0)
    lists = (given.pools, given.rows, given.grid, given.sizes, given.eps)
    y = torch.ops.mvitv2_cpu.attention_at_once(x, *qkv.tiles(), *norm, given.heads, *lists, first)
    return y, given.pooled


def call(attn: RememberingAttention, grid: Grid) -> Call | None:
    """The call for a grid, if attention is global, all poolings are kernels with a norm, and all axes have tables."""
    kernels = [pool for pool in (attn.pool_q, attn.pool_k, attn.pool_v) if isinstance(pool, DEPTHWISE)]
    pools = [pool for pool in kernels if pool.groups == pool.in_channels]
    norms = [norm for norm in (attn.norm_q, attn.norm_k, attn.norm_v) if isinstance(norm, nn.LayerNorm)]
    every_axis = attn.position_scale == 1.0 and all(axis in attn.tabled for axis in attn.axes)
    plain = attn.spec.windows is None and attn.attend is auto
    if not (plain and len(pools) == len(norms) == PARTS and (every_axis or not attn.tabled)):
        return None
    q_grid, k_grid = (pooled(grid, p.kernel_size, p.stride, tuple(int(n) for n in p.padding)) for p in pools[:2])
    ones, zeros = (1,) * (AXES - len(grid)), (0,) * (AXES - len(grid))
    return Call(
        heads=attn.spec.num_heads,
        pools=[vector for pool, norm in zip(pools, norms, strict=True) for vector in pool.vectors(norm)],
        rows=[attn.rows(axis, q_grid, k_grid).contiguous() for axis in attn.axes] if attn.tabled else [],
        grid=ones + grid,
        sizes=[int(n) for p in pools[:2] for n in (*ones, *p.kernel_size, *ones, *p.stride, *zeros, *p.padding)],
        eps=[norm.eps for norm in norms],
        pooled=q_grid,
    )
