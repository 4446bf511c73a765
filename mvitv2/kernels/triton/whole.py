"""Pooling attention by Triton's kernels: one pools and norms queries, keys and values, another does what follows."""

from collections.abc import Sequence

from torch import Tensor, nn

from mvitv2.core.attention import MultiScaleAttention, add_pooled_queries, pooling_attention
from mvitv2.core.grid import Grid, Layer, num_prefix
from mvitv2.core.layers import pool_then_norm

from .attend import attend
from .pool import Pool, pool_norm, pool_norm_each


def fused(attn: MultiScaleAttention, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """:func:`mvitv2.core.attention.pooling_attention` on a CUDA device; shapes as there, types as in :func:`attend`.

    Where another function than :func:`attend` stands at ``attn.attend``, that one is asked, in the readable whole.

    Raises:
        ValueError: Types, sizes or devices that the kernels do not take.
    """
    return (whole if attn.attend is attend else pooling_attention)(attn, x, grid)


def whole(attn: MultiScaleAttention, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """:func:`fused` without a look at ``attn.attend``, which is asked for windows alone."""
    (q, q_grid), (k, k_grid), (v, _) = queries_keys_values(attn, x, grid)
    if attn.spec.windows is not None:  # residual pooling is over the whole grid, attention is not
        y = add_pooled_queries(attn.mix_grids(q, k, v, q_grid, k_grid), q, q_grid, attn.residual)
        return y.transpose(1, 2).flatten(2), q_grid
    terms = attn.position_terms(q, q_grid, k_grid)
    return attend(q, k, v, terms, residual=attn.residual, prefix=num_prefix(q, q_grid), tokens=True), q_grid


def queries_keys_values(attn: MultiScaleAttention, x: Tensor, grid: Grid) -> Sequence[tuple[Tensor, Grid]]:
    """``attn.queries_keys_values``, straight from what one linear layer gave where there is one for all three."""
    layers, norm = ((attn.pool_q, attn.norm_q), (attn.pool_k, attn.norm_k), (attn.pool_v, attn.norm_v)), attn.norm_q
    pools = [pool for layer in layers if (pool := pool_of(*layer)) is not None]
    together = type(attn).project is MultiScaleAttention.project and len(pools) == len(layers)
    if not together or not isinstance(norm, nn.LayerNorm):
        return attn.queries_keys_values(x, grid)
    qkv = attn.qkv(x).unflatten(2, (len(layers), attn.spec.num_heads, -1))
    return pool_norm_each(qkv, grid, pools, eps=norm.eps)


def pool_tokens(x: Tensor, grid: Grid, pool: Layer | None, norm: Layer | None) -> tuple[Tensor, Grid]:
    """:func:`mvitv2.core.layers.pool_then_norm`; shapes as there.

    Depthwise convolutions with layer norm run in the kernel; dense ones, average and max pooling are PyTorch's.
    """
    given = pool_of(pool, norm)
    if given is None or not isinstance(norm, nn.LayerNorm):
        return pool_then_norm(x, grid, pool, norm)
    return pool_norm(x, grid, given, eps=norm.eps)


def pool_of(pool: Layer | None, norm: Layer | None) -> Pool | None:
    """A depthwise convolution and its layer norm as the kernel takes them; ``None`` for other layers."""
    if not isinstance(pool, (nn.Conv2d, nn.Conv3d)) or not isinstance(norm, nn.LayerNorm):
        return None
    if pool.groups != pool.in_channels:
        return None
    padding = tuple(int(n) for n in pool.padding)
    return Pool(pool.weight, norm.weight, norm.bias, pool.stride, padding)
