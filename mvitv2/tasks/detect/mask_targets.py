"""What a mask head should answer: an object's outline, cut to a proposal and drawn at 28 x 28."""

import numpy as np
import torch
from torch import Tensor

from mvitv2.data.instances import Instances, Polygons
from mvitv2.extras import required

SMALLEST_SIDE = 0.1
"""Pixels that a proposal is taken to be wide and high at least (detectron2 ``structures/masks.py``)."""


def mask_targets(target: Instances, objects: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Masks of objects as seen by proposals, bool ``(N, side, side)``.

    Args:
        target: The objects of an image, with masks.
        objects: Which of them each proposal stands for, ``(N,)``.
        boxes: Proposals, ``(N, 4)``.
        side: Of the masks.

    Raises:
        ValueError: The objects have no masks.
    """
    if target.masks is None:
        raise ValueError(
            "training with masks needs Instances.masks; for boxes alone build the detector with masks=False"
        )
    if isinstance(target.masks, Tensor):
        return cut_bitmaps(target.masks, objects, boxes, side)
    return drawn_polygons(target.masks, objects, boxes, side)


def cut_bitmaps(masks: Tensor, objects: Tensor, boxes: Tensor, side: int) -> Tensor:
    """RoIAlign of bool masks ``(M, H, W)``, at least one half."""
    roi_align = required("torchvision.ops", extra="detect").roi_align
    rows = torch.arange(len(objects), device=boxes.device, dtype=boxes.dtype)[:, None]
    chosen = masks.to(boxes.device)[objects, None].to(boxes.dtype)
    values = roi_align(chosen, torch.cat((rows, boxes), dim=1), (side, side), 1.0, sampling_ratio=0, aligned=True)
    return values[:, 0] >= 0.5


def drawn_polygons(masks: Polygons, objects: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Polygons moved and scaled into their proposals, and drawn by the rules of the COCO API."""
    coco = required("faster_coco_eval.core", extra="detect").mask
    corners = boxes.detach().cpu()
    scales = side / (corners[:, 2:] - corners[:, :2]).clamp(min=SMALLEST_SIDE)
    drawn = np.zeros((len(objects), side, side), dtype=bool)
    for row, (number, corner, scale) in enumerate(zip(objects.tolist(), corners[:, :2], scales, strict=True)):
        # the API takes two corners for a box of x, y, width, height
        parts = [part.cpu().double() for part in masks[number] if part.shape[0] > 2]
        moved = [((part - corner) * scale).flatten().tolist() for part in parts]
        if moved:
            drawn[row] = coco.decode(coco.merge(coco.frPyObjects(moved, side, side)))
    return torch.from_numpy(drawn).to(boxes.device)
