"""Models from weights files of any codebase, at any size, for any number of classes."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from mvitv2.core.attend import reference
from mvitv2.core.config import MViTConfig
from mvitv2.core.heads import TransformerBasicHead
from mvitv2.core.init import init_weights
from mvitv2.core.model import MViT
from mvitv2.core.pyramid import PyramidBackbone
from mvitv2.core.reversible import build
from mvitv2.kernels import use
from mvitv2.tasks.detect.detector import Detector
from mvitv2.weights import detectors
from mvitv2.weights.adapt import Adaptation, Inflation, adapted
from mvitv2.weights.card import card_of, variant_of
from mvitv2.weights.convert import State
from mvitv2.weights.opened import Opened, Source, filled, open_weights
from mvitv2.weights.rename import FIRST_LEVEL, DialectError

LOG = logging.getLogger("mvitv2")
Whole = MViT | PyramidBackbone | Detector
Filled = TypeVar("Filled", bound=MViT | PyramidBackbone | Detector)
CONVENTIONS = (
    "residual_pooling",
    "readout",
    "pool_mode",
    "pool_first",
    "position_scale",
    "displacement_order",
    "window_padding",
    "feed_output_norms",
    "norm_eps",
    "head_activation",
)
"""Fields that change what a model computes and not what its parameters are."""


def load_model(
    source: Source,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | Sequence[int] | None = None,
    num_frames: int | None = None,
    config: MViTConfig | None = None,
    dialect: str | None = None,
    ignore: Sequence[str] = (),
    backend: str = "auto",
    resampling: Literal["linear", "anchored"] = "linear",
    **fields: Any,
) -> Whole:
    """The model in a weights file, with the conventions of the codebase that wrote it, in eval mode.

    Nobody names a variant: dialect and configuration follow from names, shapes and what the file says of itself. What
    was changed, left out or assumed is told in ``model.card["loading"]`` and logged. A file of a detector gives the
    detector; its backbone alone is ``load_model(...).backbone.bottom_up``.

    Args:
        source: Path or state dict of any dialect: facebookresearch/mvit, SlowFast, detectron2, timm, torchvision,
            mmpretrain, mmaction2, pytorchvideo, or our own.
        num_classes: Another number of classes draws a new classifier; 0 drops it.
        in_chans: Another number of input channels; the stem is adapted.
        img_size: Another size the position tables are resampled for; every size runs without it as well.
        num_frames: Another number of frames, likewise.
        config: What the model is, where names and shapes cannot tell.
        dialect: Whose names they are, instead of looking.
        ignore: Patterns of names that may be missing or superfluous, such as ``"head.*"``.
        backend: What computes it, one of :data:`mvitv2.kernels.BACKENDS`.
        resampling: Rule for position tables of another size.
        **fields: Conventions to set otherwise, fields of :class:`~mvitv2.core.config.MViTConfig`; of a detector also
            those of :class:`~mvitv2.tasks.detect.config.DetectorConfig`.

    Raises:
        mvitv2.weights.files.WeightsFileError: The file cannot be read.
        DialectError: Names or shapes do not fit; all of them are in the message.
    """
    opened = open_weights(source, config=config, dialect=dialect)
    size = _size(opened.config, img_size, num_frames)
    given = {"num_classes": num_classes, "in_channels": in_chans, "input_size": size}
    changes = {k: v for k, v in given.items() if v is not None} | fields
    # what a file may lack, by a pattern or for other classes, needs its initial values; all else comes from the file
    drawn = bool(ignore) or (opened.detector is not None and num_classes is not None)
    with torch.device("cpu" if drawn else "meta"):
        whole = use(_built(opened, changes), backend)
    how, target = Adaptation(resampling=resampling), backbone_in(whole).config
    notes = transferred(whole, opened, how, ignore=ignore)
    holder, classes = (whole, whole.config.num_classes) if isinstance(whole, Detector) else (backbone_in(whole), None)
    holder.card = card_of(opened, source, target, notes, classes=classes)
    return whole.eval()


def _built(opened: Opened, changes: Mapping[str, Any]) -> Whole:
    if opened.detector is not None:
        return detectors.built(opened.detector, changed(opened.config, detectors.of_backbone(changes)), changes)
    return _with_pyramid(build(changed(opened.config, changes), reference), opened)


def changed(config: MViTConfig, changes: Mapping[str, Any]) -> MViTConfig:
    """A configuration with other values; position tables of another input size have the lengths its grids need.

    Raises:
        TypeError: There are no such fields; all are named.
    """
    unknown = sorted(set(changes) - set(config.to_dict()))
    if unknown:
        raise TypeError(f"{unknown} are neither arguments of load_model nor fields of MViTConfig")
    target = replace(config, **changes)
    if target.input_size != config.input_size:
        target = replace(target, blocks=tuple(replace(b, table_rows=None) for b in target.blocks))
    return target


def load_into(
    model: Filled,
    source: Source,
    *,
    config: MViTConfig | None = None,
    ignore: Sequence[str] = (),
    resampling: Literal["linear", "anchored"] = "linear",
    inflation: Inflation = "centre",
) -> Filled:
    """Fill a model of ours from a file of any dialect, size or task.

    Image to clip and back, classifier to detector: whatever differs is carried over, resampled or drawn anew.

    A classifier for another number of classes keeps its fresh weights, as do the pyramid and the heads of a detector
    that starts from a classifier; that, and every change, is told in ``model.card``.

    Args:
        model: Of the configuration that is wanted: an MViT, a pyramid around one, or a detector.
        source: As for :func:`load_model`.
        config: What the file's model is, where names and shapes cannot tell.
        ignore: Patterns of names that may be missing or superfluous.
        resampling: Rule for position tables of another size.
        inflation: How image kernels become clip kernels.
    """
    opened = open_weights(source, config=config)
    how = Adaptation(resampling=resampling, inflation=inflation)
    notes = transferred(model, opened, how, ignore=ignore)
    holder, classes = (model, model.config.num_classes) if isinstance(model, Detector) else (backbone_in(model), None)
    holder.card = card_of(opened, source, backbone_in(model).config, notes, classes=classes)
    return model


def backbone_in(model: Whole) -> MViT:
    """The MViT of a model, of a pyramid, or of a detector."""
    pyramid = model.backbone if isinstance(model, Detector) else model
    return pyramid.bottom_up if isinstance(pyramid, PyramidBackbone) else pyramid


def transferred(model: Whole, opened: Opened, how: Adaptation, *, ignore: Sequence[str] = ()) -> list[str]:
    """Carry a checkpoint's weights into a model.

    Returns:
        What was changed, left out or assumed, a sentence each.

    Raises:
        DialectError: Tensors that match nothing, are missing or mis-shaped; all are named.
    """
    backbone = backbone_in(model)
    _same_blocks(opened.config, backbone.config)
    state, notes = adapted(opened.backbone, opened.config, backbone.config, how)
    notes += _conventions(opened.config, backbone.config)
    notes += _classifier(state, opened.config, backbone)
    notes += _norms(state, opened.config, backbone)
    if model is not backbone:
        rest = {n: v for n, v in opened.state.items() if n.startswith(("fpn_", *detectors.HEADS))}
        state = {**{f"bottom_up.{n}": v for n, v in state.items()}, **rest}
        state, more = _around(model, state, opened)
        notes += more
    notes += _ignored(state, model, ignore)
    filled(model, state, what=f"this {opened.dialect.name} checkpoint")
    if opened.has_pyramid and model is backbone:
        notes.append(f"left out pyramid and heads, {len(opened.state) - len(opened.backbone)} tensors")
    if opened.left_out:
        whose = "backbone" if opened.detector is None else "detector"
        first = opened.left_out[0]
        notes.append(f"left out {len(opened.left_out)} tensors that are not the {whose}'s, first {first}")
    notes += [f"assumed {text}" for text in opened.assumed]
    for note in notes:
        LOG.info("%s", note)
    return notes


def _around(model: Whole, state: State, opened: Opened) -> tuple[State, list[str]]:
    """The state dict of a pyramid, without heads, or of a detector, with all that a file may lack."""
    if isinstance(model, Detector):
        return detectors.around(model, state, opened.detector)
    heads = [n for n in state if n.startswith(detectors.HEADS)]
    kept = {n: v for n, v in state.items() if n not in heads}
    return kept, [f"left out the heads of a detector, {len(heads)} tensors, first {heads[0]}"] if heads else []


def _same_blocks(source: MViTConfig, target: MViTConfig) -> None:
    """Refuse weights of another depth or width, with both in the message."""
    have, want = ([(b.dim_attn, b.num_heads) for b in config.blocks] for config in (source, target))
    if have != want:
        raise DialectError(
            f"the file is of {variant_of(source) or 'a model'} with {len(have)} blocks and widths "
            f"{sorted({d for d, _ in have})}, the model is {variant_of(target) or 'one'} with {len(want)} blocks and "
            f"widths {sorted({d for d, _ in want})}"
        )


def _conventions(source: MViTConfig, target: MViTConfig) -> list[str]:
    """Choices in which a model differs from the one the weights are of, so that it gives other numbers."""
    named = {name: (getattr(source, name), getattr(target, name)) for name in CONVENTIONS}
    if not source.class_token and not target.class_token and set(named["residual_pooling"]) == {"grid", "all"}:
        del named["residual_pooling"]
    other = [f"{name}={here!r}, not {there!r}" for name, (there, here) in named.items() if there != here]
    return [f"the model differs from the one these weights are of: {'; '.join(other)}"] if other else []


def _classifier(state: State, source: MViTConfig, model: MViT) -> list[str]:
    """A classifier for another number of classes is drawn anew; none is wanted for 0."""
    classes = model.config.num_classes
    if source.num_classes == classes:
        return []
    for name in [n for n in state if n.startswith("head.")]:
        del state[name]
    if not classes:
        return [f"classifier of {source.num_classes} classes dropped"]
    head = nn.ModuleDict({"head": TransformerBasicHead(model.config.num_features, classes)})
    init_weights(head, model.config)
    state.update(head.state_dict())
    return [f"classifier of {source.num_classes} classes replaced by a new one of {classes}"]


def _norms(state: State, source: MViTConfig, model: MViT) -> list[str]:
    """A classifier's last norm has no place in a detection backbone, whose levels have norms of their own, new ones."""
    notes: list[str] = []
    if not model.config.final_norm and "norm.weight" in state:
        del state["norm.weight"], state["norm.bias"]
        notes.append("the norm before the classifier dropped")
    wanted = model.state_dict()
    if model.config.final_norm and not source.final_norm and "norm.weight" not in state:
        state.update({n: torch.full(wanted[n].shape, float(n.endswith("weight"))) for n in wanted if n[:5] == "norm."})
        notes.append("the norm before the classifier starts fresh")
    new = tuple(f"output_norms.{stage}." for stage in model.config.output_norms if stage not in source.output_norms)
    missing = [n for n in wanted if n not in state and n.startswith(new)]
    # not `ones_like`: the model may have no memory yet
    state.update({n: (torch.ones if n.endswith("weight") else torch.zeros)(wanted[n].shape) for n in missing})
    if missing:
        notes.append(f"{len(missing)} parameters of output norms start fresh")
    return notes


