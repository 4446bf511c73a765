"""The small layers blocks are made of: MLP, stochastic depth, layer scale, norms, poolings."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import MViTConfig
from .grid import Grid, Layer, attention_pool, half, one_wider

CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
MAX_POOL: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVG_POOL: dict[int, type[nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
BATCH_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class MLP(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, dim_in: int, dim_hidden: int, dim_out: int, *, bias: bool = True, dropout: float = 0.0):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim_in, dim_hidden, bias), nn.Linear(dim_hidden, dim_out, bias)
        self.act, self.drop = nn.GELU(), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim_in) -> (..., dim_out)``."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class DropPath(nn.Module):
    """Stochastic depth: drop the whole branch for some samples of the batch, scale it up for the rest."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``(B, ...) -> (B, ...)``; the identity in eval mode."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * (x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep) / keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


def branch_scale(value: float | None, dim: int) -> nn.Parameter | None:
    """Layer scale of a branch with ``dim`` channels; ``None`` without."""
    return None if value is None else nn.Parameter(torch.full((dim,), value))


def scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    """A branch ``(..., C)`` times its layer scale ``(C,)``."""
    return x if gamma is None else x * gamma


class TokenBatchNorm(nn.BatchNorm1d):
    """Batch norm over tokens ``(B, L, C)``; its parameters lie in state dicts as those of any batch norm."""

    def forward(self, input: Tensor) -> Tensor:
        """``(B, L, C) -> (B, L, C)``."""
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


def token_norm(config: MViTConfig, dim: int) -> nn.Module:
    """The norm of a stream of tokens."""
    return nn.LayerNorm(dim, eps=config.norm_eps) if config.norm == "layer" else TokenBatchNorm(dim)


def token_pool(config: MViTConfig, dim: int, kernel: Grid | None, stride: Grid) -> tuple[Layer | None, Layer | None]:
    """The pooling and the norm of queries, keys or values with ``dim`` channels; ``None`` for what is left out.

    Convolutions are depthwise unless dense, without bias, and followed by a norm; average (zeros included) and max
    pooling have neither weights nor norm (mvit ``attention.py:140-160``).
    """
    if kernel is None:
        return None, None
    rank = len(kernel)
    if config.pool_mode == "avg":
        return AVG_POOL[rank](kernel, stride, half(kernel)), None
    if config.pool_mode == "max":
        return MAX_POOL[rank](kernel, stride, half(kernel)), None
    groups = 1 if config.pool_mode == "conv_dense" else dim
    conv = CONV[rank](dim, dim, kernel, stride, half(kernel), groups=groups, bias=False)
    norm = nn.LayerNorm(dim, eps=config.norm_eps) if config.norm == "layer" else BATCH_NORM[rank](dim)
    return conv, norm


def skip_pool(stride: Grid) -> nn.Module | None:
    """Max-pooling that keeps a shortcut on the grid of the pooled queries; ``None`` where nothing is strided.

    With a kernel one wider than the stride it lands on the same grid as the query pooling (mvit ``attention.py:371``).
    """
    if max(stride) == 1:
        return None
    kernel = one_wider(stride)
    return MAX_POOL[len(stride)](kernel, stride, half(kernel))


PoolTokens = Callable[[Tensor, Grid, Layer | None, Layer | None], tuple[Tensor, Grid]]


def pool_then_norm(x: Tensor, grid: Grid, pool: Layer | None, norm: Layer | None) -> tuple[Tensor, Grid]:
    """The authors' order: pool grid tokens, then norm them and the class token."""
    return attention_pool(x, pool, grid, norm)


def norm_then_pool(x: Tensor, grid: Grid, pool: Layer | None, norm: Layer | None) -> tuple[Tensor, Grid]:
    """pytorchvideo's order with batch norm: norm and GELU of grid tokens, then pool (its ``norm_before_pool``)."""
    if pool is None or norm is None:
        return attention_pool(x, pool, grid)
    return attention_pool(x, lambda lattice: pool(F.gelu(norm(lattice))), grid)


POOL_TOKENS: dict[str, PoolTokens] = {"layer": pool_then_norm, "batch": norm_then_pool}
