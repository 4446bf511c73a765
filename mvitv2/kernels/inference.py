"""A model made ready for inference on a CPU: packed weights, and no pass over memory that a product makes on its way.

A block's layer norms are applied where the next product reads their input, GELU and the residual where a product
writes. Weights lie in the layout of the processor's matrix units where there are such, else in oneDNN's.
"""

import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from mvitv2.core.attention import MultiScaleAttention, PoolFirstAttention
from mvitv2.core.grid import Grid, over_grid
from mvitv2.core.layers import MLP
from mvitv2.core.model import MultiScaleBlock, PatchEmbed, Tokens

from . import cpp
from .at_once import at_once
from .cpp.remembered import remember
from .linear import Linear
from .packed import Extras, PackedLinear

Model = TypeVar("Model", bound=nn.Module)
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def optimize_for_inference(model: Model, *, dtype: torch.dtype | None = None) -> Model:
    """A copy of a model that is as fast as this package makes it, and computes the same in eval mode.

    The copy runs by ``"auto"`` and its parameters ask for no gradients; float32 outputs move by rounding only. State
    dicts have the same names and values, and the given model is untouched. Weights are held twice: as they are, and
    packed.

    Args:
        model: Any model of this package.
        dtype: Of the copy; unchanged if not given. Inputs must have it too.
    """
    from . import use

    twin = use(copy.deepcopy(model), "auto").eval().requires_grad_(False)
    twin = twin if dtype is None else twin.to(dtype)
    for module in twin.modules():
        if type(module) in (nn.Linear, Linear):
            module.__class__ = PackedLinear
            cast(PackedLinear, module).unpacked()
    for module in twin.modules():
        if isinstance(module, MLP) and type(module.act) is nn.GELU and module.act.approximate == "none":
            cast(PackedLinear, module.fc1).activation = "gelu"
            module.add_module("act", nn.Identity())
    remember(twin)
    for module in twin.modules():
        if isinstance(module, PatchEmbed):  # tokens then lie side by side
            module.to(memory_format=CHANNELS_LAST[module.rank])
        if type(module) is MultiScaleBlock and fuses(module):
            module.__class__ = FusedBlock
            cast(FusedBlock, module).move_first_norm()
    return twin


def fuses(block: MultiScaleBlock) -> bool:
    """Whether a block is made of what :class:`FusedBlock` joins: layer norms, GELU, packed weights, no layer scale."""
    norms = (block.norm1, block.norm2)
    if block.gamma_1 is not None or block.gamma_2 is not None or any(type(n) is not nn.LayerNorm for n in norms):
        return False
    linears = (block.attn.proj, block.mlp.fc1, block.mlp.fc2)
    return all(type(layer) is PackedLinear for layer in linears) and type(block.mlp.act) is nn.Identity


class FusedBlock(MultiScaleBlock):
    """A block in eval mode whose residuals and norms are parts of products."""

    first_norm_moved: bool

    def move_first_norm(self) -> None:
        """Leave the norm before attention to its first products, where attention begins with products."""
        attn = cast(MultiScaleAttention, self.attn)
        self.first_norm_moved = not isinstance(attn, PoolFirstAttention)
        for name in ("qkv", "q", "k", "v") if self.first_norm_moved else ():
            if isinstance(layer := getattr(attn, name, None), PackedLinear):
                layer.before = (cast(nn.LayerNorm, self.norm1),)

    def forward(self, x: Tensor, grid: Grid) -> Tokens:
        """``(B, L, dim_in)`` on ``grid`` to ``(B, L', dim_out)`` on the grid of the pooled queries.

        Raises:
            RuntimeError: In training mode.
        """
        if self.training:
            raise RuntimeError(
                "a model from optimize_for_inference is in training mode; call eval(), or train the original"
            )
        spec, attn = self.spec, cast(MultiScaleAttention, self.attn)
        skip = self.widened(x, self.norm1) if spec.dim_attn != spec.dim_in else x
        if self.pool_skip is not None:
            skip, _ = over_grid(skip, grid, self.pool_skip)
        y, grid = at_once(attn, x, grid) or attn.run(attn, x if self.first_norm_moved else self.norm1(x), grid)
        x = cast(PackedLinear, attn.proj).product(y, Extras(residual=skip))

        skip = self.widened(x, self.norm2) if spec.dim_out != spec.dim_attn else x
        return self.mlp_product(x, skip), grid

    def mlp_product(self, x: Tensor, skip: Tensor) -> Tensor:
        """``(B, L, dim_attn)`` through norm and MLP, added to the shortcut ``(B, L, dim_out)``."""
        fc1, fc2 = cast(PackedLinear, self.mlp.fc1), cast(PackedLinear, self.mlp.fc2)
        norm = cast(nn.LayerNorm, self.norm2)
        if not (cpp.has_tiles() and fc1.suits(x) and fc2.suits(x)):
            return fc2.product(fc1.product(x, Extras(norm=norm)), Extras(residual=skip))
        first, last = fc1.tiles(), fc2.tiles()
        return torch.ops.mvitv2_cpu.tile_mlp(
            x, *first, fc1.out_features, *last, fc2.out_features, skip, *fc1.vectors(norm), norm.eps
        )

    def widened(self, x: Tensor, norm: nn.Module) -> Tensor:
        """The shortcut where channels double."""
        return cast(PackedLinear, self.proj).product(x, Extras(norm=cast(nn.LayerNorm, norm)))
