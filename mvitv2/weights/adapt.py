"""Weights of one configuration carried over to another: other sizes, image and clip, other classes, other channels.

Every step that changes a tensor says so in one sentence; nothing is dropped or drawn anew without one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mvitv2.core.config import AXES, BlockSpec, MViTConfig, schedule
from mvitv2.core.grid import Grid
from mvitv2.core.positions import resample_grid
from mvitv2.core.relpos import anchored, table_rows
from mvitv2.weights.convert import State

Inflation = Literal["centre", "mean", "repeat"]
IMAGE_AXES = 2


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """How to carry weights over."""

    resampling: Literal["linear", "anchored"] = "linear"
    """Rule for position tables; linear is the peers'."""
    inflation: Inflation = "centre"
    """Image kernels in time: the middle frame and zeros (paper), shares of the mean, or repeated (SlowFast)."""


@dataclass
class Carrier:
    """A state dict on its way, with the sentences that tell what happened."""

    state: State
    source: MViTConfig
    target: MViTConfig
    how: Adaptation
    notes: list[str] = field(default_factory=list)


def adapted(state: State, source: MViTConfig, target: MViTConfig, how: Adaptation) -> tuple[State, list[str]]:
    """Weights of ``source`` as weights of ``target``; heads and norms that only one of them has are the caller's.

    Args:
        state: Our names.
        source: The configuration the weights are of.
        target: The configuration they are wanted for.
        how: Rules of choice.

    Returns:
        The new state dict, and a sentence for every kind of change.
    """
    carrier = Carrier(dict(state), source, target, how)
    for step in STEPS:
        step(carrier)
    return carrier.state, carrier.notes


