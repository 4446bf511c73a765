"""From a detector fixture to a detector of ours: detectron2's published configuration, edited, and its weights."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor

from mvitv2.tasks.detect.config import DetectorConfig
from mvitv2.tasks.detect.variants import ALIASES, DETECTORS
from mvitv2.weights.peers.detectron2 import detectron2_config, detectron2_settings

PLAIN = {
    "fpn_channels": "pyramid_channels",
    "box_conv_dims": "box_convs",
    "box_fc_dims": "box_layers",
    "num_classes": "num_classes",
    "square_pad": "square",
}
RPN = {
    "batch_size_per_image": "batch_per_image",
    "positive_fraction": "positive_fraction",
    "pre_nms_topk": "best_per_level",
    "post_nms_topk": "best_per_image",
    "nms_thresh": "nms_iou",
    "min_box_size": "min_side",
}
ROI_HEADS = {
    "batch_size_per_image": "batch_per_image",
    "positive_fraction": "positive_fraction",
    "proposal_append_gt": "add_objects",
    "num_classes": "num_classes",
}
PREDICTOR = {"test_score_thresh": "min_score", "test_nms_thresh": "nms_iou", "test_topk_per_image": "max_detections"}
SCORING = {"fed_loss_num_classes": "federated_classes"}


def detector_config(build: Mapping[str, Any]) -> DetectorConfig:
    """The configuration that a fixture's ``build`` names and edits.

    Raises:
        ValueError: An edit that no field of ours stands for; all of them are named.
    """
    config, edit = DETECTORS[ALIASES[config_name(build["config"])]], dict(build.get("edit", {}))
    if "bottom_up" in edit:
        settings = {**detectron2_settings(config.backbone), **edit.pop("bottom_up")}
        config = replace(config, backbone=detectron2_config(settings))
    if "mask_conv_dims" in edit:
        *convs, deconv = edit.pop("mask_conv_dims")
        config = replace(config, mask_convs=tuple(convs), mask_deconv=deconv)
    rpn, roi_heads, predictor = (dict(edit.pop(name, {})) for name in ("rpn", "roi_heads", "predictor"))
    scoring = {name: predictor.pop(name) for name in list(predictor) if name in SCORING}
    return replace(
        config,
        proposals=replace(config.proposals, **translated(rpn, RPN, "rpn")),
        selection=replace(config.selection, **translated(predictor, PREDICTOR, "predictor")),
        **translated(edit, PLAIN, "edit"),
        **translated(roi_heads, ROI_HEADS, "roi_heads"),
        **translated(scoring, SCORING, "predictor"),
    )


def config_name(path: str) -> str:
    """``projects/ViTDet/configs/LVIS/x.py`` is ``LVIS/x``."""
    found = PurePosixPath(path)
    data = f"{found.parent.name}/" if found.parent.name in ("COCO", "LVIS") else ""
    return data + found.stem


def translated(values: Mapping[str, Any], names: Mapping[str, str], what: str) -> dict[str, Any]:
    """Arguments of detectron2 as fields of ours."""
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ValueError(f"{what} edits {unknown}, which the published detectors leave alone; known are {list(names)}")
    return {names[n]: tuple(v) if isinstance(v, list) else v for n, v in values.items()}


def as_arrays(found: Mapping[str, Tensor]) -> dict[str, Any]:
    """Tensors as NumPy arrays, as the comparers take them."""
    return {name: value.detach().numpy() for name, value in found.items()}


def dtype_of(precision: str) -> torch.dtype:
    """``float32`` or ``float64``."""
    return {"float32": torch.float32, "float64": torch.float64}[precision]


def our_name(name: str) -> str:
    """A parameter of detectron2 under our name: only the backbone's output norms are called otherwise."""
    return re.sub(r"bottom_up\.scale(\d)_norm\.", lambda m: f"bottom_up.output_norms.{int(m[1]) - 2}.", name)


def their_name(name: str) -> str:
    """Undo :func:`our_name`."""
    return re.sub(r"bottom_up\.output_norms\.(\d)\.", lambda m: f"bottom_up.scale{int(m[1]) + 2}_norm.", name)
