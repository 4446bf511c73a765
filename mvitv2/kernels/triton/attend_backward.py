"""Flash attention with a position term per axis: backward.

Two kernels, so that every number has one program that writes it, in one order: gradients of queries and of terms belong
to a tile of queries, those of keys and values to a tile of keys.
"""

# Kernels take no keyword-only arguments, tuples grow by `+` alone; types of arguments are values here.
# ruff: noqa: PLR0917, RUF005
# pyright: reportInvalidTypeForm=false

from .attend_forward import add_rows
from .language import tl, triton
from .tiles import (
    add_products,
    dot,
    load_parts,
    load_terms,
    logits_of,
    onehot,
    place_of,
    positions,
    product,
    scaled_parts,
    start_of,
    store_parts,
    zeros,
    zeros_per,
)


@triton.jit
def attend_backward_queries(
    q, k, v, terms, alone, log_sums, d_out, deltas, d_q, d_terms,
    q_strides, k_strides, v_strides, alone_strides, d_out_strides,
    heads, num_q, num_k, sizes, inner, scale, residual_from,
    PREFIX: tl.constexpr, PADS: tl.constexpr, HELD: tl.constexpr, SUMMED: tl.constexpr, D: tl.constexpr,
    PARTS: tl.constexpr, UNIT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, RESIDUAL: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile of queries and of its terms; also their ``deltas``, which the other kernel needs."""
    b, h, head, rows = place_of(tl.program_id(0), num_q, heads, BLOCK_Q)
    row_ok = rows < num_q
    q_parts = load_parts(start_of(q, q_strides, b, h, UNIT), rows, row_ok, q_strides[2] * UNIT, D, PARTS)
    d_start = start_of(d_out, d_out_strides, b, h, UNIT)
    d_parts = load_parts(d_start, rows, row_ok, d_out_strides[2] * UNIT, D, PARTS)
    start = start_of(alone, alone_strides, b, h, UNIT)
    delta = row_sums(d_parts, load_parts(start, rows, row_ok, alone_strides[2] * UNIT, D, PARTS), BLOCK_Q)
    tl.store(deltas + head * num_q + rows, delta, mask=row_ok)
    log_sum = tl.load(log_sums + head * num_q + rows, mask=row_ok, other=0.0)
    term_tiles = load_terms(terms, head, rows, num_q, sizes, PREFIX, PADS, HELD)
    k_start, v_start = start_of(k, k_strides, b, h, UNIT), start_of(v, v_strides, b, h, UNIT)
    sums, term_sums = zeros_per(BLOCK_Q, PARTS), zeros_of_terms(BLOCK_Q, PADS, SUMMED)
    for start in range(0, num_k, BLOCK_K):
        keys = start + tl.arange(0, BLOCK_K)
        k_parts = load_parts(k_start, keys, keys < num_k, k_strides[2] * UNIT, D, PARTS)
        logits = logits_of(
            q_parts, k_parts, terms, term_tiles, head, rows, keys, num_q, num_k, sizes, inner, scale,
            PREFIX, PADS, HELD, BLOCK_Q, BLOCK_K, PRECISION,
        )  # fmt: skip
        v_parts = load_parts(v_start, keys, keys < num_k, v_strides[2] * UNIT, D, PARTS)
        d_weights = product(d_parts, v_parts, BLOCK_Q, BLOCK_K, PRECISION)
        d_logits = tl.exp2(logits - log_sum[:, None]) * (d_weights - delta[:, None])
        sums = add_products(sums, d_logits, k_parts, PRECISION)
        term_sums = add_d_terms(
            term_sums, d_logits, d_terms, head, rows, keys, num_q, num_k, sizes, inner, q.dtype.element_ty,
            PREFIX, PADS, SUMMED, PRECISION,
        )  # fmt: skip
    sums = scaled_parts(sums, scale)
    if RESIDUAL:
        sums = add_rows(sums, d_parts, rows >= residual_from)
    store_parts(d_q + head * num_q * D, rows, row_ok, D, sums, D, PARTS)
    store_d_terms(term_sums, d_terms, head, rows, num_q, sizes, PREFIX, PADS, SUMMED)


@triton.jit
def row_sums(a_parts, b_parts, ROWS: tl.constexpr):
    """The product of every row of ``a`` with the same row of ``b``."""
    total = tl.zeros([ROWS], tl.float32)
    for i in tl.static_range(len(a_parts)):
        total += tl.sum(a_parts[i].to(tl.float32) * b_parts[i].to(tl.float32), 1)
    return total


@triton.jit
def zeros_of_terms(ROWS: tl.constexpr, PADS: tl.constexpr, SUMMED: tl.constexpr):
    """Room for the gradients of the terms that are summed."""
    made = ()
    for a in tl.static_range(len(PADS)):
        made = made + (zeros(ROWS if SUMMED[a] else 1, PADS[a] if SUMMED[a] else 1),)
    return made


@triton.jit
def add_d_terms(
    term_sums, d_logits, d_terms, head, rows, keys, num_q, num_k, sizes, inner, DTYPE: tl.constexpr,
    PREFIX: tl.constexpr, PADS: tl.constexpr, SUMMED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of logits, summed over the keys at each position; a single long axis is written as it comes."""
    made = ()
    for a in tl.static_range(len(PADS)):
        places = positions(keys, sizes[a], inner[a], PREFIX)
        if SUMMED[a]:
            made = made + (dot(d_logits.to(DTYPE), onehot(places, DTYPE, PADS[a]), term_sums[a], PRECISION),)
        else:
            start = d_terms[a] + head * (num_q - PREFIX) * sizes[a]
            ok = ((rows >= PREFIX) & (rows < num_q))[:, None] & ((places >= 0) & (keys < num_k))[None, :]
            at = start + (rows - PREFIX)[:, None] * sizes[a] + places[None, :]
            tl.store(at, d_logits.to(d_terms[a].dtype.element_ty), mask=ok)
            made = made + (term_sums[a],)
    return made


@triton.jit
def store_d_terms(
    term_sums, d_terms, head, rows, num_q, sizes, PREFIX: tl.constexpr, PADS: tl.constexpr, SUMMED: tl.constexpr
):
    """The sums of :func:`add_d_terms`."""
    ok = (rows >= PREFIX) & (rows < num_q)
    for a in tl.static_range(len(PADS)):
        if SUMMED[a]:
            places = tl.arange(0, PADS[a])
            at = d_terms[a] + head * (num_q - PREFIX) * sizes[a] + (rows - PREFIX)[:, None] * sizes[a] + places[None, :]
            value = term_sums[a].to(d_terms[a].dtype.element_ty)
            tl.store(at, value, mask=ok[:, None] & (places[None, :] < sizes[a]))


@triton.jit
def attend_backward_keys(
    q, k, v, terms, log_sums, d_out, deltas, d_k, d_v, q_strides, k_strides, v_strides, d_out_strides,
    heads, num_q, num_k, sizes, inner, scale, num_heads, rows_per_split,
    PREFIX: tl.constexpr, PADS: tl.constexpr, HELD: tl.constexpr, D: tl.constexpr, PARTS: tl.constexpr,
    UNIT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile of keys and values from one stretch of the queries; stretches are added up afterwards."""
    split = tl.program_id(1)
    b, h, head, keys = place_of(tl.program_id(0), num_k, heads, BLOCK_K)
    key_ok = keys < num_k
    k_parts = load_parts(start_of(k, k_strides, b, h, UNIT), keys, key_ok, k_strides[2] * UNIT, D, PARTS)
    v_parts = load_parts(start_of(v, v_strides, b, h, UNIT), keys, key_ok, v_strides[2] * UNIT, D, PARTS)
    q_start, d_start = start_of(q, q_strides, b, h, UNIT), start_of(d_out, d_out_strides, b, h, UNIT)
    k_sums, v_sums = zeros_per(BLOCK_K, PARTS), zeros_per(BLOCK_K, PARTS)
    for start in range(split * rows_per_split, tl.minimum((split + 1) * rows_per_split, num_q), BLOCK_Q):
        rows = start + tl.arange(0, BLOCK_Q)
        row_ok = rows < num_q
        q_parts = load_parts(q_start, rows, row_ok, q_strides[2] * UNIT, D, PARTS)
        term_tiles = load_terms(terms, head, rows, num_q, sizes, PREFIX, PADS, HELD)
        logits = logits_of(
            q_parts, k_parts, terms, term_tiles, head, rows, keys, num_q, num_k, sizes, inner, scale,
            PREFIX, PADS, HELD, BLOCK_Q, BLOCK_K, PRECISION,
        )  # fmt: skip
        log_sum = tl.load(log_sums + head * num_q + rows, mask=row_ok, other=0.0)
        weights = tl.exp2(logits - log_sum[:, None])
        d_parts = load_parts(d_start, rows, row_ok, d_out_strides[2] * UNIT, D, PARTS)
        v_sums = add_products(v_sums, tl.trans(weights), d_parts, PRECISION)
        delta = tl.load(deltas + head * num_q + rows, mask=row_ok, other=0.0)
        d_logits = weights * (product(d_parts, v_parts, BLOCK_Q, BLOCK_K, PRECISION) - delta[:, None])
        k_sums = add_products(k_sums, tl.trans(d_logits), q_parts, PRECISION)
    start = (split * num_heads + head) * num_k * D
    store_parts(d_k + start, keys, key_ok, D, scaled_parts(k_sums, scale), D, PARTS)
    store_parts(d_v + start, keys, key_ok, D, v_sums, D, PARTS)
