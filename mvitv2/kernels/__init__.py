"""The same numbers, faster: backends that compute what :func:`mvitv2.core.attention.pooling_attention` defines.

``"auto"`` takes, per call on a CPU in float32 or bfloat16, the C++ operators; they are built at first use where there
is a compiler. Without one, and in other precisions, it takes :func:`~mvitv2.kernels.sdpa.masked` where no gradients are
needed, but in bfloat16 only on processors with matrix units, and else the reference. On other devices it takes
:func:`~mvitv2.kernels.sdpa.folded`. Exported graphs hold PyTorch's operators alone. Linear layers of ``"auto"`` and
``"cpp"`` ask oneDNN for float32 products on a CPU that is not Intel's.

Measured on one thread of an AMD EPYC (Zen 5), MViTv2-S, batch 8, against the reference: C++ with oneDNN's products 1.9
times as fast in float32 and 1.1 in bfloat16, 1.7 and 1.1 in training; without C++ 1.7 in float32;
:func:`~mvitv2.kernels.sdpa.masked` alone 1.07 in float32 and 0.84 in bfloat16. ``benchmarks/results`` has every number.
"""

from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from mvitv2.core.attend import Attend, reference
from mvitv2.core.attention import MultiScaleAttention, Run, pooling_attention
from mvitv2.core.layers import PoolTokens, norm_then_pool, pool_then_norm

from . import cpp
from .auto import auto, auto_pool, auto_whole
from .inference import optimize_for_inference
from .linear import Linear, pays
from .sdpa import folded, masked

__all__ = ["BACKENDS", "WHOLE", "Linear", "Whole", "backend", "optimize_for_inference", "pays", "use"]

BACKENDS: dict[str, Attend] = {
    "auto": auto,
    "reference": reference,
    "masked": masked,
    "folded": folded,
    "cpp": cpp.attend,
}


@dataclass(frozen=True)
class Whole:
    """What a backend replaces beside attention itself."""

    run: Run = pooling_attention
    pool_tokens: PoolTokens = pool_then_norm
    linear: bool = False
    """Whether float32 products go to oneDNN where that pays."""


WHOLE: dict[str, Whole] = {
    "auto": Whole(auto_whole, auto_pool, linear=True),
    "cpp": Whole(cpp.fused, cpp.pool_tokens, linear=True),
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
    return model
