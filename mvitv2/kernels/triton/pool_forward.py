"""Depthwise pooling and LayerNorm in one pass over the tokens: forward, and what backward shares with it.

Every size is a tuple of three numbers, time, height and width; an image is a clip of one frame. A program takes some
tokens of one head with all their channels, so that nothing between the convolution and the norm goes to memory.
"""

# Kernels take no keyword-only arguments, and `if` on a constant leaves out code; types of arguments are values here.
# ruff: noqa: PLR0917
# pyright: reportInvalidTypeForm=false

from .language import tl, triton


@triton.jit
def pool_norm_forward(
    x, weight, gamma, beta, out, x_strides, heads, num_in, num_out, sizes, new_sizes, stride, padding, eps,
    KERNEL: tl.constexpr, PREFIX: tl.constexpr, D: tl.constexpr, PAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Some pooled and normed tokens of one head."""
    channels = tl.arange(0, PAD)
    head, tokens = tokens_of(tl.program_id(0), num_out, BLOCK)
    start = x + (head // heads) * x_strides[0] + (head % heads) * x_strides[2]
    windows = corners(tokens, num_out, sizes, new_sizes, stride, padding, PREFIX)
    pooled = convolved(start, weight, windows, tokens, channels, x_strides[1], sizes, KERNEL, PREFIX, D, PAD, BLOCK)
    normed, _ = normalised(pooled, channels, eps, D)
    gamma = tl.load(gamma + channels, mask=channels < D, other=0.0).to(tl.float32)
    beta = tl.load(beta + channels, mask=channels < D, other=0.0).to(tl.float32)
    at = out + (head * num_out + tokens)[:, None] * D + channels[None, :]
    ok = (tokens < num_out)[:, None] & (channels < D)[None, :]
    tl.store(at, (normed * gamma[None, :] + beta[None, :]).to(out.dtype.element_ty), mask=ok)


@triton.jit
def tokens_of(tile, num, BLOCK: tl.constexpr):
    """The head of a tile, counted over the batch, and its tokens: tiles of a head come one after another."""
    count = tl.cdiv(num, BLOCK)
    return (tile // count).to(tl.int64), (tile % count) * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def corners(tokens, num_out, sizes, new_sizes, stride, padding, PREFIX: tl.constexpr):
    """Where the windows of output tokens start on every axis of the input, and which tokens have one."""
    place = tokens - PREFIX
    t = (place // (new_sizes[1] * new_sizes[2])) * stride[0] - padding[0]
    y = ((place // new_sizes[2]) % new_sizes[1]) * stride[1] - padding[1]
    x = (place % new_sizes[2]) * stride[2] - padding[2]
    return t, y, x, (place >= 0) & (tokens < num_out)


@triton.jit
def sources(windows, tap, sizes, KERNEL: tl.constexpr, PREFIX: tl.constexpr):
    """Which input token a tap of the kernel sees from every window, and whether there is one."""
    t = windows[0] + tap // (KERNEL[1] * KERNEL[2])
    y = windows[1] + (tap // KERNEL[2]) % KERNEL[1]
    x = windows[2] + tap % KERNEL[2]
    inside = (t >= 0) & (t < sizes[0]) & (y >= 0) & (y < sizes[1]) & (x >= 0) & (x < sizes[2])
    return PREFIX + (t * sizes[1] + y) * sizes[2] + x, inside & windows[3]


@triton.jit
def load_rows(start, rows, ok, channels, stride, D: tl.constexpr):
    """Rows of tokens in float32; zeros where there are none."""
    at = start + rows[:, None] * stride + channels[None, :]
    return tl.load(at, mask=ok[:, None] & (channels < D)[None, :], other=0.0).to(tl.float32)


@triton.jit
def load_tap(weight, tap, channels, TAPS: tl.constexpr, D: tl.constexpr):
    """A tap of the kernels of all channels, ``(D, TAPS)`` in memory."""
    return tl.load(weight + channels * TAPS + tap, mask=channels < D, other=0.0).to(tl.float32)


@triton.jit
def convolved(
    start, weight, windows, tokens, channels, x_stride, sizes,
    KERNEL: tl.constexpr, PREFIX: tl.constexpr, D: tl.constexpr, PAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Pooled tokens before the norm; the class token as it is."""
    TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    if PREFIX:
        total = load_rows(start, tokens, tokens < PREFIX, channels, x_stride, D)
    else:
        total = tl.zeros([BLOCK, PAD], tl.float32)
    for tap in range(TAPS):
        rows, ok = sources(windows, tap, sizes, KERNEL, PREFIX)
        seen = load_rows(start, rows, ok, channels, x_stride, D)
        total += seen * load_tap(weight, tap, channels, TAPS, D)[None, :]
    return total


@triton.jit
def normalised(x, channels, eps, D: tl.constexpr):
    """Rows with mean 0 and variance 1, and one over their deviation; zeros beyond the last channel."""
    centred = tl.where(channels[None, :] < D, x - (tl.sum(x, 1) / D)[:, None], 0.0)
    inverse = 1.0 / tl.sqrt_rn(tl.sum(centred * centred, 1) / D + eps)
    return centred * inverse[:, None], inverse
