"""Max-pooling of shortcuts on tokens as they lie: PyTorch's keeps indices that inference never asks for."""

from typing import Any

import torch
from torch import Tensor, nn

from . import cpp

AXES = 3


class MaxPool2d(nn.MaxPool2d):
    """``nn.MaxPool2d`` by the C++ operator for lattices with channels last, in float32 and bfloat16 on a CPU."""

    def forward(self, input: Tensor) -> Any:
        """``(B, C, H, W) -> (B, C, H', W')``."""
        return over_tokens(self, input) if suits(self, input) else super().forward(input)


class MaxPool3d(nn.MaxPool3d):
    """``nn.MaxPool3d`` by the C++ operator, as :class:`MaxPool2d`."""

    def forward(self, input: Tensor) -> Any:
        """``(B, C, T, H, W) -> (B, C, T', H', W')``."""
        return over_tokens(self, input) if suits(self, input) else super().forward(input)


PLAIN: dict[type[nn.Module], type[nn.Module]] = {MaxPool2d: nn.MaxPool2d, MaxPool3d: nn.MaxPool3d}
FAST: dict[type[nn.Module], type[nn.Module]] = {plain: fast for fast, plain in PLAIN.items()}


def suits(pool: nn.MaxPool2d | nn.MaxPool3d, x: Tensor) -> bool:
    """Whether the operator takes this: tokens in memory as the core has them, nothing being exported."""
    plain = pool.dilation == 1 and not pool.ceil_mode and not pool.return_indices
    rank = 2 if isinstance(pool, nn.MaxPool2d) else 3
    if not plain or x.ndim != rank + 2 or x.device.type != "cpu" or x.dtype not in cpp.DTYPES or x.numel() == 0:
        return False
    if torch.compiler.is_exporting() or not isinstance(x.stride(1), int) or x.stride(1) != 1:
        return False
    return cpp.available()


def over_tokens(pool: nn.MaxPool2d | nn.MaxPool3d, x: Tensor) -> Tensor:
    """``(B, C, *grid) -> (B, C, *grid')``, both with channels side by side in memory."""
    rank = x.ndim - 2
    tokens = x.flatten(2).transpose(1, 2)
    ones = (1,) * (AXES - rank)
    kernel, stride = each(pool.kernel_size, rank), each(pool.stride, rank)
    padding = each(pool.padding, rank)
    sizes = (ones + tuple(x.shape[2:]), ones + kernel, ones + stride, (0,) * (AXES - rank) + padding)
    y = torch.ops.mvitv2_cpu.max_pool(tokens, *sizes)
    grid = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(x.shape[2:], kernel, stride, padding, strict=True)]
    return y.transpose(1, 2).unflatten(2, grid)


def each(size: int | tuple[int, ...], rank: int) -> tuple[int, ...]:
    """One number per axis."""
    return (size,) * rank if isinstance(size, int) else tuple(size)
