"""Pieces of tiles that the attention kernels share: channels in parts, logits with position terms.

A head of ``D`` channels is held in one or two parts, 96 = 64 + 32, because tiles come in powers of two and padding 96
to 128 would be a third more work.
"""

# Kernels take no keyword-only arguments, tuples grow by `+` alone; types of arguments are values here.
# ruff: noqa: PLR0917, RUF005
# pyright: reportInvalidTypeForm=false

from .language import INTERPRETED, tl, triton

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def dot(a, b, total, PRECISION: tl.constexpr):
    """``total + a b`` with float32 sums."""
    if INTERPRETED:  # it multiplies the bits of bfloat16 as if they were integers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def zeros(ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A float32 tile of zeros."""
    return tl.zeros([ROWS, COLUMNS], tl.float32)


@triton.jit
def zeros_per(ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A tile of zeros for every number of columns."""
    made = ()
    for i in tl.static_range(len(COLUMNS)):
        made = made + (zeros(ROWS, COLUMNS[i]),)
    return made


@triton.jit
def place_of(program, num, heads, BLOCK: tl.constexpr):
    """Batch, head, the two as one number, and the tokens of a program: tiles of a head come one after another."""
    count = tl.cdiv(num, BLOCK)
    head = program // count
    tokens = (program % count) * BLOCK + tl.arange(0, BLOCK)
    return (head // heads).to(tl.int64), (head % heads).to(tl.int64), head.to(tl.int64), tokens


@triton.jit
def start_of(x, strides, b, h, UNIT: tl.constexpr):
    """Where a head starts. Strides come in units, so that the compiler knows that they are multiples of it."""
    return x + (b * strides[0] + h * strides[1]) * UNIT


@triton.jit
def load_parts(start, rows, row_ok, stride, D: tl.constexpr, PARTS: tl.constexpr):
    """Rows of a ``(tokens, D)`` matrix, a tile per part of the channels; zeros where there are none."""
    parts = ()
    for i in tl.static_range(len(PARTS)):
        channels = i * PARTS[0] + tl.arange(0, PARTS[i])
        at = start + rows[:, None] * stride + channels[None, :]
        parts = parts + (tl.load(at, mask=row_ok[:, None] & (channels[None, :] < D), other=0.0),)
    return parts


@triton.jit
def store_parts(start, rows, row_ok, stride, parts, D: tl.constexpr, PARTS: tl.constexpr):
    """What :func:`load_parts` loads, in the type of the destination."""
    for i in tl.static_range(len(PARTS)):
        channels = i * PARTS[0] + tl.arange(0, PARTS[i])
        at = start + rows[:, None] * stride + channels[None, :]
        tl.store(at, parts[i].to(start.dtype.element_ty), mask=row_ok[:, None] & (channels[None, :] < D))


@triton.jit
def product(a_parts, b_parts, BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr, PRECISION: tl.constexpr):
    """``a b^T`` over all channels."""
    total = tl.zeros([BLOCK_A, BLOCK_B], tl.float32)
    for i in tl.static_range(len(a_parts)):
        total = dot(a_parts[i], tl.trans(b_parts[i]), total, PRECISION)
    return total


@triton.jit
def add_products(totals, weights, parts, PRECISION: tl.constexpr):
    """``totals + weights parts``, part by part; weights are rounded to the type of the parts."""
    sums = ()
    for i in tl.static_range(len(parts)):
        sums = sums + (dot(weights.to(parts[i].dtype), parts[i], totals[i], PRECISION),)
    return sums


@triton.jit
def scaled_parts(parts, factor):
    """Every row times its factor, or every number times one factor."""
    made = ()
    for i in tl.static_range(len(parts)):
        made = made + (parts[i] * factor,)
    return made


@triton.jit
def positions(keys, size, inner, PREFIX: tl.constexpr):
    """Where keys lie along an axis; -1 for the class token."""
    return tl.where(keys >= PREFIX, ((keys - PREFIX) // inner) % size, -1)


@triton.jit
def onehot(places, DTYPE: tl.constexpr, PAD: tl.constexpr):
    """``(keys, PAD)``, 1 where a key lies at a position, else 0."""
    hit = places[:, None] == tl.arange(0, PAD)[None, :]
    return hit.to(tl.float32).to(DTYPE)  # in two steps: the interpreter takes integers for the bits of bfloat16


@triton.jit
def load_term(term, head, rows, num_q, size, PREFIX: tl.constexpr, PAD: tl.constexpr, HELD: tl.constexpr):
    """The term of some queries for all positions of an axis, ``(queries, PAD)``; next to nothing if it is not held."""
    if HELD:
        start = term + head * (num_q - PREFIX) * size
        places = tl.arange(0, PAD)
        ok = (rows >= PREFIX) & (rows < num_q)
        at = start + (rows - PREFIX)[:, None] * size + places[None, :]
        return tl.load(at, mask=ok[:, None] & (places[None, :] < size), other=0.0)
    else:
        return tl.zeros([1, 1], tl.float32)


@triton.jit
def load_terms(terms, head, rows, num_q, sizes, PREFIX: tl.constexpr, PADS: tl.constexpr, HELD: tl.constexpr):
    """:func:`load_term` for every axis."""
    made = ()
    for a in tl.static_range(len(PADS)):
        made = made + (load_term(terms[a], head, rows, num_q, sizes[a], PREFIX, PADS[a], HELD[a]),)
    return made


@triton.jit
def add_term(
    logits, term, tile, head, rows, num_q, places, size,
    PREFIX: tl.constexpr, PAD: tl.constexpr, HELD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add a term to logits: by a product with a one-hot matrix if it is held, else read number by number."""
    if HELD:  # exact: one factor of every sum is 1, all others are 0
        return dot(tile, tl.trans(onehot(places, tile.dtype, PAD)), logits, PRECISION)
    else:
        start = term + head * (num_q - PREFIX) * size
        ok = ((rows >= PREFIX) & (rows < num_q))[:, None] & (places >= 0)[None, :]
        at = start + (rows - PREFIX)[:, None] * size + places[None, :]
        return logits + tl.load(at, mask=ok, other=0.0).to(tl.float32)


@triton.jit
def logits_of(
    q_parts, k_parts, terms, term_tiles, head, rows, keys, num_q, num_k, sizes, inner, scale,
    PREFIX: tl.constexpr, PADS: tl.constexpr, HELD: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``(q k^T / sqrt(d) + bias) log2(e)``; minus infinity for keys beyond the last."""
    # scaled in float32 after the product: nothing overflows, whatever the range of the inputs
    logits = product(q_parts, k_parts, BLOCK_Q, BLOCK_K, PRECISION) * scale
    for a in tl.static_range(len(PADS)):
        places = positions(keys, sizes[a], inner[a], PREFIX)
        logits = add_term(
            logits, terms[a], term_tiles[a], head, rows, num_q, places, sizes[a], PREFIX, PADS[a], HELD[a], PRECISION
        )
    return tl.where(keys[None, :] < num_k, logits * LOG2_E, float("-inf"))
