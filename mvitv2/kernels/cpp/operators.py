"""The C++ operators as part of PyTorch: loaded at first use, with shapes for tracing and gradients for training."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from mvitv2.kernels.constant import constant

from .build import BuildError, library

NAMESPACE = "mvitv2_cpu"


@constant
def load() -> bool:
    """Build the operators if need be, and make them known to PyTorch; always true.

    Raises:
        BuildError: They cannot be had; the message says why.
    """
    reason = missing()
    if reason is not None:
        raise BuildError(reason)
    return True


@constant
def available() -> bool:
    """Whether the operators can be had here; builds them to find out."""
    return missing() is None


@cache
def missing() -> str | None:
    """Why the operators cannot be had, asked once per process; ``None`` if they can, and then they are loaded."""
    try:
        torch.ops.load_library(str(library()))
    except BuildError as error:
        return str(error)
    except OSError as error:
        return f"the C++ operators were built, but cannot be loaded: {error}"
    register()
    return None


@constant
@cache
def instructions() -> str:
    """What products are made of here: ``"AMX"`` where there are matrix units, else vectors; ``"none"`` if not built."""
    return torch.ops.mvitv2_cpu.instructions() if missing() is None else "none"


@constant
def has_tiles() -> bool:
    """Whether the operators whose names begin with ``tile_`` run here: they need matrix units."""
    return instructions() == "AMX"


def register() -> None:
    """Shapes without data, and gradients."""
    torch.library.register_fake(f"{NAMESPACE}::pool_norm", _pooled_shape)
    torch.library.register_fake(f"{NAMESPACE}::pool_norm_backward", _pooled_gradient_shapes)
    torch.library.register_fake(f"{NAMESPACE}::attend", _attended_shape)
    torch.library.register_fake(f"{NAMESPACE}::attend_backward", _attended_gradient_shapes)
    torch.library.register_fake(f"{NAMESPACE}::max_pool", _max_pooled_shape)
    torch.library.register_fake(f"{NAMESPACE}::max_pool_backward", _max_pooled_gradient_shape)
    torch.library.register_fake(f"{NAMESPACE}::tile_matmul", _product_shape)
    torch.library.register_fake(f"{NAMESPACE}::tile_gelu_matmul", _activated_shapes)
    torch.library.register_fake(f"{NAMESPACE}::tile_slope_matmul", _sloped_shape)
    torch.library.register_fake(f"{NAMESPACE}::column_sums", _sums_shape)
    torch.library.register_autograd(f"{NAMESPACE}::max_pool", _max_pool_gradient, setup_context=_keep_max_pooling)
    torch.library.register_autograd(f"{NAMESPACE}::pool_norm", _pool_norm_gradient, setup_context=_keep_pooling)
    torch.library.register_autograd(f"{NAMESPACE}::attend", _attend_gradient, setup_context=_keep_attention)


def _pooled_shape(x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, *sizes: Any) -> Tensor:
    before, after = _tokens(*sizes[:4])
    return x.new_empty(x.shape[0], x.shape[1] - before + after, x.shape[2], x.shape[3])


def _tokens(grid: Any, kernel: Any, stride: Any, padding: Any) -> tuple[int, int]:
    before, after = 1, 1
    for n, k, s, p in zip(grid, kernel, stride, padding, strict=True):
        before, after = before * n, after * ((n + 2 * p - k) // s + 1)
    return before, after


def _max_pooled_shape(x: Tensor, *sizes: Any) -> Tensor:
    return x.new_empty(x.shape[0], _tokens(*sizes)[1], x.shape[2])


def _max_pooled_gradient_shape(dy: Tensor, x: Tensor, *sizes: Any) -> Tensor:
    return x.new_empty(x.shape)


def _product_shape(a: Tensor, b: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1], dtype=dtype)


def _activated_shapes(a: Tensor, b: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    return a.new_empty(a.shape[0], b.shape[1]), a.new_empty(a.shape[0], b.shape[1])


def _sloped_shape(a: Tensor, b: Tensor, before: Tensor) -> Tensor:
    return before.new_empty(before.shape)


def _sums_shape(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[1], dtype=torch.float32)


def _keep_max_pooling(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.sizes = inputs
    ctx.save_for_backward(x)


def _max_pool_gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    (x,) = ctx.saved_tensors
    return torch.ops.mvitv2_cpu.max_pool_backward(dy, x, *ctx.sizes), *[None] * len(ctx.sizes)


def _pooled_gradient_shapes(dy: Tensor, x: Tensor, weight: Tensor, gamma: Tensor, *sizes: object) -> tuple[Tensor, ...]:
    like = weight.new_empty
    return x.new_empty(x.shape), like(weight.shape), like(gamma.shape), like(gamma.shape)


def _attended_shape(q: Tensor, k: Tensor, v: Tensor, terms: list[Tensor], residual_from: int) -> tuple[Tensor, Tensor]:
    b, h, queries, d = q.shape
    return q.new_empty(b, queries, h, d), q.new_empty(b, h, queries, dtype=torch.float32)


def _attended_gradient_shapes(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, terms: list[Tensor], *others: Any
) -> list[Tensor]:
    tokens = [x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in (q, k, v)]
    return [*tokens, *(term.new_empty(term.shape) for term in terms)]


def _keep_pooling(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, gamma, _, *ctx.sizes = inputs
    ctx.save_for_backward(x, weight, gamma)


def _pool_norm_gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.mvitv2_cpu.pool_norm_backward(dy, *ctx.saved_tensors, *ctx.sizes)
    return (*gradients, *[None] * len(ctx.sizes))


def _keep_attention(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, terms, ctx.residual_from = inputs
    ctx.save_for_backward(q, k, v, *terms, output[1])


def _attend_gradient(ctx: Any, dy: Tensor, _dlse: Tensor | None) -> tuple[Any, ...]:
    q, k, v, *terms, lse = ctx.saved_tensors
    given = torch.ops.mvitv2_cpu.attend_backward(dy, q, k, v, terms, lse, ctx.residual_from)
    return given[0], given[1], given[2], list(given[3:]), None
