"""The same numbers, faster: backends that compute what :func:`mvitv2.core.attention.pooling_attention` defines.

``"auto"`` takes, per call on a CPU in float32 or bfloat16, the C++ operators; they are built at first use where there
is a compiler. Without one, and in other precisions, it takes :func:`~mvitv2.kernels.sdpa.masked` where no gradients are
needed, but in bfloat16 only on processors with matrix units, and else the reference. On CUDA devices it takes the
Triton kernels for what they take (not measured on a GPU yet), on others and for the rest
:func:`~mvitv2.kernels.sdpa.folded`. Exported graphs hold PyTorch's operators alone. Linear layers of ``"auto"`` and
``"cpp"`` take the matrix units of a CPU (AMX) where it has them, through the operators or oneDNN, else oneDNN's float32
on a CPU that is not Intel's.
:func:`choice` tells what is taken for a device, a precision and a mode, and why; ``docs/howto/speed.md`` has numbers.
"""

from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from mvitv2.core.attend import Attend, reference
from mvitv2.core.attention import MultiScaleAttention, Run, pooling_attention
from mvitv2.core.layers import MLP, PoolTokens, norm_then_pool, pool_then_norm

from . import cpp, triton
from .auto import Choice, auto, auto_pool, auto_whole, choice
from .graphs import Graphed
from .inference import optimize_for_inference
from .linear import Linear, pays
from .mlp import FusedMLP
from .pooling import FAST, PLAIN
from .sdpa import folded, masked

__all__ = [
    "BACKENDS",
    "WHOLE",
    "Choice",
    "Graphed",
    "Linear",
    "Whole",
    "backend",
    "choice",
    "optimize_for_inference",
    "pays",
    "runs_here",
    "use",
]

BACKENDS: dict[str, Attend] = {
    "auto": auto,
    "reference": reference,
    "masked": masked,
    "folded": folded,
    "cpp": cpp.attend,
    "triton": triton.attend,
}


@dataclass(frozen=True)
class Whole:
    """What a backend replaces beside attention itself."""

    run: Run = pooling_attention
    pool_tokens: PoolTokens = pool_then_norm
    linear: bool = False
    """Whether products go where they are fastest."""
    max_pool: bool = False
    """Whether shortcuts are pooled in C++."""


WHOLE: dict[str, Whole] = {
    "auto": Whole(auto_whole, auto_pool, linear=True, max_pool=True),
    "cpp": Whole(cpp.fused, cpp.pool_tokens, linear=True, max_pool=True),
    "triton": Whole(triton.fused, triton.pool_tokens),
}
Model = TypeVar("Model", bound=nn.Module)


def backend(name: str) -> Attend:
    """An attention backend by name.

    Raises:
        ValueError: There is none of that name; those there are, are listed.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend={name!r} is none of {', '.join(BACKENDS)}")
    return BACKENDS[name]


def runs_here(name: str) -> str | None:
    """Why a backend cannot run on this machine; ``None`` if it can. ``"cpp"`` is built to find out.

    Raises:
        ValueError: There is no backend of that name.
    """
    backend(name)
    if name == "cpp":
        return cpp.missing()
    there = triton.available()
    return there.reason if name == "triton" and not there else None


def use(model: Model, name: str) -> Model:
    """The same model, computed by a backend from now on; parameters and their names do not change.

    Raises:
        ValueError: There is no backend of that name.
        mvitv2.kernels.cpp.BuildError: ``"cpp"`` is asked for, and cannot be had; the message says why.
    """
    attend, whole = backend(name), WHOLE.get(name, Whole())
    if name == "cpp":
        cpp.load()
    linear = Linear if whole.linear and pays() else nn.Linear
    for module in model.modules():
        if isinstance(module, MultiScaleAttention):
            module.attend, module.run = attend, whole.run
            if module.pool_tokens is not norm_then_pool:
                module.pool_tokens = whole.pool_tokens
        elif type(module) in (nn.Linear, Linear):
            module.__class__ = linear
        elif type(module) in (MLP, FusedMLP):
            module.__class__ = FusedMLP if linear is Linear else MLP
        elif type(module) in (PLAIN if not whole.max_pool else FAST):
            module.__class__ = (FAST if whole.max_pool else PLAIN)[type(module)]
    return model
