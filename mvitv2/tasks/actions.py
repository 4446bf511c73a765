"""Action detection: scores for boxes in a clip (AVA; SlowFast ``head_helper.py`` ``ResNetRoIHead``)."""

import torch.nn.functional as F
from torch import Tensor, nn

from mvitv2.core.grid import num_prefix
from mvitv2.core.model import MViT
from mvitv2.core.stages import TIME_AND_SPACE
from mvitv2.extras import required


class RoIClassifier(nn.Module):
    """A clip model whose classifier sees one box at a time: time averaged, RoIAlign, the maximum over the box.

    Args:
        model: An MViT for clips; its classifier is used for the boxes.
        scale: Tokens per pixel; 1/32 for the released models' stride.
        resolution: Samples per side of a box.
        aligned: RoIAlign with half-pixel centres, or the older one without.

    Raises:
        ValueError: The model is one for images.
        mvitv2.extras.MissingExtra: torchvision is not installed.
    """

    def __init__(self, model: MViT, *, scale: float = 1 / 32, resolution: int = 7, aligned: bool = True):
        super().__init__()
        if model.config.rank != TIME_AND_SPACE:
            raise ValueError(f"boxes in clips need a model for clips, this one takes {model.config.input_size} pixels")
        self.roi_align = required("torchvision.ops", extra="video").roi_align
        self.mvit = model
        self.scale, self.resolution, self.aligned = scale, resolution, aligned

    def forward(self, clips: Tensor, boxes: Tensor) -> Tensor:
        """Scores of boxes, ``(K, classes)``.

        Args:
            clips: ``(B, C, T, H, W)``.
            boxes: ``(K, 5)`` of (clip, x1, y1, x2, y2) in pixels.
        """
        return self.mvit.head(self.features(clips, boxes))

    def features(self, clips: Tensor, boxes: Tensor) -> Tensor:
        """What the classifier sees of every box, ``(K, C)``."""
        x, grid = self.mvit.trunk(clips)[-1]
        x = self.mvit.norm(x)
        lattice = x[:, num_prefix(x, grid) :].transpose(1, 2).unflatten(2, grid).mean(dim=2)
        size = (self.resolution, self.resolution)
        crops = self.roi_align(lattice, boxes.to(lattice.dtype), size, self.scale, 0, self.aligned)
        return F.max_pool2d(crops, size).flatten(1)
