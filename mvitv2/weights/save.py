"""Models written for any codebase, in its names, shapes and containers, so that it loads them itself."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mvitv2.core.config import MViTConfig, schedule
from mvitv2.core.model import MViT
from mvitv2.core.pyramid import PyramidBackbone
from mvitv2.core.relpos import table_rows
from mvitv2.core.stages import floor_tables
from mvitv2.weights import dialects, files
from mvitv2.weights.adapt import Adaptation, adapted
from mvitv2.weights.convert import State, to_theirs
from mvitv2.weights.dialects import Dialect

Rule = tuple[Callable[[MViTConfig], bool], str]
IMAGE = len("hw")


class NotExpressible(ValueError):
    """A codebase cannot hold this model, or would compute something else with it."""


def save_weights(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    dialect: str = "mvitv2",
    prefix: str | None = None,
    allow_other_numbers: bool = False,
) -> Path:
    """Write a model's weights for a codebase, atomically.

    Args:
        model: An MViT, or a pyramid around one (detectron2 and our own format only).
        path: File to write.
        dialect: One of :data:`mvitv2.weights.dialects.DIALECTS`; ours keeps configuration and card.
        prefix: What stands before the backbone's names, where the dialect leaves a choice (detectron2, OpenMMLab).
        allow_other_numbers: Write also where that codebase computes something else with these weights.

    Raises:
        NotExpressible: All reasons why it cannot be written, or would give other numbers there.
        ValueError: There is no such dialect, or the model is none of ours.
    """
    if dialect not in dialects.DIALECTS:
        raise ValueError(f"dialect {dialect!r} is none of {', '.join(dialects.DIALECTS)}")
    backbone = model.bottom_up if isinstance(model, PyramidBackbone) else model
    if not isinstance(backbone, MViT):
        raise ValueError(f"expected an MViT or a PyramidBackbone, got {type(model).__name__}")
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    path = Path(path)
    if dialect == "mvitv2":
        files.write_own(path, state, config=backbone.config.to_dict(), card=backbone.card)
        return path
    theirs, kind = translated(state, backbone.config, dialect, prefix=prefix, other_numbers=allow_other_numbers)
    container, wrapper = kind.container
    extra = {"format": "pt"} if container == "safetensors" else _extra(kind)
    files.write(path, theirs, container=container, wrapper=wrapper or None, extra=extra)
    return path


def translated(
    state: State, config: MViTConfig, dialect: str, *, prefix: str | None = None, other_numbers: bool = False
) -> tuple[State, Dialect]:
    """A state dict of ours under a dialect's names and shapes.

    Raises:
        NotExpressible: See :func:`save_weights`.
    """
    in_mlp = any(b.dim_out != b.dim_attn for b in config.blocks) and config.reversible is None
    kind = dialects.TIMM_MLP if dialect == "timm" and in_mlp else dialects.DIALECTS[dialect]
    reasons = [text for holds, text in CANNOT[dialect] if holds(config)]
    reasons += [] if other_numbers else [text for holds, text in DIFFERS.get(dialect, ()) if holds(config)]
    if reasons:
        raise NotExpressible(f"{dialect} cannot hold this model: {'; '.join(reasons)}")
    state = PREPARE.get(dialect, _unchanged)(dict(state), config)
    theirs = to_theirs(state, kind, config, prefix=_prefix(state, kind) if prefix is None else prefix)
    return {name: value.contiguous().clone() for name, value in theirs.items()}, kind


def _prefix(state: State, kind: Dialect) -> str:
    """A detector's backbone stands under ``backbone.``; without pyramid it is ``backbone.bottom_up.``."""
    pyramid = any(n.startswith("bottom_up.") for n in state)
    return "backbone.bottom_up." if kind is dialects.DETECTRON2 and not pyramid else kind.prefixes[0]


def _extra(kind: Dialect) -> dict[str, Any] | None:
    if kind.name in ("mmpretrain", "mmaction2"):
        return {"meta": {"written_by": "mvitv2"}}
    return {"__author__": "mvitv2"} if kind is dialects.DETECTRON2 else None


def _unchanged(state: State, config: MViTConfig) -> State:
    return state


def _joined(state: State, config: MViTConfig) -> State:
    """One projection for queries, keys and values."""
    return adapted(state, config, replace(config, separate_qkv=False), Adaptation())[0]


def _clip_kernels(state: State, config: MViTConfig) -> State:
    """Image poolings with a time axis of 1, as SlowFast and pytorchvideo train them."""
    if config.rank != IMAGE:
        return state
    pools = (".pool_q.weight", ".pool_k.weight", ".pool_v.weight")
    return {n: v[:, :, None] if n.endswith(pools) and v.ndim == len("oihw") else v for n, v in state.items()}


def _separable(state: State, config: MViTConfig) -> State:
    """pytorchvideo's image models have a table for their one frame; it is zero here."""
    state = _clip_kernels(state, config)
    if config.rank != IMAGE or config.abs_pos != "joint":
        return state
    table, prefix = state.pop("pos_embed"), int(config.class_token)
    state["pos_embed_spatial"] = table[:, prefix:]
    state["pos_embed_temporal"] = torch.zeros(1, 1, table.shape[2])
    return {**state, "pos_embed_class": table[:, :1]} if prefix else state


