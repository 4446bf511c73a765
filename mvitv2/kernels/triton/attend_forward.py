"""Flash attention with a position term per axis: forward."""

# Kernels take no keyword-only arguments, tuples grow by `+` alone; types of arguments are values here.
# ruff: noqa: PLR0917, RUF005
# pyright: reportInvalidTypeForm=false

from .language import tl, triton
from .tiles import (
    add_products,
    load_parts,
    load_terms,
    logits_of,
    place_of,
    scaled_parts,
    start_of,
    store_parts,
    zeros_per,
)


@triton.jit
def attend_forward(
    q, k, v, terms, out, alone, log_sums, q_strides, k_strides, v_strides, out_strides, alone_strides,
    heads, num_q, num_k, sizes, inner, scale, residual_from,
    PREFIX: tl.constexpr, PADS: tl.constexpr, HELD: tl.constexpr, D: tl.constexpr, PARTS: tl.constexpr,
    UNIT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, RESIDUAL: tl.constexpr, KEEP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of queries of one head against all keys."""
    b, h, head, rows = place_of(tl.program_id(0), num_q, heads, BLOCK_Q)
    row_ok = rows < num_q
    q_parts = load_parts(start_of(q, q_strides, b, h, UNIT), rows, row_ok, q_strides[2] * UNIT, D, PARTS)
    term_tiles = load_terms(terms, head, rows, num_q, sizes, PREFIX, PADS, HELD)
    k_start, v_start = start_of(k, k_strides, b, h, UNIT), start_of(v, v_strides, b, h, UNIT)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    sums = zeros_per(BLOCK_Q, PARTS)
    for start in range(0, num_k, BLOCK_K):
        keys = start + tl.arange(0, BLOCK_K)
        k_parts = load_parts(k_start, keys, keys < num_k, k_strides[2] * UNIT, D, PARTS)
        logits = logits_of(
            q_parts, k_parts, terms, term_tiles, head, rows, keys, num_q, num_k, sizes, inner, scale,
            PREFIX, PADS, HELD, BLOCK_Q, BLOCK_K, PRECISION,
        )  # fmt: skip
        new_top = tl.maximum(top, tl.max(logits, 1))
        weights = tl.exp2(logits - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(weights, 1)
        v_parts = load_parts(v_start, keys, keys < num_k, v_strides[2] * UNIT, D, PARTS)
        sums = add_products(scaled_parts(sums, shrink[:, None]), weights, v_parts, PRECISION)
        top = new_top
    sums = scaled_parts(sums, (1.0 / total)[:, None])
    tl.store(log_sums + head * num_q + rows, top + tl.log2(total), mask=row_ok)
    if KEEP:
        start = start_of(alone, alone_strides, b, h, UNIT)
        store_parts(start, rows, row_ok, alone_strides[2] * UNIT, sums, D, PARTS)
    if RESIDUAL:
        sums = add_rows(sums, q_parts, rows >= residual_from)
    store_parts(start_of(out, out_strides, b, h, UNIT), rows, row_ok, out_strides[2] * UNIT, sums, D, PARTS)


@triton.jit
def add_rows(sums, parts, chosen):
    """``sums`` with ``parts`` added in the chosen rows."""
    made = ()
    for i in tl.static_range(len(parts)):
        made = made + (sums[i] + tl.where(chosen[:, None], parts[i].to(tl.float32), 0.0),)
    return made
