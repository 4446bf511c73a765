"""The backend of choice for a call, by a rule one can ask: :func:`choice` says what is taken, and why."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from mvitv2.core.attend import reference
from mvitv2.core.attention import MultiScaleAttention, pooling_attention
from mvitv2.core.grid import Grid, Layer
from mvitv2.core.layers import pool_then_norm

from . import cpp, triton
from .constant import constant
from .sdpa import folded, masked

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """What ``"auto"`` takes for a call.

    Attributes:
        backend: Its name in :data:`mvitv2.kernels.BACKENDS`.
        why: The reason, as a sentence for a reader.
    """

    backend: str
    why: str


def choice(
    *, device: str, trains: bool, dtype: torch.dtype = torch.float32, channels: int = 96, sizes: Grid = ()
) -> Choice:
    """What ``"auto"`` takes, and why.

    Args:
        device: ``"cpu"``, ``"cuda"``, ...
        trains: Whether gradients are needed.
        dtype: Of queries, keys and values.
        channels: Of a head.
        sizes: Of the key grid, one per axis; none where there are no position terms.
    """
    if device == "cuda":
        return on_cuda(dtype, channels, sizes)
    if device != "cpu":
        return Choice("folded", f"on {device} PyTorch's fused attention runs, with the position terms inside q and k")
    if dtype in cpp.DTYPES and compiled():
        return Choice("cpp", f"the C++ operators run here, with products by {cpp.instructions()}")
    missing = "the C++ operators take float32 and bfloat16" if dtype not in cpp.DTYPES else "there are no C++ operators"
    if trains:
        return Choice("reference", f"{missing}; fused attention does not pay where the bias wants a gradient")
    if dtype == torch.bfloat16 and not torch.cpu._is_amx_tile_supported():
        return Choice("reference", f"{missing}; fused attention widens bfloat16 where there are no matrix units")
    return Choice("masked", f"{missing}; fused attention with a bias is PyTorch's fastest")


def on_cuda(dtype: torch.dtype, channels: int, sizes: Grid) -> Choice:
    """What is taken on an NVIDIA or AMD GPU."""
    there = triton.available()
    if not there:
        return Choice("folded", f"no Triton kernels: {there.reason}")
    if not triton.takes(dtype, channels, sizes):
        return Choice("folded", f"the Triton kernels do not take {dtype} with {channels} channels and axes of {sizes}")
    return Choice("triton", "the Triton kernels hold no matrix of queries by keys; their speed is not measured yet")


@constant
def compiled() -> bool:
    """Whether the C++ operators are there; the first call builds them, and a log line says why they are not."""
    return told_once() is None


@cache
def told_once() -> str | None:
    """Why there are no C++ operators; a graph that is traced may call no function that remembers, so this is apart."""
    reason = cpp.missing()
    if reason is not None:
        LOG.warning("pooling attention runs without C++ operators: %s", reason)
    return reason


def takes_cpp(x: Tensor) -> bool:
    """Whether the C++ operators are taken for a tensor; a graph that is exported keeps to PyTorch's operators."""
    if x.device.type != "cpu" or x.dtype not in cpp.DTYPES or x.shape[0] == 0:
        return False
    return not torch.compiler.is_exporting() and compiled()


def takes_triton(x: Tensor) -> bool:
    """Whether the Triton kernels are taken for a tensor, whatever its position terms are."""
    if x.device.type != "cuda" or x.shape[0] == 0 or torch.compiler.is_exporting():
        return False
    return usable() and triton.takes(x.dtype, x.shape[-1], ())


@constant
def usable() -> bool:
    """Whether there are a GPU and a Triton for it."""
    return bool(triton.available())


def auto(q: Tensor, k: Tensor, v: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """:func:`mvitv2.core.attend.reference` by the backend of choice; shapes as there."""
    if takes_cpp(q):
        return cpp.attend(q, k, v, terms)
    sizes = tuple(term.shape[-1] for term in terms)
    if takes_triton(q) and triton.takes(q.dtype, q.shape[-1], sizes):
        return triton.attend(q, k.to(q.dtype), v.to(q.dtype), terms)
    if q.device.type != "cpu":
        return folded(q, k, v, terms)
    trains = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    slow = q.dtype == torch.bfloat16 and not torch.cpu._is_amx_tile_supported()
    return (reference if trains or slow else masked)(q, k, v, terms)


def auto_pool(x: Tensor, grid: Grid, pool: Layer | None, norm: Layer | None) -> tuple[Tensor, Grid]:
    """:func:`mvitv2.core.layers.pool_then_norm` by the backend of choice; shapes as there."""
    if takes_triton(x):
        return triton.pool_tokens(x, grid, pool, norm)
    return (cpp.pool_tokens if takes_cpp(x) else pool_then_norm)(x, grid, pool, norm)


def auto_whole(attn: MultiScaleAttention, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """:func:`mvitv2.core.attention.pooling_attention` by the backend of choice; shapes as there."""
    if attn.attend is not auto:
        return pooling_attention(attn, x, grid)
    if takes_cpp(x):
        return cpp.whole(attn, x, grid)
    axes = attn.spec.kv_grid if attn.tabled else ()
    by_triton = takes_triton(x[..., : attn.spec.head_dim]) and triton.takes(x.dtype, attn.spec.head_dim, axes)
    return (triton.whole if by_triton else pooling_attention)(attn, x, grid)
