"""Both layers of an MLP in training on a CPU with matrix units: GELU and its slope where products write.

What lies between the layers is the largest of a block's activations. Here it is written with its GELU in one pass, and
its gradient leaves the product of the second layer as that of the first: three passes over memory less.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mvitv2.core.layers import MLP

from .linear import Linear, gradient_of_weight, packing_costs, plain, suits_tiles


class FusedMLP(MLP):
    """The MLP of a block; parameters, and what it computes, are the same."""

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim_in) -> (..., dim_out)``."""
        if not self.fuses(x):
            return super().forward(x)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        rows = x.to(dtype).reshape(-1, x.shape[-1])
        y = TileMLP.apply(rows, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)
        return y.view(*x.shape[:-1], -1)  # pyright: ignore[reportAttributeAccessIssue]

    def fuses(self, x: Tensor) -> bool:
        """Whether gradients are recorded, of plain layers that nobody looks into, for rows that pay."""
        wants = x.requires_grad or any(parameter.requires_grad for parameter in self.parameters())
        if not (wants and torch.is_grad_enabled()) or torch.compiler.is_compiling():
            return False
        layers = (self.fc1, self.act, self.drop, self.fc2)
        if any(watched(layer) for layer in layers) or type(self.fc1) is not Linear or type(self.fc2) is not Linear:
            return False
        if type(self.act) is not nn.GELU or self.act.approximate != "none" or (self.drop.training and self.drop.p > 0):
            return False
        if not (plain(x, self.fc1.weight) and plain(x, self.fc2.weight) and suits_tiles(x, self.fc1.weight)):
            return False
        return torch.is_autocast_enabled("cpu") or not packing_costs(x.reshape(-1, x.shape[-1]))


def watched(layer: nn.Module) -> bool:
    """Whether hooks of a layer want to see what goes through it."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)


class TileMLP(torch.autograd.Function):
    """``gelu(x A^T + a) B^T + b`` and its gradients; float32 weights are rounded to the type of ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, a_bias: Tensor | None, b: Tensor, b_bias: Tensor | None) -> Tensor:
        """``(N, i)``, ``(m, i)``, ``(m,)``, ``(o, m)`` and ``(o,)`` to ``(N, o)``."""
        before, after = torch.ops.mvitv2_cpu.tile_gelu_matmul(x, a.t(), a_bias)
        ctx.save_for_backward(x, a, b, before, after)
        ctx.bias_dtypes = [None if bias is None else bias.dtype for bias in (a_bias, b_bias)]
        return torch.ops.mvitv2_cpu.tile_matmul(after, b.t(), b_bias, x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all five, those that are asked for."""
        x, a, b, before, after = ctx.saved_tensors
        wants, dtypes = ctx.needs_input_grad, ctx.bias_dtypes
        d_b = gradient_of_weight(dy, after, b.dtype) if wants[3] else None
        d_b_bias = torch.ops.mvitv2_cpu.column_sums(dy).to(dtypes[1]) if dtypes[1] and wants[4] else None
        if not any(wants[:3]):
            return None, None, None, d_b, d_b_bias
        d_before = torch.ops.mvitv2_cpu.tile_slope_matmul(dy, b, before)
        dx = torch.ops.mvitv2_cpu.tile_matmul(d_before, a, None, x.dtype) if wants[0] else None
        d_a = gradient_of_weight(d_before, x, a.dtype) if wants[1] else None
        d_a_bias = torch.ops.mvitv2_cpu.column_sums(d_before).to(dtypes[0]) if dtypes[0] and wants[2] else None
        return dx, d_a, d_a_bias, d_b, d_b_bias
