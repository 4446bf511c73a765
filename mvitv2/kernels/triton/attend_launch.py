"""Launching the attention kernels: sizes, strides and room for the results."""

from collections.abc import Sequence
from math import gcd, prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .device import launching, rows_dense
from .tiling import (
    LONGEST_HELD,
    Load,
    Tiling,
    backward_keys_tiling,
    backward_queries_tiling,
    channel_parts,
    forward_tiling,
    num_splits,
    padded,
    stretch,
)


class Operands(NamedTuple):
    """What attention takes, as the kernels read it.

    Attributes:
        q: ``(B, h, P + N', d)``, channels next to each other.
        k: ``(B, h, P + N'', d)``, so too.
        v: As ``k``.
        terms: ``(B, h, N', size)`` per axis, contiguous.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    terms: tuple[Tensor, ...]


def operands(q: Tensor, k: Tensor, v: Tensor, terms: Sequence[Tensor]) -> Operands:
    """The inputs, copied only where the kernels cannot read them."""
    return Operands(rows_dense(q), rows_dense(k), rows_dense(v), tuple(term.contiguous() for term in terms))


def axes(terms: Sequence[Tensor]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes of the axes, and how many keys lie between neighbours along each."""
    sizes = tuple(int(term.shape[-1]) for term in terms)
    return sizes, tuple(prod(sizes[a + 1 :]) for a in range(len(sizes)))


def held(term: Tensor) -> bool:
    """Whether a term is added by a matrix product: in 16 bits that is quicker than reading number by number."""
    return term.element_size() == 2 and term.shape[-1] <= LONGEST_HELD


def summed(terms: Sequence[Tensor], axis: int) -> bool:
    """Whether gradients of a term are sums over keys; those of a single long axis are written one by one."""
    return len(terms) > 1 or terms[axis].shape[-1] <= LONGEST_HELD


def load_of(given: Operands) -> Load:
    """What tiles are chosen by."""
    q, terms = given.q, given.terms
    positions = sum(padded(term.shape[-1]) for term in terms if held(term))
    sums = sum(padded(term.shape[-1]) for axis, term in enumerate(terms) if summed(terms, axis))
    read = any(not held(term) for term in terms)
    return Load(q.dtype, q.shape[2], q.shape[3], positions, read=read, summed=sums)


def scalars(given: Operands) -> dict[str, Any]:
    """The arguments that all kernels of attention share."""
    q, terms = given.q, given.terms
    sizes, inner = axes(terms)
    return {
        "heads": q.shape[1],
        "num_q": q.shape[2],
        "num_k": given.k.shape[2],
        "sizes": sizes,
        "inner": inner,
        "scale": q.shape[-1] ** -0.5,
        "PREFIX": q.shape[2] - terms[0].shape[2] if terms else 0,
        "PADS": tuple(padded(size) for size in sizes),
        "HELD": tuple(held(term) for term in terms),
        "D": q.shape[-1],
        "PARTS": channel_parts(q.shape[-1]),
    }


def options(tiling: Tiling, *, tf32: bool) -> dict[str, Any]:
    """Tiles and precision as arguments of a launch."""
    return {
        "BLOCK_Q": tiling.queries,
        "BLOCK_K": tiling.keys,
        "PRECISION": "tf32" if tf32 else "ieee",
        "num_warps": tiling.warps,
        "num_stages": tiling.stages,
    }


def empty_like_queries(q: Tensor, *, tokens: bool) -> Tensor:
    """Room for one row per query: ``(B, h, N, d)`` or ``(B, N, h * d)``."""
    b, h, n, d = q.shape
    return q.new_empty(b, n, h * d) if tokens else q.new_empty(b, h, n, d)


def by_heads(x: Tensor, like: Tensor) -> Tensor:
    """``(B, N, h * d)`` as ``(B, h, N, d)``; what has heads already stays."""
    return x if x.ndim == 4 else x.unflatten(2, (like.shape[1], like.shape[3])).transpose(1, 2)


def unit_of(*tensors: Tensor) -> int:
    """The largest power of two up to 16 that divides the steps of batch, head and token of all tensors."""
    return gcd(16, *(step for x in tensors for step in x.stride()[:3]))


