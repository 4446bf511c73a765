"""Linear layers whose products on a CPU are made by what is fastest there, forward and backward.

Where the processor has matrix units (AMX) and there are C++ operators, these make the products: of bfloat16, and of
float32 as six products of bfloat16 parts, which is as exact. Else float32 is oneDNN's where PyTorch would ask MKL,
which keeps its fastest kernels for Intel's processors: on an AMD EPYC (Zen 5, one thread) it gave 105 GFLOP/s where
oneDNN gave 235. In bfloat16 PyTorch asks oneDNN itself.

Without gradients, and with matrix units, oneDNN is asked in one call that adds the bias: on a Xeon (one thread, layers
of MViTv2-S) it took 0.5 to 1.0 times as long as PyTorch's own in both precisions, and less than the C++ operators,
which pack the weight first, except in float32 from 128 inputs on (196 inputs, 384 to 1536 channels: 1.7 to 1.3 ms; 49
inputs, 768 to 3072: 2.5 to 4.0).

With gradients in float32, MKL is faster than the C++ operators below 128 inputs in both directions (392 inputs, 384 to
1536 channels: 2.6 to 1.9 ms), and for the gradient of the weight if it sums over many (8 to 13 ms for 12544 inputs, 96
to 288 channels; for 784 inputs, 384 to 1536 channels, it takes 6.0 where they take 4.4).
"""

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import cpp
from .constant import constant

FEWEST_ROWS = 64
"""Below this many inputs, packing the weight for the matrix units costs more than they save."""

MANY_ROWS = 128
"""From this many on it pays in float32."""

DEEPEST_SUM = 4096
"""Up to this many inputs, the gradient of a weight is faster by the matrix units in float32 too."""


class Linear(nn.Linear):
    """``nn.Linear`` by the fastest product on a CPU, by PyTorch's own choice anywhere else; parameters are the same."""

    def forward(self, input: Tensor) -> Tensor:
        """``(..., in_features) -> (..., out_features)``."""
        if not plain(input, self.weight):
            return F.linear(input, self.weight, self.bias)
        if suits_one_call(input, self.weight, self.bias):
            return product(input, self.weight, self.bias)
        if suits_tiles(input, self.weight):
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
            return TileProduct.apply(input.to(dtype), self.weight, self.bias)  # pyright: ignore[reportReturnType]
        if suits(input, self.weight) and by_onednn():
            return Product.apply(input, self.weight, self.bias)  # pyright: ignore[reportReturnType]
        return F.linear(input, self.weight, self.bias)


def pays() -> bool:
    """Whether anything is faster here than what PyTorch would take; nothing is built to find out."""
    return by_onednn() or torch.cpu._is_amx_tile_supported()


@constant
def by_onednn() -> bool:
    """Whether oneDNN's float32 is faster than what PyTorch would take: MKL, on a processor that is not Intel's."""
    return mkl_is_slow()


@cache
def mkl_is_slow() -> bool:
    """:func:`by_onednn`, found out once: a graph that is traced may call no function that remembers."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    info = Path("/proc/cpuinfo")
    maker = info.read_text() if info.exists() else platform.processor()
    return "GenuineIntel" not in maker and not platform.processor().startswith("Intel")


def plain(x: Tensor, weight: Tensor) -> bool:
    """Whether these are plain tensors on a CPU, and nothing is being exported."""
    known = type(x) in (Tensor, nn.Parameter) and type(weight) in (Tensor, nn.Parameter)
    return known and x.device.type == "cpu" and x.numel() > 0 and not torch.compiler.is_exporting()


def suits_one_call(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether oneDNN's own linear layer is the fastest for these plain tensors: no gradients, and matrix units."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or x.dtype != weight.dtype:
        return False
    given = (x, weight) if bias is None else (x, weight, bias)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return False
    if not (torch.backends.mkldnn.is_available() and torch.cpu._is_amx_tile_supported()):
        return False
    if x.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return x.dtype == torch.float32 and (x.numel() < MANY_ROWS * x.shape[-1] or not cpp.has_tiles())


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether :class:`Product` takes these plain tensors."""
    return not torch.is_autocast_enabled("cpu") and x.dtype == weight.dtype == torch.float32


def suits_tiles(x: Tensor, weight: Tensor) -> bool:
    """Whether :class:`TileProduct` takes these plain tensors: enough of them, in float32 or bfloat16."""
    if x.numel() < FEWEST_ROWS * x.shape[-1] or weight.dtype not in cpp.DTYPES or x.dtype not in cpp.DTYPES:
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16 and cpp.has_tiles()
    return x.dtype == weight.dtype and cpp.has_tiles()


class Product(torch.autograd.Function):
    """``x W^T + b`` and its gradients, three products of oneDNN."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``(..., i)``, ``(o, i)`` and ``(o,)`` to ``(..., o)``."""
        return product(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the gradients need."""
        x, weight, bias = inputs
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``x``, ``W`` and ``b``, those that are asked for."""
        x, weight = ctx.saved_tensors
        rows = dy.flatten(0, -2)
        dx = product(dy, weight.t(), None) if ctx.needs_input_grad[0] else None
        dweight = product(rows.t(), x.flatten(0, -2).t(), None) if ctx.needs_input_grad[1] else None
        dbias = rows.sum(0) if ctx.biased and ctx.needs_input_grad[2] else None
        return dx, dweight, dbias


class TileProduct(torch.autograd.Function):
    """``x W^T + b`` and its gradients, three products by the matrix units; a float32 weight is rounded to x's type.

    In float32 PyTorch's own product is taken where it is faster: for few rows, and for the gradient of the weight.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``(..., i)``, ``(o, i)`` and ``(o,)`` to ``(..., o)``."""
        rows = x.reshape(-1, x.shape[-1])
        if packing_costs(rows):
            return F.linear(x, weight, bias)
        y = torch.ops.mvitv2_cpu.tile_matmul(rows, weight.t(), bias, x.dtype)
        return y.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the gradients need."""
        x, weight, bias = inputs
        ctx.save_for_backward(x, weight)
        ctx.bias_dtype = None if bias is None else bias.dtype

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``x``, ``W`` and ``b``, those that are asked for."""
        x, weight = ctx.saved_tensors
        rows, multiply = dy.reshape(-1, dy.shape[-1]), torch.ops.mvitv2_cpu.tile_matmul
        wants = ctx.needs_input_grad
        dx = dweight = None
        if wants[0]:
            dx = (rows @ weight if packing_costs(rows) else multiply(rows, weight, None, x.dtype)).view(x.shape)
        if wants[1]:
            dweight = gradient_of_weight(rows, x.reshape(-1, x.shape[-1]), weight.dtype)
        dbias = torch.ops.mvitv2_cpu.column_sums(rows).to(ctx.bias_dtype) if ctx.bias_dtype and wants[2] else None
        return dx, dweight, dbias


def gradient_of_weight(dy: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """``(N, o)`` and ``(N, i)`` to ``(o, i)``; in float32 by PyTorch's own product where it is faster."""
    if dy.dtype == torch.float32 and x.shape[0] > DEEPEST_SUM:
        return dy.t() @ x
    return torch.ops.mvitv2_cpu.tile_matmul(dy.t(), x, None, dtype)


def packing_costs(rows: Tensor) -> bool:
    """Whether packing a weight in float32 for the matrix units costs more than they save for so few rows."""
    return rows.dtype == torch.float32 and rows.shape[0] < MANY_ROWS


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x W^T + b`` by oneDNN, any strides."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "none")
