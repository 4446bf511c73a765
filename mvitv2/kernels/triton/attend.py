"""Attention as an operator of PyTorch: ``mvitv2_triton::attend`` and its backward.

Cases to measure: S at 224 (96 channels; 56x56 queries on 14x14 keys with 1 head, 14x14 on 28x28 with 4, 14x14 on 14x14
with 4, 7x7 on 7x7 with 8), windows of detection at 1024 (14x14 on 14x14, batch x windows), its global blocks (64x64 on
64x64 and 64x64 on 32x32), video S 16x224 (8x56x56 on 8x7x7 with 1 head, 8x14x14 on 8x7x7 with 4); bf16, fp16 and fp32,
forward and backward. None is measured yet.
"""

# ruff: noqa: PLR0917  (arguments of operators are positional)

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from . import attend_launch as launch
from .autocast import autocast
from .device import check_runs_on
from .tiling import LONGEST_SUMMED

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
RESIDUALS = ("none", "grid", "all")
LARGEST_HEAD = 256
MOST_AXES = 3


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    terms: Sequence[Tensor],
    *,
    residual: str = "none",
    prefix: int | None = None,
    tokens: bool = False,
    tf32: bool = False,
) -> Tensor:
    """:func:`mvitv2.core.attend.reference` in one pass that never holds a ``N' x N''`` matrix, with what follows it.

    Inputs may have any strides; a copy is made only where channels are not next to each other in memory, or where a
    term is not contiguous. Under autocast q, k and v take its type, and terms keep theirs. Terms must be finite.

    Args:
        q: ``(B, h, P + N', d)``, float32, float16 or bfloat16, with at most 256 channels.
        k: ``(B, h, P + N'', d)``.
        v: As ``k``.
        terms: ``(B, h, N', size)`` for each of at most three axes, in any of the three types.
        residual: Which queries are added to the result: ``"none"``, those of the ``"grid"`` (all but the class token),
            or ``"all"`` (paper eq. 5).
        prefix: ``P``; told by the terms where there are any.
        tokens: Give ``(B, P + N', h * d)``, as the projection after attention takes it.
        tf32: Let float32 products use the TF32 units, which keep 10 bits; nothing changes in 16 bits.

    Returns:
        ``(B, h, P + N', d)``, or ``(B, P + N', h * d)`` with ``tokens``.

    Raises:
        ValueError: Types, shapes or devices that are not the above, or an empty batch.
    """
    q, k, v = autocast(q, k, v)
    check_qkv(q, k, v)
    check_terms(q, k, terms)
    residual_from = first_residual(residual, prefix, q, terms)
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, *terms))
    return attend_op(q, k, v, list(terms), residual_from, tokens, tf32, keep)[0]


def takes(dtype: torch.dtype, channels: int, sizes: Sequence[int]) -> bool:
    """Whether the kernels take queries of a type, heads of so many channels, and axes of these sizes."""
    summed = len(sizes) <= MOST_AXES and (len(sizes) < 2 or max(sizes) <= LONGEST_SUMMED)
    return dtype in DTYPES and channels <= LARGEST_HEAD and summed