def _ignored(state: State, model: nn.Module, patterns: Sequence[str]) -> list[str]:
    wanted = model.state_dict()
    dropped = [n for n in state if n not in wanted and any(fnmatch(n, p) for p in patterns)]
    kept = [n for n in wanted if n not in state and any(fnmatch(n, p) for p in patterns)]
    for name in dropped:
        del state[name]
    state.update({name: wanted[name] for name in kept})
    notes = [f"ignored {len(dropped)} superfluous tensors, first {dropped[0]}"] if dropped else []
    return notes + ([f"kept {len(kept)} tensors as they were, first {kept[0]}"] if kept else [])


def _with_pyramid(model: MViT, opened: Opened) -> MViT | PyramidBackbone:
    if not opened.has_pyramid:
        return model
    laterals = {n.split(".")[0] for n in opened.state if n.startswith("fpn_lateral")}
    stages = sorted(int(n.removeprefix("fpn_lateral")) - FIRST_LEVEL for n in laterals)
    first = f"fpn_lateral{stages[0] + FIRST_LEVEL}"
    lateral = opened.state.get(f"{first}.weight")
    if lateral is None or lateral.ndim != len("oihw"):
        raise DialectError(f"{first}.weight is missing or no convolution; is the file whole?")
    channels = lateral.shape[0]
    norm = "LN" if f"{first}.norm.weight" in opened.state else ""
    fuse = opened.card.get("pyramid", {}).get("fuse", "sum")
    return PyramidBackbone(model, channels, norm=norm, fuse=fuse, stages=stages)


def _size(config: MViTConfig, img_size: int | Sequence[int] | None, num_frames: int | None) -> tuple[int, ...] | None:
    if img_size is None and num_frames is None:
        return None
    side = config.input_size[-2:] if img_size is None else img_size
    spatial = (side, side) if isinstance(side, int) else tuple(side)
    if config.rank == len("hw"):
        if num_frames is not None:
            raise ValueError(f"num_frames={num_frames} for a model of images")
        return spatial
    return (config.input_size[0] if num_frames is None else num_frames, *spatial)
