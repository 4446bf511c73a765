"""The backend of choice for a call, by a rule one can ask."""

import logging
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from mvitv2.core.attend import Attend, reference
from mvitv2.core.attention import MultiScaleAttention, pooling_attention
from mvitv2.core.grid import Grid, Layer
from mvitv2.core.layers import pool_then_norm

from . import cpp
from .sdpa import folded, masked

LOG = logging.getLogger(__name__)


def choose(*, device: str, trains: bool, dtype: torch.dtype = torch.float32) -> Attend:
    """The attention that ``"auto"`` takes.

    Args:
        device: ``"cpu"``, ``"cuda"``, ...
        trains: Whether gradients are needed.
        dtype: Of queries, keys and values.
    """
    if device != "cpu":
        return folded
    if dtype in cpp.DTYPES and compiled():
        return cpp.attend
    # fused attention of bfloat16 pays where its products are done by matrix units, not where they are emulated
    slow = dtype == torch.bfloat16 and not torch.cpu._is_amx_tile_supported()
    return reference if trains or slow else masked


@torch.compiler.assume_constant_result
@cache
def compiled() -> bool:
    """Whether the C++ operators are there; the first call builds them, and a log line says why they are not."""
    reason = cpp.missing()
    if reason is not None:
        LOG.warning("pooling attention runs without C++ operators: %s", reason)
    return reason is None


def takes_cpp(x: Tensor) -> bool:
    """Whether the C++ operators are taken for a tensor; a graph that is exported keeps to PyTorch's operators."""
    if x.device.type != "cpu" or x.dtype not in cpp.DTYPES or x.shape[0] == 0:
        return False
    return not torch.compiler.is_exporting() and compiled()


def auto(q: Tensor, k: Tensor, v: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """:func:`mvitv2.core.attend.reference` by the backend of choice; shapes as there."""
    if takes_cpp(q):
        return cpp.attend(q, k, v, terms)
    trains = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    chosen = choose(device=q.device.type, trains=trains, dtype=q.dtype)
    return (reference if trains else masked)(q, k, v, terms) if chosen is cpp.attend else chosen(q, k, v, terms)


def auto_pool(x: Tensor, grid: Grid, pool: Layer | None, norm: Layer | None) -> tuple[Tensor, Grid]:
    """:func:`mvitv2.core.layers.pool_then_norm` by the backend of choice; shapes as there."""
    return (cpp.pool_tokens if takes_cpp(x) else pool_then_norm)(x, grid, pool, norm)


def auto_whole(attn: MultiScaleAttention, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """:func:`mvitv2.core.attention.pooling_attention` by the backend of choice; shapes as there."""
    if attn.attend is not auto:
        return pooling_attention(attn, x, grid)
    return (cpp.whole if takes_cpp(x) else pooling_attention)(attn, x, grid)