def _with_class_token(state: State, config: MViTConfig) -> State:
    """mmaction2 has the parameter also where it is not used."""
    state = _joined(state, config)
    return state if "cls_token" in state else {**state, "cls_token": torch.zeros(1, 1, config.embed_dim)}


PREPARE: dict[str, Callable[[State, MViTConfig], State]] = {
    "slowfast": _clip_kernels,
    "pytorchvideo": _separable,
    "timm": _joined,
    "torchvision": _joined,
    "detectron2": _joined,
    "mmpretrain": _joined,
    "mmaction2": _with_class_token,
}


def _other_tables(config: MViTConfig) -> bool:
    """Whether tables have other lengths than the peers compute for this size."""
    if not config.position_axes:
        return False
    return _table_lengths(config) != _table_lengths(floor_tables(config))


def _table_lengths(config: MViTConfig) -> list[tuple[int, ...]]:
    return [
        spec.table_rows or tuple(table_rows(q, k) for q, k in zip(spec.q_grid, spec.kv_grid, strict=True))
        for spec in schedule(config)
    ]


VIDEO_ONLY: Rule = (lambda c: c.rank == IMAGE, "it is for clips, this model for images")
IMAGE_ONLY: Rule = (lambda c: c.rank != IMAGE, "it is for images, this model for clips")
NO_WINDOWS: Rule = (lambda c: any(b.window for b in c.blocks), "it has no attention windows")
NO_LEVELS: Rule = (lambda c: bool(c.output_norms), "it has no norms of pyramid levels")
PLAIN_ONLY: Rule = (lambda c: c.reversible is not None, "it has no reversible form")
LAYER_NORM: Rule = (lambda c: c.norm != "layer", "it has layer norm only")
CONV_ONLY: Rule = (lambda c: c.pool_mode != "conv", "it pools by depthwise convolution only")
PROJECT_FIRST: Rule = (lambda c: c.pool_first, "it projects first and pools then")
NO_STEM_NORM: Rule = (lambda c: c.norm_stem, "it has no norm after the stem")
NO_SCALE: Rule = (lambda c: c.layer_scale is not None, "it has no layer scale")
ALL_BIASES: Rule = (lambda c: not c.linear_bias, "its linear layers have a bias")
TABLES: Rule = (_other_tables, "its position tables have other lengths at this size; load at a multiple of 32 pixels")
PLAIN: tuple[Rule, ...] = (PLAIN_ONLY, LAYER_NORM, PROJECT_FIRST, NO_STEM_NORM, NO_SCALE, ALL_BIASES)
CANNOT: dict[str, tuple[Rule, ...]] = {
    "official": (IMAGE_ONLY, NO_WINDOWS, NO_LEVELS, PLAIN_ONLY, LAYER_NORM, NO_STEM_NORM, NO_SCALE, ALL_BIASES, TABLES),
    "slowfast": (NO_WINDOWS, NO_LEVELS, LAYER_NORM, ALL_BIASES, TABLES),
    "timm": (IMAGE_ONLY, NO_WINDOWS, NO_LEVELS, *PLAIN, TABLES),
    "torchvision": (
        VIDEO_ONLY,
        NO_LEVELS,
        *PLAIN,
        CONV_ONLY,
        (lambda c: not c.class_token, "it always has a class token"),
    ),
    "detectron2": (
        IMAGE_ONLY,
        *PLAIN,
        CONV_ONLY,
        (lambda c: c.class_token, "it has no class token"),
        (lambda c: c.final_norm, "it is a backbone; load into a detection variant, such as mvitv2_t_det, first"),
    ),
    "mmpretrain": (IMAGE_ONLY, NO_WINDOWS, *PLAIN, CONV_ONLY, (lambda c: c.class_token, "it has no class token")),
    "mmaction2": (VIDEO_ONLY, NO_WINDOWS, *PLAIN, CONV_ONLY),
    "pytorchvideo": (
        NO_WINDOWS,
        NO_LEVELS,
        PLAIN_ONLY,
        NO_STEM_NORM,
        NO_SCALE,
        (lambda c: bool(c.position_axes), "it has no relative positions"),
        (lambda c: c.abs_pos == "none", "it always has absolute positions"),
    ),
}
CLASS_RESIDUAL: Rule = (
    lambda c: c.class_token and c.residual_pooling == "grid",
    "it adds the pooled query to the class token too, so its numbers would differ",
)
DIFFERS: dict[str, tuple[Rule, ...]] = {
    "timm": (CLASS_RESIDUAL,),
    "pytorchvideo": (CLASS_RESIDUAL,),
    "official": (
        (lambda c: c.class_token and c.residual_pooling == "all", "it leaves the class token out of the residual"),
    ),
    "slowfast": (
        (lambda c: c.class_token and c.residual_pooling == "all", "it leaves the class token out of the residual"),
    ),
    "mmaction2": ((lambda c: c.residual_pooling == "all", "it leaves the class token out of the residual"),),
}
