"""Frames and boxes changed together: SlowFast's transforms for AVA (``ava_dataset.py``), for ``(T, 3, H, W)`` uint8."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mvitv2.data.video.spatial import cut, normalised, random_side, resized, short_side
from mvitv2.data.video.transforms import ClipAugmentation, coloured
from mvitv2.preprocessing import Preprocessing

AVA_CLIPS = ClipAugmentation(jitter=(256, 320), policy=None, erase_probability=0.0)
"""Shorter side 256 to 320, a crop, a flip."""


@dataclass(frozen=True)
class WholeFrames:
    """Frames as they are tested: the shorter side resized, nothing cut off, whatever the shape."""

    preprocessing: Preprocessing

    def __call__(self, frames: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """``(C, T, H, W)`` float32, and ``(K, 4)`` boxes in its pixels from boxes in parts of the frame."""
        record = self.preprocessing
        target = record.resize if isinstance(record.resize, int) else min(record.size or frames.shape[-2:])
        size = short_side((frames.shape[-2], frames.shape[-1]), target, record.clip_rule)
        values = resized(frames, size, record.clip_rule)
        return normalised(values, record), boxes * boxes.new_tensor((size[1], size[0], size[1], size[0]))


@dataclass(frozen=True)
class CroppedFrames:
    """Frames as they are trained on: resized at random, cropped, maybe flipped; boxes go along and are cut off."""

    preprocessing: Preprocessing
    augmentation: ClipAugmentation = AVA_CLIPS

    def __post_init__(self) -> None:
        """Fail here rather than in a worker."""
        if self.preprocessing.size is None or self.augmentation.jitter is None:
            raise ValueError(
                f"size={self.preprocessing.size}, jitter={self.augmentation.jitter}: boxes are trained on crops of "
                "frames whose shorter side is drawn from jitter"
            )

    def __call__(self, frames: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """``(C, T, H, W)`` float32, and ``(K, 4)`` boxes in its pixels from boxes in parts of the frame."""
        record, augmentation = self.preprocessing, self.augmentation
        crop = record.size or (0, 0)
        side = random_side(*(augmentation.jitter or crop), inverse=augmentation.inverse_jitter)
        size = short_side((frames.shape[-2], frames.shape[-1]), max(side, *crop), record.clip_rule)
        values = resized(coloured(frames, augmentation), size, record.clip_rule)
        room = [max(0, have - want) for have, want in zip(size, crop, strict=True)]
        top, left = (int(np.random.randint(0, part + 1)) for part in room)
        boxes = boxes * boxes.new_tensor((size[1], size[0], size[1], size[0])) - boxes.new_tensor((left, top) * 2)
        values, boxes = cut(values, (top, left), crop), clipped(boxes, crop)
        if augmentation.flip and float(torch.rand(())) < augmentation.flip:
            values, boxes = values.flip(-1), flipped(boxes, crop[1])
        return normalised(values, record), boxes


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes cut off at the border of ``(H, W)`` pixels; one that lies outside has no area."""
    limits = boxes.new_tensor((size[1], size[0], size[1], size[0]))
    return boxes.clamp(min=0).minimum(limits)


def flipped(boxes: Tensor, width: int) -> Tensor:
    """Boxes of frames whose left and right changed places."""
    left, top, right, bottom = boxes.unbind(dim=1)
    return torch.stack((width - right, top, width - left, bottom), dim=1)
