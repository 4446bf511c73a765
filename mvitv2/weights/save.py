"""Models written for any codebase, in its names, shapes and containers, so that it loads them itself."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from mvitv2.core.config import MViTConfig
from mvitv2.core.model import MViT
from mvitv2.core.pyramid import FUSE_SCALE, PyramidBackbone
from mvitv2.tasks.detect.detector import Detector
from mvitv2.weights import dialects, files
from mvitv2.weights.adapt import Adaptation, Carrier, projections
from mvitv2.weights.convert import State, to_theirs
from mvitv2.weights.described import DESCRIPTION, description
from mvitv2.weights.detectors import detector_card, has_heads, inner_name
from mvitv2.weights.dialects import Dialect
from mvitv2.weights.expressible import as_written, obstacles
from mvitv2.weights.load import backbone_in
from mvitv2.weights.opened import pyramid_around
from mvitv2.weights.peers.slowfast_settings import official_settings, slowfast_settings

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
        model: An MViT; a pyramid around one, or a detector (detectron2 and our own format only).
        path: File to write; for detectron2 a ``.pth`` is a file of torch, anything else a pickle as in its model zoo.
        dialect: One of :data:`mvitv2.weights.dialects.DIALECTS`; ours keeps configuration and card.
        prefix: What stands before the backbone's names, where the dialect leaves a choice (detectron2, OpenMMLab).
        allow_other_numbers: Write also where that codebase computes something else with these weights.

    Raises:
        NotExpressible: All reasons why it cannot be written, or would give other numbers there.
        ValueError: There is no such dialect, or the model is none of ours.
    """
    if dialect not in dialects.DIALECTS:
        raise ValueError(f"dialect {dialect!r} is none of {', '.join(dialects.DIALECTS)}")
    if not isinstance(model, MViT | PyramidBackbone | Detector):
        raise ValueError(f"expected an MViT, a PyramidBackbone or a Detector, got {type(model).__name__}")
    backbone = backbone_in(model)
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    path, card = Path(path), whole_card(model)
    if dialect == "mvitv2":
        files.write_own(path, state, config=backbone.config.to_dict(), card=card)
        return path
    if isinstance(model, Detector):
        state = {inner_name(name): value for name, value in state.items()}
    theirs, kind = translated(state, backbone.config, dialect, prefix=prefix, other_numbers=allow_other_numbers)
    container, wrapper = kind.container
    if kind is dialects.DETECTRON2 and path.suffix == ".pth":  # what detectron2 itself saves in training
        container = "torch zip"
    extra = _beside(kind, as_written(backbone.config, dialect), card)
    files.write(path, theirs, container=container, wrapper=wrapper or None, extra=extra)
    return path


def whole_card(model: MViT | PyramidBackbone | Detector) -> dict[str, Any]:
    """A model's card, and what its backbone's configuration does not say of it."""
    if isinstance(model, Detector):
        return {**model.card, "detector": detector_card(model.config)}
    if isinstance(model, PyramidBackbone):
        fuse = next(name for name, scale in FUSE_SCALE.items() if scale == model.fuse_scale)
        return {**model.bottom_up.card, "pyramid": {"fuse": fuse, "stages": list(model.stages)}}
    return dict(model.card)


def translated(
    state: State, config: MViTConfig, dialect: str, *, prefix: str | None = None, other_numbers: bool = False
) -> tuple[State, Dialect]:
    """A state dict of ours under a dialect's names and shapes.

    Raises:
        NotExpressible: See :func:`save_weights`.
    """
    in_mlp = any(b.dim_out != b.dim_attn for b in config.blocks) and config.reversible is None
    kind = dialects.TIMM_MLP if dialect == "timm" and in_mlp else dialects.DIALECTS[dialect]
    reasons, numbers = obstacles(config, dialect)
    if pyramid_around(state) and kind is not dialects.DETECTRON2:
        what = "detector; save the detector's backbone" if has_heads(state) else "feature pyramid; save the pyramid's"
        reasons.insert(0, f"it has no {what}{'.' if has_heads(state) else ' '}bottom_up")
    if reasons:
        raise NotExpressible(f"{dialect} cannot hold this model: {'; '.join(reasons)}")
    if numbers and not other_numbers:
        raise NotExpressible(
            f"{dialect} would compute something else with these weights: {'; '.join(numbers)}. "
            "allow_other_numbers=True writes them all the same"
        )
    state = PREPARE.get(dialect, _unchanged)(dict(state), config)
    theirs = to_theirs(state, kind, config, prefix=_prefix(state, kind) if prefix is None else prefix)
    return {name: value.contiguous().clone() for name, value in theirs.items()}, kind


def _prefix(state: State, kind: Dialect) -> str:
    """A detector's backbone stands under ``backbone.``; without pyramid it is ``backbone.bottom_up.``."""
    pyramid = any(n.startswith("bottom_up.") for n in state)
    return "backbone.bottom_up." if kind is dialects.DETECTRON2 and not pyramid else kind.prefixes[0]


def _beside(kind: Dialect, config: MViTConfig, card: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says beside its tensors: what its codebase does, and our description where there is room for it."""
    container, wrapper = kind.container
    if not wrapper and container == "torch zip":
        return {}
    extra: dict[str, Any] = {DESCRIPTION: description(config, card)}
    if kind.name in SETTINGS:
        extra["cfg"] = yaml.safe_dump(SETTINGS[kind.name](config))
    if kind.name in ("mmpretrain", "mmaction2"):
        extra["meta"] = {"written_by": "mvitv2"}
    return extra | ({"format": "pt"} if container == "safetensors" else {})


def _unchanged(state: State, config: MViTConfig) -> State:
    return state


def _joined(state: State, config: MViTConfig) -> State:
    """One projection for queries, keys and values."""
    carrier = Carrier(state, config, replace(config, separate_qkv=False), Adaptation())
    projections(carrier)
    return carrier.state


def _as_trained(state: State, config: MViTConfig) -> State:
    """SlowFast's poolings of images have an axis of time, and its fixed positions are added twice."""
    state = _clip_kernels(state, config)
    return {**state, "pos_embed": state["pos_embed"] / 2} if config.abs_pos_init == "sincos" else state


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
    state["pos_embed_temporal"] = table.new_zeros(1, 1, table.shape[2])
    return {**state, "pos_embed_class": table[:, :1]} if prefix else state


def _with_class_token(state: State, config: MViTConfig) -> State:
    """mmaction2 has the parameter also where it is not used."""
    state = _joined(state, config)
    like = state["patch_embed.proj.weight"]
    return state if "cls_token" in state else {**state, "cls_token": like.new_zeros(1, 1, config.embed_dim)}


PREPARE: dict[str, Callable[[State, MViTConfig], State]] = {
    "official": _joined,
    "slowfast": _as_trained,
    "pytorchvideo": _separable,
    "timm": _joined,
    "torchvision": _joined,
    "detectron2": _joined,
    "mmpretrain": _joined,
    "mmaction2": _with_class_token,
}
SETTINGS: dict[str, Callable[[MViTConfig], dict[str, Any]]] = {
    "official": official_settings,
    "slowfast": slowfast_settings,
}
"""Codebases that store the configuration beside the tensors."""
