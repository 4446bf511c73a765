"""What a weights file is, in words and numbers, without building its model."""

from dataclasses import dataclass, fields
from typing import Any

import torch

from mvitv2.core.attend import reference
from mvitv2.core.config import MViTConfig
from mvitv2.core.reversible import build
from mvitv2.tasks.detect.detector import Detector
from mvitv2.weights.card import preprocessing_of, variant
from mvitv2.weights.detectors import COUNTED, outer_name
from mvitv2.weights.opened import Opened, Source, open_weights

NOT_CONVENTIONS = {
    "blocks",
    "input_size",
    "in_channels",
    "num_classes",
    "patch_kernel",
    "patch_stride",
    "patch_padding",
}


@dataclass(frozen=True)
class Inspection:
    """A weights file at a glance."""

    dialect: str
    variant: str | None
    task: str
    input_size: tuple[int, ...]
    num_classes: int
    classes: list[str]
    parameters: int
    container: str
    conventions: dict[str, Any]
    """Fields of the configuration that differ from the package's defaults."""
    preprocessing: dict[str, Any]
    assumed: list[str]
    missing: list[str]
    superfluous: list[str]
    """Names inside the backbone, or the detector, that no such model has."""
    left_out: list[str]


def inspect_weights(source: Source) -> Inspection:
    """Say what a file of any dialect holds.

    Raises:
        mvitv2.weights.files.WeightsFileError: The file cannot be read.
        mvitv2.weights.rename.DialectError: It is no MViT's.
    """
    opened = open_weights(source)
    config = opened.config
    wanted, present = wanted_and_present(opened)
    return Inspection(
        dialect=opened.dialect.name,
        variant=variant(opened),
        task=task_of(opened),
        input_size=config.input_size,
        num_classes=config.num_classes if opened.detector is None else opened.detector.num_classes,
        classes=list(opened.card.get("classes", [])),
        parameters=sum(v.numel() for v in opened.state.values()),
        container=opened.container,
        conventions=conventions(config),
        preprocessing=dict(opened.card.get("preprocessing") or preprocessing_of(opened).to_dict()),
        assumed=opened.assumed,
        missing=sorted(wanted - present),
        superfluous=sorted(present - wanted),
        left_out=opened.left_out,
    )


def wanted_and_present(opened: Opened) -> tuple[set[str], set[str]]:
    """Names that the whole model has, and those that are in the file: of a detector, or of a backbone."""
    with torch.device("meta"):
        if opened.detector is None:
            return set(build(opened.config, reference).state_dict()), set(opened.backbone)
        wanted = {name for name in Detector(opened.detector).state_dict() if not name.endswith(COUNTED)}
    return wanted, {outer_name(name) for name in opened.state if not name.endswith(COUNTED)}


def task_of(opened: Opened) -> str:
    """What a file was trained for."""
    if opened.settings.get("DETECTION", {}).get("ENABLE"):
        return "action detection"
    if opened.detector is not None:
        return "instance segmentation" if opened.detector.masks else "object detection"
    if opened.dialect.name == "detectron2" or any(b.window for b in opened.config.blocks):
        return "detection backbone"
    kind = "image" if opened.config.rank == len("hw") else "video"
    return f"{kind} {'classification' if opened.config.num_classes else 'features'}"


def conventions(config: MViTConfig) -> dict[str, Any]:
    """Choices of a configuration that are not the package's defaults."""
    usual = {f.name: f.default for f in fields(MViTConfig)}
    values = config.to_dict()
    return {n: v for n, v in values.items() if n not in NOT_CONVENTIONS and v != usual[n]}
