"""From images of mixed sizes to one batch: every one normalised, then padded, so that padding is 0."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from mvitv2.tasks.detect.boxes import Size
from mvitv2.tasks.detect.config import DetectorConfig

DIVISOR = 32
"""Sides of a batch are multiples of the coarsest backbone stride."""


def prepared(images: Sequence[Tensor], config: DetectorConfig, like: Tensor) -> tuple[Tensor, list[Size]]:
    """A batch, and the sizes that its images had.

    Args:
        images: ``(3, H, W)`` red, green, blue of 0..255, of any number type.
        config: Has mean, deviation and the side of squares.
        like: Tensor whose device and type the batch takes.

    Returns:
        ``(B, 3, H', W')``, images at the top left; and their ``(H, W)``.

    Raises:
        ValueError: There is no image, or one of another form.
    """
    check(images)
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    height, width = (rounded(max(side)) for side in zip(*sizes, strict=True))
    if config.square:
        # images beyond the square are kept whole; detectron2 would cut them
        height = width = max(rounded(config.square), height, width)
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    mean, std = (channels(values, dtype, like.device) for values in (config.pixel_mean, config.pixel_std))
    batch = []
    for image, (h, w) in zip(images, sizes, strict=True):
        normal = (image.to(device=like.device, dtype=dtype, non_blocking=True) - mean) / std
        batch.append(F.pad(normal, (0, width - w, 0, height - h)))
    return torch.stack(batch).to(like.dtype), sizes


def check(images: Sequence[Tensor]) -> None:
    """Refuse what is no list of images, with what came instead."""
    if isinstance(images, Tensor):
        raise TypeError(f"images are a list of (3, H, W), got one tensor of {tuple(images.shape)}; list(images) is one")
    if not images:
        raise ValueError("a detector needs at least one image, got an empty list")
    wrong = [tuple(image.shape) for image in images if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape]
    if wrong:
        raise ValueError(f"images are (3, H, W) with values 0..255, got {wrong[0]} ({len(wrong)} of {len(images)})")


def rounded(side: int) -> int:
    """The next multiple of ``DIVISOR``."""
    return -(-side // DIVISOR) * DIVISOR


@lru_cache(maxsize=16)
def channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """One number per channel, ``(C, 1, 1)``, rounded to float32 as released."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32).to(device=device, dtype=dtype)[:, None, None]
