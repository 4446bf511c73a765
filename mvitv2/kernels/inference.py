"""A model made ready for inference on a CPU: weights in the layout oneDNN multiplies with, GELU in the same pass."""

import copy
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvitv2.core.layers import MLP

from .linear import Linear

Model = TypeVar("Model", bound=nn.Module)


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
    return twin


class PackedLinear(nn.Linear):
    """``nn.Linear`` whose weight is also kept in oneDNN's own layout, made at the first call; inference alone uses it.

    Attributes:
        activation: ``"none"``, or ``"gelu"`` for one in the same pass.
    """

    activation: str
    packed: Tensor | None

    def unpacked(self, activation: str = "none") -> None:
        """Forget what was packed, and set the activation."""
        self.activation, self.packed = activation, None

    def forward(self, input: Tensor) -> Tensor:
        """``(..., in_features) -> (..., out_features)``."""
        if not self.suits(input):
            y = F.linear(input, self.weight, self.bias)
            return F.gelu(y) if self.activation == "gelu" else y
        if self.packed is None:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), None)
        return torch.ops.mkldnn._linear_pointwise(input, self.packed, self.bias, self.activation, [], "none")

    def suits(self, x: Tensor) -> bool:
        """Whether oneDNN takes this input: on a CPU, of the weight's precision, with no gradient asked for."""
        if type(x) is not Tensor or x.device.type != "cpu" or x.dtype != self.weight.dtype or x.numel() == 0:
            return False
        if torch.compiler.is_compiling() or (torch.is_grad_enabled() and x.requires_grad):
            return False
        if not torch.backends.mkldnn.is_available() or torch.is_autocast_enabled("cpu"):
            return False
        bfloat16 = x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return x.dtype == torch.float32 or bfloat16

    def _apply(self, *arguments: Any, **options: Any) -> "PackedLinear":
        self.packed = None  # the weight moves, or changes its precision
        return super()._apply(*arguments, **options)

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        self.packed = None
        super()._load_from_state_dict(*arguments, **options)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "packed": None}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation}"
