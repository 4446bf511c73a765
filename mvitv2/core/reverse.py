"""Backward through reversible blocks without stored activations: recompute inputs from outputs, block by block."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

from .grid import Grid

Streams = tuple[Tensor, Tensor]


class Coupling(Protocol):
    """A reversible block: ``y1 = x1 + attend(x2)``, ``y2 = x2 + transform(y1)``."""

    def attend(self, x: Tensor, grid: Grid) -> Tensor: ...
    def transform(self, x: Tensor) -> Tensor: ...
    def parameters(self) -> Any: ...
    def __call__(self, x1: Tensor, x2: Tensor, grid: Grid) -> Streams: ...


@dataclass
class RandomState:
    """Where the random numbers of the host and of a device stand, to draw the same stochastic depth twice."""

    host: Tensor
    device: tuple[list[int], list[Tensor]]

    @classmethod
    def now(cls, like: Tensor) -> "RandomState":
        """The state before a branch runs."""
        return cls(torch.get_rng_state(), get_device_states(like))

    def restore(self, like: Tensor) -> None:
        """Rewind."""
        torch.set_rng_state(self.host)
        set_device_states(*self.device, device_type=like.device.type)


def autocast_of(device: str) -> Callable[[], AbstractContextManager[Any, Any]]:
    """Makes the automatic precision again that is on now, for what is computed later."""
    if not torch.amp.is_autocast_available(device):
        return nullcontext
    dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    return partial(torch.autocast, device, dtype, enabled)


def reversible_segment(blocks: Sequence[Coupling], streams: Streams, grid: Grid, *, keep: bool) -> Streams:
    """Run blocks one after the other.

    Args:
        blocks: Reversible blocks of one grid.
        streams: Two tensors ``(B, N, C)``.
        grid: How tokens lie.
        keep: Let autograd keep activations, as any other model does (evaluation, compilation).
    """
    if keep or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        for block in blocks:
            streams = block(*streams, grid)
        return streams
    parameters = [p for block in blocks for p in block.parameters()]
    return ReverseSegment.apply(blocks, grid, *streams, *parameters)


class ReverseSegment(torch.autograd.Function):
    """The forward keeps its outputs alone; the backward walks the blocks from last to first."""

    @staticmethod
    def forward(
        ctx: Any, blocks: Sequence[Coupling], grid: Grid, x1: Tensor, x2: Tensor, *parameters: Tensor
    ) -> Streams:
        """Outputs of the last block; per branch the random state it started from is kept."""
        ctx.blocks, ctx.grid, ctx.states = blocks, grid, []
        ctx.autocast = autocast_of(x1.device.type)
        for block in blocks:
            before_f = RandomState.now(x1)
            x1 = x1 + block.attend(x2, grid)
            before_g = RandomState.now(x1)
            x2 = x2 + block.transform(x1)
            ctx.states.append((before_f, before_g))
        ctx.save_for_backward(x1, x2)
        return x1, x2

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the inputs and of all parameters."""
        d1, d2 = upstream
        y1, y2 = (y.detach() for y in ctx.saved_tensors)
        gradients: list[list[Tensor | None]] = []
        after = RandomState.now(y1)
        with ctx.autocast():
            for block, (before_f, before_g) in zip(reversed(ctx.blocks), reversed(ctx.states), strict=True):
                parameters = list(block.parameters())
                g_out, dy1, dg = _branch_gradient(block.transform, y1, d2, parameters, before_g)
                y2, d1 = y2 - g_out, d1 + dy1
                f_out, dx2, df = _branch_gradient(
                    lambda x, b=block: b.attend(x, ctx.grid), y2, d1, parameters, before_f
                )
                y1, d2 = y1 - f_out, d2 + dx2
                gradients.append([_sum(a, b) for a, b in zip(df, dg, strict=True)])
        after.restore(y1)
        flat = [g for block in reversed(gradients) for g in block]
        return None, None, d1, d2, *flat


def _branch_gradient(
    branch: Any, x: Tensor, upstream: Tensor, parameters: list[Tensor], state: RandomState
) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
    """Run a branch again from the same random state: its output, and gradients of its input and parameters."""
    state.restore(x)
    x = x.detach().requires_grad_()
    learned = [p for p in parameters if p.requires_grad]
    with torch.enable_grad():
        out = branch(x)
    dx, *dp = torch.autograd.grad(out, [x, *learned], upstream.to(out.dtype), allow_unused=True)
    by_parameter = iter(dp)
    return out.detach(), dx, tuple(next(by_parameter) if p.requires_grad else None for p in parameters)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b
