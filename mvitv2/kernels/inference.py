"""A model made ready for inference on a CPU: packed weights, and no pass over memory that a product makes on its way.

A block's layer norms are applied where the next product reads their input, GELU and the residual where a product
writes. Weights lie in the layout of the processor's matrix units where there are such, else in oneDNN's.
"""

import copy
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvitv2.core.attention import MultiScaleAttention, PoolFirstAttention
from mvitv2.core.grid import Grid, over_grid
from mvitv2.core.layers import MLP
from mvitv2.core.model import MultiScaleBlock, PatchEmbed, Tokens

from . import cpp
from .cpp.remembered import remember
from .linear import Linear

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


@dataclass(frozen=True)
class Extras:
    """What a packed product does beside multiplying.

    Attributes:
        norm: Layer norm of its input.
        residual: Added to its result.
    """

    norm: nn.LayerNorm | None = None
    residual: Tensor | None = None


NOTHING = Extras()


class PackedLinear(nn.Linear):
    """``nn.Linear`` whose weight is also kept in the layout products read, made at the first call.

    Attributes:
        activation: ``"none"``, or ``"gelu"`` for one in the same pass.
    """

    activation: str
    packed: Tensor | None
    shift: Tensor | None
    """The bias in float32, as products add it; made with what is packed."""
    affine: tuple[Tensor, Tensor] | None
    """Both vectors of the norm before, so too."""
    before: tuple[nn.LayerNorm, ...]
    """A norm of every input, in a tuple: as a submodule it would get a second name in state dicts."""

    def unpacked(self, activation: str = "none") -> None:
        """Forget what was packed, and set the activation."""
        self.activation, self.before = activation, ()
        self.forget()

    def forget(self) -> None:
        """What was made from parameters is made again at the next call."""
        self.packed = self.shift = self.affine = None

    def forward(self, input: Tensor) -> Tensor:
        """``(..., in_features) -> (..., out_features)``."""
        return self.product(input, Extras(norm=self.before[0]) if self.before else NOTHING)

    def product(self, x: Tensor, extras: Extras) -> Tensor:
        """``(..., in_features) -> (..., out_features)``, normed before, activated and added to after it."""
        if not self.suits(x):
            return self.plainly(x, extras)
        if cpp.has_tiles():
            return self.by_tiles(x, extras)
        x = x if extras.norm is None else extras.norm(x)
        if self.packed is None:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), None)
        y = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, self.activation, [], "none")
        return y if extras.residual is None else extras.residual + y

    def plainly(self, x: Tensor, extras: Extras) -> Tensor:
        """The same by PyTorch's own layers."""
        x = x if extras.norm is None else extras.norm(x)
        y = F.linear(x, self.weight, self.bias)
        y = F.gelu(y) if self.activation == "gelu" else y
        return y if extras.residual is None else extras.residual + y

    def by_tiles(self, x: Tensor, extras: Extras) -> Tensor:
        """The same by the matrix units."""
        given = (x, *self.tiles(), self.out_features, self.activation == "gelu", extras.residual)
        norm = extras.norm
        if norm is None:
            return torch.ops.mvitv2_cpu.tile_linear(*given, None, None, 0.0)
        return torch.ops.mvitv2_cpu.tile_linear(*given, *self.vectors(norm), norm.eps)

    def tiles(self) -> tuple[Tensor, Tensor | None]:
        """The weight as the matrix units read it, and the bias; made once."""
        if self.packed is None:
            self.packed = torch.ops.mvitv2_cpu.tile_pack(self.weight.detach())
            self.shift = None if self.bias is None else self.bias.detach().float()
        return self.packed, self.shift

    def vectors(self, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
        """Scale and offset of the norm before, in float32; made once."""
        if self.affine is None:
            self.affine = norm.weight.detach().float(), norm.bias.detach().float()
        return self.affine

    def suits(self, x: Tensor) -> bool:
        """Whether packed weights multiply this: on a CPU, of the weight's precision, with no gradient asked for."""
        if type(x) is not Tensor or x.device.type != "cpu" or x.dtype != self.weight.dtype or x.numel() == 0:
            return False
        if torch.compiler.is_compiling() or (torch.is_grad_enabled() and x.requires_grad):
            return False
        if not torch.backends.mkldnn.is_available() or torch.is_autocast_enabled("cpu"):
            return False
        bfloat16 = x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return x.dtype == torch.float32 or bfloat16

    def _apply(self, *arguments: Any, **options: Any) -> "PackedLinear":
        self.forget()  # the weight moves, or changes its precision
        return super()._apply(*arguments, **options)

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        self.forget()
        super()._load_from_state_dict(*arguments, **options)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "packed": None, "shift": None, "affine": None}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation}"


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
        y, grid = attn.run(attn, x if self.first_norm_moved else self.norm1(x), grid)
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
