"""From the map of a box to the outline of what is in it: one mask of 28 x 28 per class."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvitv2.tasks.detect.boxes import precise
from mvitv2.tasks.detect.config import DetectorConfig
from mvitv2.tasks.detect.layers import Conv

MAP_SIDE, MASK_SIDE = 14, 28


class MaskHead(nn.Sequential):
    """Convolutions, a deconvolution that doubles the side, a mask per class: ``(N, C, 14, 14) -> (N, K, 28, 28)``."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        channels = config.pyramid_channels
        for number, width in enumerate(config.mask_convs, start=1):
            self.add_module(f"mask_fcn{number}", Conv(channels, width, config.head_norm))
            channels = width
        self.add_module("deconv", nn.ConvTranspose2d(channels, config.mask_deconv, 2, stride=2))
        self.add_module("deconv_relu", nn.ReLU())
        self.add_module("predictor", nn.Conv2d(config.mask_deconv, config.num_classes, 1))


def of_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """The mask of every row's own class: ``(N, K, S, S)`` and ``(N,)`` to ``(N, S, S)``."""
    return logits[torch.arange(len(labels), device=labels.device), labels]


def mask_loss(logits: Tensor, labels: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over objects and pixels; 0 with a gradient where there is no object.

    Args:
        logits: ``(N, K, S, S)``.
        labels: ``(N,)``.
        truth: bool ``(N, S, S)``.
    """
    if not labels.numel():
        return logits.sum() * 0.0
    own: Any = precise(of_classes(logits, labels))
    return F.binary_cross_entropy_with_logits(own, truth.to(own.dtype))
