"""Boxes as numbers: ``(N, 4)`` corners x1, y1, x2, y2 in pixels, always in float32 or better.

Half precision has 11 bits: at 1024 pixels it would round corners to whole ones.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mvitv2.extras import required

Size = tuple[int, int]
"""Height and width of an image in pixels."""
LARGEST_STEP = math.log(1000 / 16)
"""A box grows at most by this factor's logarithm in one decoding (detectron2 ``box_regression.py:14``)."""


def precise(x: Tensor) -> Tensor:
    """The tensor in float32, unless it is in float64."""
    return x if x.dtype == torch.float64 else x.float()


def centres_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre x and y, width and height, ``(N,)`` each."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return boxes[:, 0] + 0.5 * width, boxes[:, 1] + 0.5 * height, width, height


def encoded(boxes: Tensor, targets: Tensor, weights: Sequence[float]) -> Tensor:
    """What a regressor should say of ``boxes`` to arrive at ``targets``, ``(N, 4)``: the inverse of :func:`decoded`."""
    x, y, width, height = centres_and_sides(boxes)
    target_x, target_y, target_width, target_height = centres_and_sides(targets)
    wx, wy, ww, wh = weights
    steps = (
        wx * (target_x - x) / width,
        wy * (target_y - y) / height,
        ww * torch.log(target_width / width),
        wh * torch.log(target_height / height),
    )
    return torch.stack(steps, dim=1)


def decoded(deltas: Tensor, boxes: Tensor, weights: Sequence[float]) -> Tensor:
    """Boxes moved and grown by what a regressor said of them.

    Args:
        deltas: ``(N, 4 K)`` for ``K`` classes: dx, dy in sides of the box, dw, dh as logarithms, all times ``weights``.
        boxes: ``(N, 4)``.
        weights: Of dx, dy, dw, dh.

    Returns:
        ``(N, 4 K)``.
    """
    deltas = precise(deltas).unflatten(1, (-1, 4))
    x, y, width, height = (part[:, None] for part in centres_and_sides(boxes.to(deltas.dtype)))
    dx, dy, dw, dh = (part / weight for part, weight in zip(deltas.unbind(2), weights, strict=True))
    new_x, new_y = dx * width + x, dy * height + y
    new_width = torch.exp(dw.clamp(max=LARGEST_STEP)) * width
    new_height = torch.exp(dh.clamp(max=LARGEST_STEP)) * height
    corners = (new_x - 0.5 * new_width, new_y - 0.5 * new_height, new_x + 0.5 * new_width, new_y + 0.5 * new_height)
    return torch.stack(corners, dim=2).flatten(1)


def clipped(boxes: Tensor, size: Size) -> Tensor:
    """The part of every box that lies in the image, ``(..., 4)``."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    inside = (x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height))
    return torch.stack(inside, dim=-1)


def with_area(boxes: Tensor, min_side: float = 0.0) -> Tensor:
    """Which boxes are wider and higher than ``min_side``, ``(N,)`` bool."""
    return (boxes[:, 2] - boxes[:, 0] > min_side) & (boxes[:, 3] - boxes[:, 1] > min_side)


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of every pair, ``(N, M)``; 0 where both are without area."""
    iou: Tensor = required("torchvision.ops", extra="detect").box_iou(boxes, others)
    return iou.nan_to_num(nan=0.0)


def suppressed(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """Indices of the boxes that no higher one of their group overlaps by more than ``iou``, best score first."""
    return required("torchvision.ops", extra="detect").batched_nms(precise(boxes), scores, groups, iou)
