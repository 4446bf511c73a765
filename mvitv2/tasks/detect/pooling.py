"""From boxes and a pyramid to maps of one size: RoIAlign on the level that a box's size asks for.

``torchvision.ops.MultiScaleRoIAlign`` chooses levels and samples otherwise; see docs/decisions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mvitv2.extras import required
from mvitv2.tasks.detect.boxes import precise

USUAL_SIDE, USUAL_LEVEL = 224, 4
"""A box of 224 pixels' side belongs to level 4, as an image of pre-training did (Lin et al. 2017, eq. 1)."""
FINEST = 2
"""Number of the finest level: its stride is 4."""


def level_of(boxes: Tensor, levels: int) -> Tensor:
    """Which of the pyramid's levels a box is pooled from, ``(N,)`` int64 from 0."""
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
    number = (USUAL_LEVEL + torch.log2(sides / USUAL_SIDE + 1e-8)).floor()
    return number.clamp(FINEST, FINEST + levels - 1).to(torch.int64) - FINEST


def pooled(levels: Sequence[Tensor], boxes: Sequence[Tensor], side: int) -> Tensor:
    """Maps of boxes, image after image.

    Args:
        levels: ``(B, C, H, W)`` of strides 4, 8, ...
        boxes: ``(N, 4)`` per image, in pixels.
        side: Of the maps.

    Returns:
        ``(sum N, C, side, side)``.
    """
    roi_align = required("torchvision.ops", extra="detect").roi_align
    image_of = [torch.full_like(one[:, :1], number) for number, one in enumerate(boxes)]
    rois = torch.cat((torch.cat(image_of), torch.cat(list(boxes))), dim=1)
    place = level_of(rois[:, 1:], len(levels))
    parts, rows = [], []
    for number, level in enumerate(levels):
        here = (place == number).nonzero().flatten()
        scale = 1 / 2 ** (FINEST + number)
        exact = precise(level)
        crops = roi_align(exact, rois[here].to(exact.dtype), (side, side), scale, sampling_ratio=0, aligned=True)
        parts.append(crops.to(level.dtype))
        rows.append(here)
    return torch.cat(parts)[torch.cat(rows).argsort()]
