"""From boxes and 28 x 28 masks in the model's input to boxes and masks in the image that people have."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mvitv2.tasks.detect.boxes import Size, clipped, precise, with_area


def rescaled(boxes: Tensor, size: Size, wanted: Size) -> tuple[Tensor, Tensor]:
    """Boxes in an image of another size, those without area left out.

    Args:
        boxes: ``(N, 4)``.
        size: Of the image they are in.
        wanted: Of the image they shall be in.

    Returns:
        ``(M, 4)``, and which of the ``N`` they are, ``(M,)``.
    """
    (height, width), (new_height, new_width) = size, wanted
    factors = boxes.new_tensor((new_width / width, new_height / height)).repeat(2)
    moved = clipped(boxes * factors, wanted)
    kept = with_area(moved).nonzero().flatten()
    return moved[kept], kept


def pasted(masks: Tensor, boxes: Tensor, size: Size, threshold: float = 0.5) -> Tensor:
    """Masks drawn into an image, one after another so that memory is that of the result.

    Args:
        masks: Probabilities ``(N, S, S)``.
        boxes: ``(N, 4)``.
        size: Of the image.
        threshold: Pixels of at least this are in the mask.

    Returns:
        bool ``(N, H, W)``.
    """
    image = torch.zeros((masks.shape[0], *size), dtype=torch.bool, device=masks.device)
    frames = torch.stack((boxes[:, :2].floor() - 1, boxes[:, 2:].ceil() + 1), dim=1).flatten(1)
    for canvas, mask, box, frame in zip(image, masks, boxes, frames.long().tolist(), strict=True):
        left, top, right, bottom = (max(n, 0) for n in frame)
        right, bottom = min(right, size[1]), min(bottom, size[0])
        columns = torch.arange(left, right, device=box.device, dtype=box.dtype)
        rows = torch.arange(top, bottom, device=box.device, dtype=box.dtype)
        x = (columns + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
        y = (rows + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
        places = torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x))), dim=2)
        values = precise(mask)
        drawn = F.grid_sample(values[None, None], places[None].to(values.dtype), align_corners=False)
        canvas[top:bottom, left:right] = drawn[0, 0] >= threshold
    return image