def check_qkv(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Refuse what the kernels do not take.

    Raises:
        ValueError: With what came and what is expected.
    """
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape or (*q.shape[:2], q.shape[3]) != (*k.shape[:2], k.shape[3]):
        shapes = f"{tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        raise ValueError(f"q, k, v are {shapes}; expected (B, h, N', d) and twice (B, h, N'', d)")
    if q.dtype not in DTYPES or k.dtype != q.dtype or v.dtype != q.dtype:
        raise ValueError(
            f"q, k, v are {q.dtype}, {k.dtype}, {v.dtype}; the triton kernels take one of float32, float16, bfloat16 "
            'for all three; use the backend "reference" for others'
        )
    if q.numel() == 0 or k.numel() == 0:
        raise ValueError(
            f"q {tuple(q.shape)} or k {tuple(k.shape)} is empty; attention needs at least one of everything"
        )
    if q.shape[3] > LARGEST_HEAD:
        raise ValueError(f"heads have {q.shape[3]} channels; the triton kernels take at most {LARGEST_HEAD}")


def first_residual(residual: str, prefix: int | None, q: Tensor, terms: Sequence[Tensor]) -> int:
    """The first query that is added to the result; -1 for none.

    Raises:
        ValueError: No such residual, or the number of class tokens is unknown or contradicts the terms.
    """
    if residual not in RESIDUALS:
        raise ValueError(f"residual={residual!r} is none of {', '.join(RESIDUALS)}")
    told = q.shape[2] - terms[0].shape[2] if terms else prefix
    if prefix is not None and prefix != told:
        raise ValueError(f"prefix={prefix}, but {q.shape[2]} queries and {terms[0].shape[2]} in the terms leave {told}")
    if residual != "grid":
        return -1 if residual == "none" else 0
    if told is None:
        raise ValueError('residual="grid" without terms needs prefix, the number of class tokens')
    return told


def check_terms(q: Tensor, k: Tensor, terms: Sequence[Tensor]) -> None:
    """Refuse terms that do not fit queries and keys.

    Raises:
        ValueError: With what came and what is expected.
    """
    if not terms:
        return
    shapes = [tuple(term.shape) for term in terms]
    if len(terms) > MOST_AXES or any(len(s) != 4 or s[:3] != (*q.shape[:2], shapes[0][2]) for s in shapes):
        raise ValueError(f"terms are {shapes}; expected one to three of ({q.shape[0]}, {q.shape[1]}, N', size)")
    sizes = [s[3] for s in shapes]
    prefix = q.shape[2] - shapes[0][2]
    if prefix < 0 or k.shape[2] != prefix + prod(sizes):
        raise ValueError(
            f"terms {shapes} describe {prod(sizes)} keys and leave {prefix} class tokens; q has {q.shape[2]} tokens "
            f"and k has {k.shape[2]}"
        )
    if len(terms) > 1 and max(sizes) > LONGEST_SUMMED:
        raise ValueError(f"terms have {sizes} positions; of several axes none may have more than {LONGEST_SUMMED}")
    if any(term.dtype not in DTYPES for term in terms):
        raise ValueError(f"terms are {[term.dtype for term in terms]}; expected float32, float16 or bfloat16")


@torch.library.custom_op("mvitv2_triton::attend", mutates_args=())
def attend_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    terms: list[Tensor],
    residual_from: int,
    tokens: bool,
    tf32: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention; attention without its residual if ``keep`` and there is one; log2 of the sums of exponentials."""
    check_runs_on(q)
    return launch.forward(launch.operands(q, k, v, terms), residual_from, tokens=tokens, tf32=tf32, keep=keep)


@attend_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, terms: list[Tensor], residual_from: int, tokens: bool, tf32: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    alone = launch.empty_like_queries(q, tokens=False) if residual_from >= 0 and keep else q.new_empty(0)
    return launch.empty_like_queries(q, tokens=tokens), alone, q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("mvitv2_triton::attend_backward", mutates_args=())
def attend_backward_op(
    d_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    terms: list[Tensor],
    alone: Tensor,
    log_sums: Tensor,
    residual_from: int,
    tf32: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Gradients of q, k, v and terms."""
    check_runs_on(q)
    return launch.backward(d_out, launch.operands(q, k, v, terms), alone, log_sums, residual_from, tf32=tf32)


@attend_backward_op.register_fake
def _(
    d_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    terms: list[Tensor],
    alone: Tensor,
    log_sums: Tensor,
    residual_from: int,
    tf32: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    d_q, d_k, d_v = (x.new_empty(x.shape) for x in (q, k, v))
    return d_q, d_k, d_v, [term.new_empty(term.shape) for term in terms]


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Keep what the backward pass needs."""
    q, k, v, terms, residual_from, _, tf32, keep = inputs
    out, alone, log_sums = output
    if residual_from >= 0 and not keep:
        raise ValueError("mvitv2_triton::attend with a residual needs keep=True where gradients are wanted")
    ctx.mark_non_differentiable(alone, log_sums)
    ctx.save_for_backward(q, k, v, *terms, alone if residual_from >= 0 else out, log_sums)
    ctx.residual_from, ctx.tf32 = residual_from, tf32


def differentiate(ctx: Any, d_out: Tensor, *_: Tensor | None) -> tuple[Tensor | list[Tensor] | None, ...]:
    """The backward pass of the operator."""
    q, k, v, *terms, alone, log_sums = ctx.saved_tensors
    gradients = attend_backward_op(d_out, q, k, v, terms, alone, log_sums, ctx.residual_from, ctx.tf32)
    return (*gradients, None, None, None, None)


attend_op.register_autograd(differentiate, setup_context=save)
