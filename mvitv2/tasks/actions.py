"""Action detection: scores for boxes in a clip (AVA; SlowFast ``head_helper.py`` ``ResNetRoIHead``)."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mvitv2.core.grid import num_prefix
from mvitv2.core.masked import token_stride
from mvitv2.core.model import MViT
from mvitv2.core.stages import TIME_AND_SPACE
from mvitv2.extras import required

RESOLUTION = 7
"""Samples per side of a box."""


class RoIClassifier(nn.Module):
    """A clip model whose classifier sees one box at a time: time averaged, RoIAlign, the maximum over the box.

    Frames may have any size and shape: the grid follows from them, and boxes are in their pixels.

    Args:
        model: An MViT for clips; its classifier is used for the boxes.
        scale: Tokens per pixel; ``None``: of the model, 1/32 for the released ones (SlowFast's own default of 1/16 is
            of ResNets whose last stage keeps its grid, and gives half-sized boxes here).
        resolution: Samples per side of a box.
        aligned: RoIAlign with half-pixel centres, or the older one without.

    Raises:
        ValueError: The model is one for images.
        mvitv2.extras.MissingExtra: torchvision is not installed.
    """

    def __init__(self, model: MViT, *, scale: float | None = None, resolution: int = RESOLUTION, aligned: bool = True):
        super().__init__()
        self.scale = tokens_per_pixel(model) if scale is None else scale
        self.roi_align = required("torchvision.ops", extra="video").roi_align
        self.mvit = model
        self.resolution, self.aligned = resolution, aligned

    def forward(self, clips: Tensor, boxes: Tensor) -> Tensor:
        """Scores of boxes, ``(K, classes)``.

        Args:
            clips: ``(B, C, T, H, W)``.
            boxes: ``(K, 5)`` of (clip, x1, y1, x2, y2) in pixels.
        """
        return self.mvit.head(self.features(clips, boxes))

    def features(self, clips: Tensor, boxes: Tensor) -> Tensor:
        """What the classifier sees of every box, ``(K, C)``."""
        lattice = over_time(self.mvit, clips)
        return in_boxes(lattice, boxes, self.roi_align, self.scale, resolution=self.resolution, aligned=self.aligned)


class ActionMViT(MViT):
    """A clip model that is trained on boxes; its parameters are those of the plain model of its configuration."""

    def forward(self, pixels: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Scores of boxes ``(K, classes)``; of whole clips where no boxes are given.

        Args:
            pixels: ``(B, C, T, H, W)``.
            boxes: ``(K, 5)`` of (clip, x1, y1, x2, y2) in pixels.
        """
        if boxes is None:
            return super().forward(pixels)
        roi_align = required("torchvision.ops", extra="video").roi_align
        return self.head(in_boxes(over_time(self, pixels), boxes, roi_align, tokens_per_pixel(self)))


def tokens_per_pixel(model: MViT) -> float:
    """The scale from pixels of a frame to tokens of the last stage.

    Raises:
        ValueError: The model is one for images, or its tokens are not square.
    """
    if model.config.rank != TIME_AND_SPACE:
        raise ValueError(f"boxes in clips need a model for clips, this one takes {model.config.input_size} pixels")
    height, width = token_stride(model.config)[-2:]
    if height != width:
        raise ValueError(f"tokens of {height} x {width} pixels: boxes need square ones")
    return 1 / height


def over_time(model: MViT, clips: Tensor) -> Tensor:
    """The normed tokens that leave the last block, averaged over time, as a map ``(B, C, h, w)``."""
    x, grid = model.trunk(clips)[-1]
    x = model.norm(x)
    return x[:, num_prefix(x, grid) :].transpose(1, 2).unflatten(2, grid).mean(dim=2)


def in_boxes(
    lattice: Tensor, boxes: Tensor, roi_align: Any, scale: float, *, resolution: int = RESOLUTION, aligned: bool = True
) -> Tensor:
    """The maximum of a map ``(B, C, h, w)`` over each box, ``(K, C)``."""
    size = (resolution, resolution)
    crops = roi_align(lattice, boxes.to(lattice.dtype), size, scale, 0, aligned)
    return F.max_pool2d(crops, size).flatten(1)
