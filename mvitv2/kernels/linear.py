"""Linear layers whose float32 products on a CPU are oneDNN's, where PyTorch would ask MKL.

MKL keeps its fastest float32 kernels for Intel's processors. On an AMD EPYC (Zen 5, one thread) it gave 105 GFLOP/s
where oneDNN gave 235, forward and backward alike. In bfloat16 PyTorch asks oneDNN itself.
"""

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """``nn.Linear`` by oneDNN in float32 on a CPU, by PyTorch's own choice anywhere else; parameters are the same."""

    def forward(self, input: Tensor) -> Tensor:
        """``(..., in_features) -> (..., out_features)``."""
        if not suits(input, self.weight):
            return F.linear(input, self.weight, self.bias)
        return Product.apply(input, self.weight, self.bias)  # pyright: ignore[reportReturnType]


@torch.compiler.assume_constant_result
@cache
def pays() -> bool:
    """Whether oneDNN is faster here than what PyTorch would take: MKL, on a processor that is not Intel's."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    info = Path("/proc/cpuinfo")
    maker = info.read_text() if info.exists() else platform.processor()
    return "GenuineIntel" not in maker and not platform.processor().startswith("Intel")


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether :class:`Product` takes these: plain float32 tensors on a CPU, nothing being exported."""
    plain = type(x) in (Tensor, nn.Parameter) and type(weight) in (Tensor, nn.Parameter)
    if not plain or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    return not torch.compiler.is_exporting() and x.dtype == weight.dtype == torch.float32 and x.numel() > 0


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


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x W^T + b`` by oneDNN, any strides."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "none")
