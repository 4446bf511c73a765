"""Depthwise pooling and LayerNorm in one pass over the tokens: backward.

The first kernel goes back through the norm and sums what every program saw for the parameters; a program adds up its
tiles in one order, and its sums are added to those of the others afterwards. The second goes back through the
convolution, input token by input token. Nothing is added atomically, so repeated runs are equal.
"""

# Kernels take no keyword-only arguments, and `if` on a constant leaves out code; types of arguments are values here.
# ruff: noqa: PLR0917, SIM108
# pyright: reportInvalidTypeForm=false

from .language import tl, triton
from .pool_forward import convolved, corners, load_rows, load_tap, normalised, sources, tokens_of


@triton.jit
def pool_norm_backward(
    x, weight, gamma, d_out, d_pooled, partial, x_strides, d_out_strides,
    heads, num_tiles, num_in, num_out, sizes, new_sizes, stride, padding, eps,
    KERNEL: tl.constexpr, GROUP: tl.constexpr, PREFIX: tl.constexpr, D: tl.constexpr, PAD: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of pooled tokens before the norm, and this program's share of those of the parameters.

    ``partial`` is ``(programs, TAPS + 2, D)``: the taps, then gamma, then beta. Programs of the second axis of the
    launch take a group of taps each.
    """
    TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    program, group = tl.program_id(0), tl.program_id(1)
    channels = tl.arange(0, PAD)
    scales = tl.load(gamma + channels, mask=channels < D, other=0.0).to(tl.float32)
    d_taps = tl.zeros([GROUP, PAD], tl.float32)
    d_gamma, d_beta = tl.zeros([PAD], tl.float32), tl.zeros([PAD], tl.float32)
    for tile in range(program, num_tiles, tl.num_programs(0)):
        head, tokens = tokens_of(tile, num_out, BLOCK)
        start = x + (head // heads) * x_strides[0] + (head % heads) * x_strides[2]
        windows = corners(tokens, num_out, sizes, new_sizes, stride, padding, PREFIX)
        pooled = convolved(start, weight, windows, tokens, channels, x_strides[1], sizes, KERNEL, PREFIX, D, PAD, BLOCK)
        normed, inverse = normalised(pooled, channels, eps, D)
        d_start = d_out + (head // heads) * d_out_strides[0] + (head % heads) * d_out_strides[1]
        d = load_rows(d_start, tokens, tokens < num_out, channels, d_out_strides[2], D)
        d_gamma += tl.sum(d * normed, 0)
        d_beta += tl.sum(d, 0)
        d *= scales[None, :]
        d = (d - (tl.sum(d, 1) / D)[:, None] - normed * (tl.sum(d * normed, 1) / D)[:, None]) * inverse[:, None]
        at = d_pooled + (head * num_out + tokens)[:, None] * D + channels[None, :]
        ok = (tokens < num_out)[:, None] & (channels < D)[None, :] & (group == 0)
        tl.store(at, d.to(d_pooled.dtype.element_ty), mask=ok)
        d_taps = add_d_taps(d_taps, d, start, windows, channels, group, x_strides[1], sizes, KERNEL, GROUP, PREFIX, D)
    store_shares(partial + program * (TAPS + 2) * D, d_taps, d_gamma, d_beta, channels, group, TAPS, GROUP, D)


@triton.jit
def add_d_taps(
    d_taps, d, start, windows, channels, group, x_stride, sizes,
    KERNEL: tl.constexpr, GROUP: tl.constexpr, PREFIX: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Gradients of a group of taps with those of one tile added; the class token has no part in them."""
    TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    rows_of_taps = tl.arange(0, GROUP)
    for i in range(tl.minimum(GROUP, TAPS - group * GROUP)):
        rows, ok = sources(windows, group * GROUP + i, sizes, KERNEL, PREFIX)
        seen = load_rows(start, rows, ok, channels, x_stride, D)
        d_taps += tl.where((rows_of_taps == i)[:, None], tl.sum(seen * d, 0)[None, :], 0.0)
    return d_taps


@triton.jit
def store_shares(
    start, d_taps, d_gamma, d_beta, channels, group, TAPS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr
):
    """What a program adds to the gradients of the parameters."""
    taps = group * GROUP + tl.arange(0, GROUP)
    ok = (taps < TAPS)[:, None] & (channels < D)[None, :]
    tl.store(start + taps[:, None] * D + channels[None, :], d_taps, mask=ok)
    first = (channels < D) & (group == 0)
    tl.store(start + TAPS * D + channels, d_gamma, mask=first)
    tl.store(start + (TAPS + 1) * D + channels, d_beta, mask=first)


@triton.jit
def pool_norm_backward_input(
    weight, d_pooled, d_x, d_x_strides, heads, num_in, num_out, sizes, new_sizes, stride, padding,
    KERNEL: tl.constexpr, PREFIX: tl.constexpr, D: tl.constexpr, PAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of some input tokens of one head: what every pooled token that saw them sends back."""
    TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    channels = tl.arange(0, PAD)
    head, tokens = tokens_of(tl.program_id(0), num_in, BLOCK)
    start = d_pooled + head * num_out * D
    if PREFIX:
        total = load_rows(start, tokens, tokens < PREFIX, channels, D, D)
    else:
        total = tl.zeros([BLOCK, PAD], tl.float32)
    lying = reaches(tokens, num_in, sizes, padding, PREFIX)
    for tap in range(TAPS):
        rows, ok = destinations(lying, tap, new_sizes, stride, KERNEL, PREFIX)
        seen = load_rows(start, rows, ok, channels, D, D)
        total += seen * load_tap(weight, tap, channels, TAPS, D)[None, :]
    at = d_x + (head // heads) * d_x_strides[0] + (head % heads) * d_x_strides[2]
    at = at + tokens[:, None] * d_x_strides[1] + channels[None, :]
    tl.store(at, total.to(d_x.dtype.element_ty), mask=(tokens < num_in)[:, None] & (channels < D)[None, :])


@triton.jit
def reaches(tokens, num_in, sizes, padding, PREFIX: tl.constexpr):
    """Where input tokens lie on every axis of the padded input, and which of them lie on it."""
    place = tokens - PREFIX
    t = place // (sizes[1] * sizes[2]) + padding[0]
    y = (place // sizes[2]) % sizes[1] + padding[1]
    return t, y, place % sizes[2] + padding[2], (place >= 0) & (tokens < num_in)


@triton.jit
def destinations(lying, tap, new_sizes, stride, KERNEL: tl.constexpr, PREFIX: tl.constexpr):
    """Which output token sees every input token through a tap, and whether there is one: `sources` turned round."""
    t, t_ok = window_from(lying[0] - tap // (KERNEL[1] * KERNEL[2]), stride[0], new_sizes[0])
    y, y_ok = window_from(lying[1] - (tap // KERNEL[2]) % KERNEL[1], stride[1], new_sizes[1])
    x, x_ok = window_from(lying[2] - tap % KERNEL[2], stride[2], new_sizes[2])
    return PREFIX + (t * new_sizes[1] + y) * new_sizes[2] + x, t_ok & y_ok & x_ok & lying[3]


@triton.jit
def window_from(corner, stride, count):
    """The window that starts at a corner along one axis, and whether one does."""
    window = corner // stride
    return window, (corner >= 0) & (window * stride == corner) & (window < count)