def strides(x: Tensor, unit: int) -> tuple[int, ...]:
    """Steps of batch, head and token of ``(B, h, N, d)``, in units."""
    return tuple(step // unit for step in x.stride()[:3])


def forward(
    given: Operands, residual_from: int, *, tokens: bool, tf32: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention with its residual; attention alone, empty unless both are wanted; log2 of the sums of exponentials."""
    from .attend_forward import attend_forward

    q, residual = given.q, residual_from >= 0
    out = empty_like_queries(q, tokens=tokens)
    alone = empty_like_queries(q, tokens=False) if residual and keep else q.new_empty(0)
    log_sums = q.new_empty(q.shape[:3], dtype=torch.float32)
    rows = (q, given.k, given.v, by_heads(out, q), alone if alone.numel() else q)
    unit = unit_of(*rows)
    tiling = forward_tiling(load_of(given))
    with launching(q):
        attend_forward[(num_tiles(q, tiling.queries),)](
            *given, out, alone, log_sums, *(strides(x, unit) for x in rows),
            residual_from=residual_from, RESIDUAL=residual, KEEP=residual and keep, UNIT=unit,
            **scalars(given), **options(tiling, tf32=tf32),
        )  # fmt: skip
    return out, alone, log_sums


def backward(
    d_out: Tensor, given: Operands, alone: Tensor, log_sums: Tensor, residual_from: int, *, tf32: bool
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Gradients of queries, keys, values and terms."""
    d_out, alone = by_heads(rows_dense(d_out), given.q), by_heads(rows_dense(alone), given.q)
    d_q, d_terms, deltas = backward_queries(d_out, given, alone, log_sums, residual_from, tf32=tf32)
    d_k, d_v = backward_keys(d_out, given, log_sums, deltas, tf32=tf32)
    return d_q, d_k, d_v, d_terms


def backward_queries(
    d_out: Tensor, given: Operands, alone: Tensor, log_sums: Tensor, residual_from: int, *, tf32: bool
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Gradients of queries and terms, and the products of outputs with their gradients."""
    from .attend_backward import attend_backward_queries

    q, k, v, terms = given
    d_q = empty_like_queries(q, tokens=False)
    d_terms = tuple(torch.empty_like(term) for term in terms)
    deltas = torch.empty_like(log_sums)
    rows = (q, k, v, alone, d_out)
    unit = unit_of(*rows)
    tiling = backward_queries_tiling(load_of(given))
    with launching(q):
        attend_backward_queries[(num_tiles(q, tiling.queries),)](
            q, k, v, terms, alone, log_sums, d_out, deltas, d_q, d_terms, *(strides(x, unit) for x in rows),
            residual_from=residual_from, RESIDUAL=residual_from >= 0, UNIT=unit,
            SUMMED=tuple(summed(terms, axis) for axis in range(len(terms))),
            **scalars(given), **options(tiling, tf32=tf32),
        )  # fmt: skip
    return d_q, list(d_terms), deltas


def backward_keys(
    d_out: Tensor, given: Operands, log_sums: Tensor, deltas: Tensor, *, tf32: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of keys and values."""
    from .attend_backward import attend_backward_keys

    q, k, v, terms = given
    tiling = backward_keys_tiling(load_of(given))
    programs = num_tiles(k, tiling.keys)
    splits = num_splits(q.shape[2], programs, tiling.queries)
    d_k, d_v = (k.new_empty(splits, *k.shape, dtype=k.dtype if splits == 1 else torch.float32) for _ in range(2))
    rows = (q, k, v, d_out)
    unit = unit_of(*rows)
    with launching(q):
        attend_backward_keys[(programs, splits)](
            q, k, v, terms, log_sums, d_out, deltas, d_k, d_v, *(strides(x, unit) for x in rows),
            num_heads=k.shape[0] * k.shape[1], rows_per_split=stretch(q.shape[2], splits, tiling.queries), UNIT=unit,
            **scalars(given), **options(tiling, tf32=tf32),
        )  # fmt: skip
    return (d_k[0], d_v[0]) if splits == 1 else (d_k.sum(0).to(k.dtype), d_v.sum(0).to(v.dtype))


def num_tiles(x: Tensor, block: int) -> int:
    """Tiles of the tokens of all heads of ``(B, h, N, d)``."""
    return -(-x.shape[2] // block) * x.shape[0] * x.shape[1]
