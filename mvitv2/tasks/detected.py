"""A detector of actions on keyframes: what it says about every box, and how good that is by AVA's measure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
import torch

from mvitv2.core.model import MViT
from mvitv2.data.actions.keyframes import ActionSample, Keyframes
from mvitv2.data.actions.tables import Box, Keyframe
from mvitv2.data.samples import Unreadable
from mvitv2.tasks.actions import RoIClassifier
from mvitv2.tasks.ava import BoxAP
from mvitv2.tasks.evaluation import AUTOCAST, evaluating, placed
from mvitv2.tasks.workers import loading


@dataclass(frozen=True)
class ActionEvaluation:
    """How good a detector of actions is."""

    precision: BoxAP
    names: Mapping[int, str]
    """Of the actions that count."""
    keyframes: int
    boxes: int
    detected: bool
    """Whether the boxes were those of detected people, or the true ones."""
    unreadable: list[Unreadable] = field(default_factory=list)
    lines: list[tuple[str, float, Box, int, float]] = field(default_factory=list)
    """Video, second, box, action, score: what the official evaluation reads; kept where that was asked for."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        counts = {"keyframes": self.keyframes, "boxes": self.boxes, "detected_boxes": self.detected}
        return {**self.precision.to_dict(self.names), **counts, "unreadable": [vars(u) for u in self.unreadable]}


def evaluate_actions(
    model: MViT,
    dataset: Keyframes,
    names: Mapping[int, str],
    *,
    workers: int = 0,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    keep: bool = False,
    on_frame: Callable[[int, int], None] | None = None,
) -> ActionEvaluation:
    """AVA's measure; frames are whole, of any shape, one keyframe at a time.

    Args:
        model: A model of clips whose classifier tells actions; left in the mode it was in.
        dataset: Keyframes with whole frames.
        names: Actions that count.
        workers: Processes that read videos.
        device: Where to compute; ``None``: where the model is.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (autocast).
        keep: Keep every line for the official evaluation.
        on_frame: Called with keyframes done and keyframes in all.

    Raises:
        ValueError: The model tells another number of actions than the data.
    """
    count = len(dataset.class_names)
    if model.config.num_classes != count:
        raise ValueError(f"the model tells {model.config.num_classes} actions apart, the data has {count}")
    truth = {frame.key: frame for frame in dataset.truth}
    result = ActionEvaluation(BoxAP(count), names, len(truth), 0, dataset.detected)
    placed(model, device)
    heads, boxes = RoIClassifier(model), 0
    each = [[index] for index in range(len(dataset))]
    with evaluating(model), loading(dataset, each, itemgetter(0), workers) as samples:
        for done, (frame, sample) in enumerate(zip(dataset.frames, samples, strict=True)):
            true = truth.pop(frame.key)
            if isinstance(sample, Unreadable):
                result.unreadable.append(sample)
            else:
                scores = scored(heads, sample, precision)
                boxes += len(scores)
                result.precision.add(frame.boxes, scores, true.boxes, true.actions)
                result.lines.extend(lines_of(frame, scores) if keep else ())
            if on_frame is not None:
                on_frame(done + 1, len(dataset))
    for true in truth.values():  # keyframes without a detected box, and those of missing videos, were missed
        result.precision.add(np.empty((0, 4)), np.empty((0, count)), true.boxes, true.actions)
    return ActionEvaluation(
        result.precision, names, result.keyframes, boxes, dataset.detected, result.unreadable, result.lines
    )


def scored(heads: RoIClassifier, sample: ActionSample, precision: str) -> np.ndarray:
    """``(K, actions)``: what the boxes of a keyframe are said to do."""
    place, dtype = next(heads.parameters()).device, AUTOCAST[precision]
    with torch.inference_mode(), torch.autocast(place.type, dtype, enabled=dtype is not None):
        logits = heads(sample.clip[None].to(place), numbered(sample).to(place)).float()
    return (logits if heads.mvit.config.head_activation == "sigmoid" else logits.sigmoid()).cpu().numpy()


def numbered(sample: ActionSample) -> torch.Tensor:
    """``(K, 5)`` boxes of the only clip of a batch."""
    return torch.nn.functional.pad(sample.boxes, (1, 0))


def lines_of(frame: Keyframe, scores: np.ndarray) -> Iterator[tuple[str, float, Box, int, float]]:
    """A line for every box and action."""
    for box, row in zip(frame.boxes.tolist(), scores, strict=True):
        corners: Box = (box[0], box[1], box[2], box[3])
        yield from ((frame.video, frame.second, corners, number, float(score)) for number, score in enumerate(row))
