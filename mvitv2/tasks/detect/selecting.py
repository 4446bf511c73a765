"""From scored boxes to detections: threshold, suppression within every class, the best of an image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mvitv2.tasks.detect.boxes import Size, clipped, suppressed
from mvitv2.tasks.detect.config import Selection


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first."""

    boxes: Tensor
    """``(N, 4)`` corners x1, y1, x2, y2 in pixels."""
    scores: Tensor
    """``(N,)``, 0..1."""
    labels: Tensor
    """``(N,)`` int64, 0-based classes."""
    masks: Tensor | None = None
    """bool ``(N, H, W)``; ``None`` for a detector of boxes."""

    def __len__(self) -> int:
        return self.boxes.shape[0]


@dataclass(frozen=True)
class Selected:
    """Detections in the coordinates of the model's input, before masks."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    rows: Tensor
    """Number of the proposal that each came from, ``(N,)``."""


def selected(boxes: Tensor, scores: Tensor, size: Size, selection: Selection) -> Selected:
    """The detections of one image (detectron2 ``fast_rcnn_inference_single_image``).

    Args:
        boxes: ``(N, 4)``, or ``(N, 4 K)`` one per class.
        scores: ``(N, K + 1)``, background last.
        size: Of the image before padding.
        selection: Thresholds.
    """
    finite = (boxes.isfinite().all(dim=1) & scores.isfinite().all(dim=1)).nonzero().flatten()
    boxes = clipped(boxes[finite].unflatten(1, (-1, 4)), size)
    scores = scores[finite, :-1]
    rows, labels = (scores > selection.min_score).nonzero(as_tuple=True)
    scores = scores[rows, labels]
    boxes = boxes[rows, labels if boxes.shape[1] > 1 else torch.zeros_like(labels)]
    kept = suppressed(boxes, scores, labels, selection.nms_iou)[: selection.max_detections]
    return Selected(boxes[kept], scores[kept], labels[kept], finite[rows[kept]])
