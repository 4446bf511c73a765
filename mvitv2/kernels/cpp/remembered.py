"""What inference would make anew at every call, made once: weights of poolings and rows of position tables.

The classes are those of the core in another form, taken by :func:`mvitv2.kernels.optimize_for_inference`; what was made
is forgotten when parameters move, change their precision or are loaded, and is no part of a pickle.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mvitv2.core.attention import MultiScaleAttention, SeparateAttention
from mvitv2.core.grid import Grid
from mvitv2.core.relpos import traced

MOST = 64
"""Pairs of grids whose rows are kept; models that see more sizes begin again."""


class Remembering(nn.Module):
    """A module with a memory of what was made from its parameters."""

    made: dict[Any, Any]

    def forget(self) -> None:
        """Make everything anew at the next call."""
        self.made = {}

    def _apply(self, *arguments: Any, **options: Any) -> "Remembering":
        self.forget()
        return super()._apply(*arguments, **options)

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        self.forget()
        super()._load_from_state_dict(*arguments, **options)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "made": {}}


class RememberingAttention(Remembering, MultiScaleAttention):
    """Attention that keeps the rows of its tables for every pair of grids it met."""

    def rows(self, axis: str, q_grid: Grid, k_grid: Grid) -> Tensor:
        """:meth:`MultiScaleAttention.rows`, made once where no gradient is asked for."""
        table = getattr(self, f"rel_pos_{axis}")
        if traced(table) or (torch.is_grad_enabled() and table.requires_grad):
            return super().rows(axis, q_grid, k_grid)
        key = (axis, q_grid, k_grid)
        if key not in self.made:
            if len(self.made) >= MOST:
                self.forget()
            with torch.inference_mode(False), torch.no_grad():
                self.made[key] = super().rows(axis, q_grid, k_grid)
        return self.made[key]


class RememberingSeparateAttention(RememberingAttention, SeparateAttention):
    """The same with three projections."""


class RememberingPool(Remembering):
    """A depthwise pooling whose weights, and those of the norm after it, lie as the C++ operator reads them."""

    def vectors(self, norm: nn.LayerNorm) -> tuple[Tensor, Tensor, Tensor]:
        """:func:`pool_vectors`, made once where no gradient is asked for."""
        weight = self.get_parameter("weight")
        if traced(weight) or (torch.is_grad_enabled() and (weight.requires_grad or norm.weight.requires_grad)):
            return pool_vectors(self, norm)
        if not self.made:
            with torch.inference_mode(False), torch.no_grad():
                self.made["vectors"] = pool_vectors(self, norm)
        return self.made["vectors"]


class RememberingConv2d(RememberingPool, nn.Conv2d):
    """A pooling of images."""


class RememberingConv3d(RememberingPool, nn.Conv3d):
    """A pooling of clips."""


KINDS: dict[type[nn.Module], type[Remembering]] = {
    MultiScaleAttention: RememberingAttention,
    SeparateAttention: RememberingSeparateAttention,
}
POOLINGS: dict[type[nn.Module], type[Remembering]] = {nn.Conv2d: RememberingConv2d, nn.Conv3d: RememberingConv3d}


def remember(model: nn.Module) -> None:
    """Give every attention of a model, and its poolings, a memory."""
    for module in model.modules():
        if not isinstance(module, MultiScaleAttention):
            continue
        parts: tuple[Any, ...] = (module, module.pool_q, module.pool_k, module.pool_v)
        for part in parts:
            if kind := {**KINDS, **POOLINGS}.get(type(part)):
                part.__class__ = kind
                part.forget()


def pool_vectors(pool: nn.Module, norm: nn.LayerNorm) -> tuple[Tensor, Tensor, Tensor]:
    """Weights ``(taps, d)``, scale and offset ``(d,)`` of a pooling and its norm, in float32."""
    weight = pool.get_parameter("weight").float().flatten(1).t().contiguous()
    return weight, norm.weight.float(), norm.bias.float()
