"""Histograms of oriented gradients (Dalal and Triggs, CVPR 2005) as MaskFeat's targets, on the device of the pixels.

The conventions are SlowFast's (``models/operators.py`` ``HOGLayerC``): 3 x 3 Sobel filters on the picture mirrored by
one pixel, each colour by itself; the direction counts without its sign, from the vertical axis, in 9 bins of 20
degrees; a pixel gives its whole magnitude to one bin of one cell; cells of 8 pixels, each brought to length 1 over its
bins by itself; no Gaussian window.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mvitv2.core.config import MViTConfig
from mvitv2.core.masked import token_stride

BINS = 9
CELL = 8
"""Side of a cell, pixels."""
SOBEL = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))


def sobel(like: Tensor) -> Tensor:
    """The filters for columns and rows, ``(2, 1, 3, 3)``, of the type of ``like``."""
    kernel = like.new_tensor(SOBEL)
    return torch.stack((kernel, kernel.T))[:, None]


@torch.no_grad()
def hog(pixels: Tensor, bins: int = BINS, cell: int = CELL) -> Tensor:
    """Histograms of every cell and colour.

    Args:
        pixels: ``(B, C, H, W)``; brightness and contrast do not matter. What is over a whole number of cells is left
            out.
        bins: Over half a turn.
        cell: Side of a cell in pixels.

    Returns:
        ``(B, C, bins, H // cell, W // cell)``, of length 1 over the bins, or 0 where nothing changes.
    """
    b, c, height, width = pixels.shape
    mirrored = F.pad(pixels.reshape(b * c, 1, height, width), (1, 1, 1, 1), mode="reflect")
    columns, rows = F.conv2d(mirrored, sobel(pixels)).unbind(dim=1)
    magnitude = torch.hypot(columns, rows)
    place = (torch.atan2(columns, rows) / math.pi * bins).floor().long() % bins
    votes = pixels.new_zeros(b * c, bins, height, width).scatter_(1, place[:, None], magnitude[:, None])
    cells = F.avg_pool2d(votes, cell)  # the mean is the sum but for a factor, which the norm takes away
    return F.normalize(cells, dim=1).unflatten(0, (b, c))


def num_targets(config: MViTConfig) -> int:
    """Numbers told per token: colours, bins and the cells that a token covers; 108 for the published models.

    Raises:
        ValueError: A token covers no whole number of cells.
    """
    return config.in_channels * BINS * cells_per_side(config) ** 2


def cells_per_side(config: MViTConfig) -> int:
    """Cells along each side of a token.

    Raises:
        ValueError: It is no whole number, or not the same for both sides.
    """
    height, width = token_stride(config)[-2:]
    if height != width or height % CELL:
        raise ValueError(f"a token covers {height} x {width} pixels, expected a square of whole cells of {CELL}")
    return height // CELL


def hog_targets(pixels: Tensor, config: MViTConfig) -> Tensor:
    """What a masked model is to tell of every token, ``(B, N', targets)``; of a clip, of the first frame of each token.

    Args:
        pixels: ``(B, C, H, W)`` or ``(B, C, T, H, W)``.
        config: Of the encoder.

    Raises:
        ValueError: The size is no whole number of tokens.
    """
    side, stride = cells_per_side(config), token_stride(config)
    frames = pixels[:, :, None] if config.rank == len("hw") else pixels[:, :, :: stride[0]]
    if any(n % s for n, s in zip(pixels.shape[-2:], stride[-2:], strict=True)):
        raise ValueError(
            f"pictures of {tuple(pixels.shape[-2:])} pixels are no whole number of tokens of {stride[-2:]} pixels; "
            "choose an img_size that is"
        )
    batch, channels, times = frames.shape[:3]
    cells = hog(frames.transpose(1, 2).flatten(0, 1)).flatten(1, 2)
    tokens = cells.unfold(2, side, side).unfold(3, side, side)  # (B T, C bins, h, w, side, side)
    ordered = tokens.permute(0, 2, 3, 1, 4, 5).flatten(3)
    return ordered.reshape(batch, times * ordered.shape[1] * ordered.shape[2], channels * BINS * side**2)
