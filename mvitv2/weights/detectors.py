"""Whole detectors in weights files: which configuration their names and shapes tell, and what may be drawn anew.

In an :class:`~mvitv2.weights.opened.Opened` checkpoint the backbone and pyramid of a detector have the names of a
:class:`~mvitv2.core.pyramid.PyramidBackbone`; its RPN and heads have their own.
"""

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from mvitv2.core.config import MViTConfig
from mvitv2.tasks.detect.config import CASCADE, DetectorConfig, ProposalConfig, Selection
from mvitv2.tasks.detect.detector import Detector
from mvitv2.tasks.detect.variants import DETECTORS
from mvitv2.weights.convert import State
from mvitv2.weights.plain import wrong_kinds
from mvitv2.weights.rename import DialectError

HEADS = ("proposal_generator.", "roi_heads.")
"""What the names of RPN and heads begin with."""
COUNTED = "num_batches_tracked"
"""Batches that a norm has seen; nothing depends on them, and old files have none."""
OF_CLASSES = re.compile(r"roi_heads\.(box_predictor\..+|mask_head\.predictor\..+)")
"""Tensors whose size may depend on the number of classes."""
LVIS = Selection(min_score=0.02, max_detections=300)
"""What the released detectors with federated classes were tested with."""


def has_heads(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has an RPN or heads beside a pyramid."""
    return any(name.startswith(HEADS) for name in state)


def is_whole(state: Mapping[str, Tensor]) -> bool:
    """Whether there are a pyramid, an RPN and box heads as ours."""
    wanted = (r"fpn_lateral\d\.weight", r"proposal_generator\.rpn_head\.objectness_logits\.weight")
    wanted += (r"roi_heads\.box_predictor\.(0\.)?cls_score\.weight",)
    return all(any(re.fullmatch(pattern, name) for name in state) for pattern in wanted)


def outer_name(name: str) -> str:
    """A name in an opened checkpoint as the :class:`Detector` has it."""
    return name if name.startswith(HEADS) else f"backbone.{name}"


def inner_name(name: str) -> str:
    """Undo :func:`outer_name`."""
    return name.removeprefix("backbone.")


def stored_detector(values: Any, backbone: MViTConfig) -> DetectorConfig:
    """The configuration that :func:`detector_card` gave, after a trip through a file.

    Raises:
        DialectError: Values of the wrong kind, all named, or values that make no detector.
    """
    if not isinstance(values, Mapping):
        raise DialectError(f"its detector is {str(values)[:60]}, expected names and values")
    whole = {**values, "backbone": backbone.to_dict()}
    if problems := wrong_kinds(whole, DetectorConfig):
        raise DialectError(f"its detector has values of no sense: {', '.join(problems)}")
    try:
        return DetectorConfig.from_dict(whole)
    except (ValueError, TypeError) as error:
        raise DialectError(f"its configuration makes no detector: {error}") from error


def detector_card(config: DetectorConfig) -> dict[str, Any]:
    """The configuration without the backbone's, which a file has beside it."""
    return {name: value for name, value in config.to_dict().items() if name != "backbone"}


def inferred_detector(state: State, backbone: MViTConfig) -> tuple[DetectorConfig, list[str]]:
    """The configuration of a detector from names and shapes, and what had to be assumed.

    Args:
        state: Names as in an opened checkpoint; only shapes are looked at.
        backbone: Of the same checkpoint.

    Raises:
        DialectError: Tensors that every such detector has are missing.
    """
    seen = _Shapes(state)
    stages = 1 + max((int(n) for n in seen.numbers(r"roi_heads\.box_predictor\.(\d+)\..+")), default=-1)
    first = "0." if stages else ""
    classes = seen.shape(f"roi_heads.box_predictor.{first}cls_score.weight")[0] - 1
    levels = len(seen.numbers(r"fpn_lateral(\d+)\.weight"))
    federated = f"roi_heads.box_predictor.{first}fed_loss_cls_weights" in state
    normed = "fpn_lateral2.norm.weight" in state
    config = DetectorConfig(
        backbone=backbone,
        num_classes=classes,
        pyramid_channels=seen.shape("proposal_generator.rpn_head.objectness_logits.weight")[1],
        pyramid_norm="LN" if normed else "",
        proposals=ProposalConfig(
            convs=max(len(seen.numbers(r"proposal_generator\.rpn_head\.conv\.conv(\d+)\.weight")), 1),
            anchor_sizes=tuple(32.0 * 2**level for level in range(levels + 1)),
        ),
        stages=CASCADE[: max(stages, 1)],
        class_agnostic=seen.shape(f"roi_heads.box_predictor.{first}bbox_pred.weight")[0] == len(("x", "y", "w", "h")),
        box_convs=seen.widths(rf"roi_heads\.box_head\.{first}conv(\d+)\.weight"),
        box_layers=seen.widths(rf"roi_heads\.box_head\.{first}fc(\d+)\.weight"),
        masks="roi_heads.mask_head.predictor.weight" in state,
        mask_convs=seen.widths(r"roi_heads\.mask_head\.mask_fcn(\d+)\.weight"),
        mask_deconv=seen.of("roi_heads.mask_head.deconv.weight", (0, 256))[1],
        head_norm=seen.norm(),
        scoring="sigmoid" if federated else "softmax",
        federated_classes=50 if federated else 0,
        selection=LVIS if federated else Selection(),
        square=1024 if normed else 0,
    )
    return config, _assumptions(config)


def _assumptions(config: DetectorConfig) -> list[str]:
    found = [f"anchors of {config.proposals.anchor_sizes} pixels", "the published thresholds of proposals and boxes"]
    if config.square:
        found.append(f"images padded to squares of {config.square}")
    if config.federated_classes:
        found.append(f"{config.federated_classes} federated classes, scores above {config.selection.min_score}")
    return found


class _Shapes:
    """Questions about names and shapes."""

    def __init__(self, state: Mapping[str, Tensor]):
        self.shapes = {name: tuple(value.shape) for name, value in state.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor that must be there."""
        if not self.shapes.get(name):
            raise DialectError(f"{name} is missing or a single number; is the detector whole?")
        return self.shapes[name]

    def of(self, name: str, otherwise: tuple[int, ...]) -> tuple[int, ...]:
        """Of a tensor that may be there."""
        return self.shape(name) if name in self.shapes else otherwise

    def numbers(self, pattern: str) -> list[str]:
        """What the pattern's group takes, each once, in order."""
        matches = (re.fullmatch(pattern, name) for name in self.shapes)
        return sorted({match[1] for match in matches if match}, key=int)

    def widths(self, pattern: str) -> tuple[int, ...]:
        """Output widths of numbered layers, in order."""
        found = {m[1]: shape for name, shape in self.shapes.items() if (m := re.fullmatch(pattern, name)) and shape}
        return tuple(found[number][0] for number in sorted(found, key=int))

    def norm(self) -> Any:
        """The norm of the heads: batch norm has statistics."""
        norms = [name for name in self.shapes if name.startswith("roi_heads.") and ".norm." in name]
        if any(name.endswith("running_mean") for name in norms):
            return "BN"
        return "LN" if norms else ""


def of_backbone(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the changes that are none of a detector's own fields."""
    own = {entry.name for entry in fields(DetectorConfig)}
    return {name: value for name, value in changes.items() if name not in own}


def built(config: DetectorConfig, backbone: MViTConfig, changes: Mapping[str, Any]) -> Detector:
    """A checkpoint's detector without its weights.

    Args:
        config: The checkpoint's.
        backbone: What its backbone shall be.
        changes: Of which the detector's own fields are taken.
    """
    other = of_backbone(changes)
    own = {name: value for name, value in changes.items() if name not in other}
    return Detector(replace(config, **{**own, "backbone": backbone}))


def around(model: Detector, state: State, source: DetectorConfig | None) -> tuple[State, list[str]]:
    """A checkpoint's tensors under a detector's names; what it lacks, or has for other classes, stays as drawn.

    Args:
        model: Its own values are used where the checkpoint has none; they must not lie on the meta device then.
        state: Names as in an opened checkpoint, the backbone's included.
        source: The checkpoint's detector; ``None`` where it is a backbone or a pyramid.

    Returns:
        The state dict, and what was kept, a sentence each.
    """
    wanted, result, notes = model.state_dict(), {outer_name(n): v for n, v in state.items()}, []
    if source is None:
        kept = [n for n in wanted if n not in result and (n.startswith(HEADS) or n.startswith("backbone.fpn_"))]
        result.update({n: wanted[n] for n in kept})
        notes += [f"{len(kept)} tensors of pyramid and heads stay as they were drawn"] if kept else []
    elif source.num_classes != model.config.num_classes:
        other = [n for n in wanted if OF_CLASSES.fullmatch(n) and n in result and result[n].shape != wanted[n].shape]
        result.update({n: wanted[n] for n in other})
        notes.append(f"predictors of {source.num_classes} classes replaced by new ones of {model.config.num_classes}")
    counts = [n for n in wanted if n.endswith(COUNTED) and n not in result]
    result.update({n: torch.zeros((), dtype=torch.int64) for n in counts})
    return result, notes


def detector_variant(config: DetectorConfig, backbone: str | None) -> str | None:
    """The published detector that a configuration is, but for thresholds and drop path; ``None`` if none is.

    Args:
        config: Of a detector.
        backbone: The variant that its backbone is.
    """
    sized = {name: found for name, found in DETECTORS.items() if backbone == f"mvitv2_{name.rpartition('_')[2]}_det"}
    alike = (n for n, p in sized.items() if replace(config, backbone=p.backbone, selection=p.selection) == p)
    return next(alike, None)