def _channels(c: Carrier) -> None:
    """Stems for other than three channels: kernels repeated in turn and scaled to keep the sum (timm's rule)."""
    name, have, want = "patch_embed.proj.weight", c.source.in_channels, c.target.in_channels
    if have == want or name not in c.state:
        return
    kernel = c.state[name]
    if want == 1:
        kernel = kernel.sum(dim=1, keepdim=True)
    else:
        repeats = -(-want // have)
        kernel = kernel.repeat(1, repeats, *[1] * (kernel.ndim - 2))[:, :want] * (have / want)
    c.state[name] = kernel
    c.notes.append(f"stem adapted from {have} to {want} input channels")


def _kernels(c: Carrier) -> None:
    """Image kernels into clips and back."""
    if c.source.rank == c.target.rank:
        return
    names = [n for n in c.state if n == "patch_embed.proj.weight" or (".pool_" in n and n.endswith(".weight"))]
    if c.target.rank > c.source.rank:
        for name in names:
            frames = _time_kernel(c.target, name)
            c.state[name] = inflated(c.state[name], frames, c.how.inflation)
        c.notes.append(f"image kernels inflated in time by {c.how.inflation!r}")
    else:
        for name in names:
            c.state[name] = c.state[name].sum(dim=2)
        c.notes.append("clip kernels summed over time: what they give on a clip that stands still")


def _time_kernel(target: MViTConfig, name: str) -> int:
    if name.startswith("patch_embed"):
        return target.patch_kernel[0]
    block = target.blocks[int(name.removeprefix("rev_backbone.layers.").removeprefix("blocks.").split(".")[0])]
    kernel = block.q_kernel if ".pool_q" in name else block.kv_kernel
    return kernel[0] if kernel else 1


def inflated(kernel: Tensor, frames: int, how: Inflation) -> Tensor:
    """An image kernel ``(C', C, kh, kw)`` as a clip kernel ``(C', C, kt, kh, kw)``."""
    clip = kernel[:, :, None].repeat(1, 1, frames, 1, 1)
    if how == "mean":
        return clip / frames
    if how == "centre":
        here = torch.arange(frames) == frames // 2
        return clip * here.to(clip)[:, None, None]
    return clip


def _relative_tables(c: Carrier) -> None:
    """Position tables of another size; time tables of images are zeros, time tables of clips have no use in images."""
    changed = 0
    trunk = "rev_backbone.layers.{}.F.attn" if c.target.reversible else "blocks.{}.attn"
    for index, (old, new) in enumerate(zip(schedule(c.source), schedule(c.target), strict=True)):
        for axis in AXES[3]:
            name = f"{trunk.format(index)}.rel_pos_{axis}"
            here, there = axis in c.source.position_axes, axis in c.target.position_axes
            table = c.state.get(name)
            if here and not there:
                c.state.pop(name, None)
            elif there and not here:
                c.state[name] = torch.zeros(_rows(new, c.target, axis), new.head_dim)
            elif here and table is not None:  # one that is missing stays so: the file is not whole
                c.state[name] = _resampled(table, old, new, (c.source, c.target), axis, c.how.resampling)
                changed += c.state[name].shape != table.shape
    if changed:
        c.notes.append(f"{changed} relative position tables resampled ({c.how.resampling})")
    if c.target.position_axes != c.source.position_axes:
        c.notes.append(
            f"relative tables for axes {c.source.position_axes or '-'} became {c.target.position_axes or '-'}"
        )


def _rows(spec: BlockSpec, config: MViTConfig, axis: str) -> int:
    a = AXES[config.rank].index(axis)
    return spec.table_rows[a] if spec.table_rows else table_rows(spec.q_grid[a], spec.kv_grid[a])


def _resampled(
    table: Tensor, old: BlockSpec, new: BlockSpec, configs: tuple[MViTConfig, MViTConfig], axis: str, rule: str
) -> Tensor:
    rows = _rows(new, configs[1], axis)
    if table.shape[0] == rows:
        return table
    if rule == "linear":
        return stretched(table, rows)
    a, b = (AXES[config.rank].index(axis) for config in configs)
    return anchored(table, new.q_grid[b], new.kv_grid[b], max(old.q_grid[a] / old.kv_grid[a], 1.0), rows=rows)


def stretched(table: Tensor, rows: int) -> Tensor:
    """``(R, d) -> (rows, d)`` by linear interpolation in float32, with the same rounding on every machine.

    PyTorch's kernel fuses one multiplication and the addition on processors that can, so the peers' resized tables hold
    the last bit of the machine they were made on. This is what it gives there: each step rounded once, by way of
    float64. Tables that are float64 themselves keep their precision.
    """
    count = table.shape[0]
    if table.dtype == torch.float64:
        return F.interpolate(table.T[None], size=rows, mode="linear")[0].T
    step = torch.tensor(count / rows, dtype=torch.float32)
    source = ((torch.arange(rows, dtype=torch.float32) + 0.5) * step - 0.5).clamp(min=0)
    low = source.long().clamp(max=count - 1)
    high = (low + 1).clamp(max=count - 1)
    far = (source - low)[:, None]
    near, exact = (1 - far).double(), table.float()
    return (exact[low].double() * near + (exact[high] * far).double()).to(table.dtype)


def _class_token(c: Carrier) -> None:
    """A model without class token has no use for it: detection backbones start from classifiers that have one."""
    if not c.source.class_token or c.target.class_token:
        return
    for name in ("cls_token", "pos_embed_class"):
        c.state.pop(name, None)
    if "pos_embed" in c.state:
        c.state["pos_embed"] = c.state["pos_embed"][:, 1:]
    c.source = replace(c.source, class_token=False, readout="norm_mean")
    c.notes.append("class token dropped")


def _absolute_tables(c: Carrier) -> None:
    """Joint and separable tables, resampled and turned into each other."""
    if c.source.abs_pos == "none" or c.target.abs_pos == "none":
        return
    _match_forms(c)
    # a table that changed its form lies on the axes of the new one, at the sizes of the old
    old, new = c.source.abs_pos_grid[-c.target.rank :], c.target.abs_pos_grid
    old = (*new[: len(new) - len(old)], *old)
    if old == new:
        return
    if c.target.abs_pos == "separable":
        c.state["pos_embed_spatial"] = _smooth(c.state["pos_embed_spatial"], old[-2:], new[-2:])
        c.state["pos_embed_temporal"] = _smooth(c.state["pos_embed_temporal"], old[:1], new[:1])
    else:
        table, prefix = c.state["pos_embed"], int(c.source.class_token)
        c.state["pos_embed"] = torch.cat((table[:, :prefix], _smooth(table[:, prefix:], old, new)), dim=1)
    c.notes.append(f"absolute positions resampled from {old} to {new} tokens")


def _smooth(table: Tensor, made_for: Grid, grid: Grid) -> Tensor:
    """:func:`resample_grid` for tables of any precision: interpolation knows no half-precision numbers on CPUs."""
    if made_for == grid or table.dtype in (torch.float32, torch.float64):
        return resample_grid(table, made_for, grid)
    return resample_grid(table.float(), made_for, grid).to(table.dtype)


def _match_forms(c: Carrier) -> None:
    prefix = int(c.source.class_token)
    if c.source.abs_pos == "joint" and c.target.abs_pos == "separable" and c.source.rank == IMAGE_AXES:
        table = c.state.pop("pos_embed")
        c.state["pos_embed_spatial"] = table[:, prefix:]
        c.state["pos_embed_temporal"] = torch.zeros(1, c.target.abs_pos_grid[0], table.shape[2])
        if prefix:
            c.state["pos_embed_class"] = table[:, :1]
        c.notes.append("image positions became spatial positions; temporal ones start at zero")
    elif c.source.abs_pos == "separable" and c.target.abs_pos == "joint" and c.target.rank == IMAGE_AXES:
        spatial, temporal = c.state.pop("pos_embed_spatial"), c.state.pop("pos_embed_temporal")
        table = spatial + temporal.mean(dim=1, keepdim=True)
        cls = c.state.pop("pos_embed_class", None)
        c.state["pos_embed"] = table if cls is None else torch.cat((cls, table), dim=1)
        c.notes.append("clip positions became image positions at the mean over time")
    elif c.source.abs_pos != c.target.abs_pos or c.source.rank != c.target.rank:
        raise ValueError(
            f"{c.source.abs_pos} positions over {c.source.rank} axes cannot become "
            f"{c.target.abs_pos} positions over {c.target.rank}"
        )


def projections(c: Carrier) -> None:
    """One linear layer for queries, keys and values, or three."""
    separate = c.target.separate_qkv or c.target.pool_first
    if separate == (c.source.separate_qkv or c.source.pool_first):
        return
    for name in [n for n in c.state if n.endswith((".attn.qkv.weight", ".attn.qkv.bias"))]:
        attn, x = (
            name[: -len("qkv.weight")] if name.endswith("weight") else name[: -len("qkv.bias")],
            name.rpartition(".")[2],
        )
        for q, part in zip("qkv", c.state.pop(name).chunk(3), strict=True):
            c.state[f"{attn}{q}.{x}"] = part.clone()
    for name in [n for n in c.state if n.endswith((".attn.q.weight", ".attn.q.bias"))] if not separate else []:
        attn, _, x = name.rpartition("q.")
        c.state[f"{attn}qkv.{x}"] = torch.cat([c.state.pop(f"{attn}{q}.{x}") for q in "qkv"])
    c.notes.append(f"query, key and value projections {'split' if separate else 'joined'}")


STEPS: tuple[Callable[[Carrier], None], ...] = (
    _channels,
    _kernels,
    _relative_tables,
    _class_token,
    _absolute_tables,
    projections,
)
