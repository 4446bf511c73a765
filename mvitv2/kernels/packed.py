"""Linear layers whose weights are kept in the layout that products read, with what a product does on its way."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import cpp


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
        packed = self.packed
        if packed is None:
            packed = self.packed = torch.ops.mvitv2_cpu.tile_pack(self.weight.detach())
            self.shift = None if self.bias is None else self.bias.detach().float()
        return packed, self.shift

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
        return by_onednn(x.dtype) and not torch.is_autocast_enabled("cpu")

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


@cache
def by_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies a type here."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
