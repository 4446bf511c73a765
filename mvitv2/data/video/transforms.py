"""Frames of one clip, ``(T, 3, H, W)`` uint8, to what a model is given: one draw for all frames of a clip.

Both transforms are frozen data for tensors on any device, in loading processes or on a GPU; :class:`TrainClip` draws
from the global generators of ``random``, NumPy and torch, so that under :func:`mvitv2.data.samples.seeded` the same
seed gives the same clip.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mvitv2.data.augment import Augmentation, policy_of
from mvitv2.data.samples import seeded
from mvitv2.data.video.spatial import (
    centre,
    crop_corners,
    cut,
    erased,
    flipped,
    normalised,
    random_box,
    random_side,
    resized,
    short_side,
)
from mvitv2.extras import required
from mvitv2.preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True)
class ClipAugmentation(Augmentation):
    """What happens to a training clip; the defaults are SlowFast's for MViTv2 on Kinetics (``configs/Kinetics``).

    Raises:
        ValueError: A field is out of range.
    """

    policy: str | None = "rand-m7-n4-mstd0.5-inc1"
    """RandAugment in timm's notation, the same draw for every frame; ``None`` for none."""
    jitter: tuple[int, int] | None = None
    """Least and most of the shorter side before a random crop, in pixels, instead of ``scale`` and ``ratio``."""
    inverse_jitter: bool = True
    """Draw the shorter side uniformly in its inverse."""

    def __post_init__(self) -> None:
        """Also refuse a shorter side that cannot be drawn."""
        super().__post_init__()
        if self.jitter is not None and not 0 < self.jitter[0] <= self.jitter[1]:
            raise ValueError(f"jitter={self.jitter} must be two numbers of pixels above 0, the smaller first")


KINETICS_CLIPS = ClipAugmentation()
"""Kinetics: inception-style crops, flips, RandAugment 7/4, erasing 0.25."""
SSV2_CLIPS = ClipAugmentation(jitter=(256, 320), flip=0.0)
"""Something-Something v2: shorter side 256 to 320, no flips, because classes have a direction."""
MASKFEAT_CLIPS = ClipAugmentation(scale=(0.5, 1.0), policy=None, erase_probability=0.0)
"""MaskFeat's pre-training: large crops and flips alone."""
PLAIN_CLIPS = ClipAugmentation(policy=None, erase_probability=0.0)
"""Crops and flips alone."""


@dataclass(frozen=True)
class EvalClip:
    """Frames to the clips a model is evaluated on: one at the centre, or three along the longer side.

    For three the shorter side is resized to the crop (SlowFast ``kinetics.py``, ``NUM_SPATIAL_CROPS``).
    """

    preprocessing: Preprocessing
    crops: int = 1

    def __post_init__(self) -> None:
        """Fail here rather than in a worker."""
        _side(self.preprocessing)
        if self.crops not in (1, 3):
            raise ValueError(f"crops={self.crops} must be 1 (the centre) or 3 (along the longer side)")

    def __call__(self, frames: Tensor) -> Tensor:
        """``(crops, C, T, H, W)`` float32 of ``(T, 3, H, W)`` uint8."""
        rule, crop = self.preprocessing.clip_rule, _crop(self.preprocessing)
        target = min(crop) if self.crops == 3 else _side(self.preprocessing)
        values = resized(frames, short_side((frames.shape[-2], frames.shape[-1]), target, rule), rule)
        size = (values.shape[-2], values.shape[-1])
        corners = [centre(size, crop, rule)] if self.crops == 1 else crop_corners(size, crop, self.crops)
        return torch.stack([normalised(cut(values, corner, crop), self.preprocessing) for corner in corners])


@dataclass(frozen=True)
class TrainClip:
    """Frames to an augmented clip, in SlowFast's order: policy, crop, flip, normalisation, erasing.

    Needs the extra ``train`` where there is a policy or a jitter of colours.
    """

    preprocessing: Preprocessing
    augmentation: ClipAugmentation = KINETICS_CLIPS

    def __post_init__(self) -> None:
        """Fail here rather than in a worker."""
        _crop(self.preprocessing)
        if self.augmentation.policy is not None:
            policy_of(self.augmentation.policy, 256, self.preprocessing.interpolation)

    def __call__(self, frames: Tensor) -> Tensor:
        """``(C, T, H, W)`` float32 of ``(T, 3, H, W)`` uint8."""
        augmentation = self.augmentation
        frames = coloured(drawn(frames, self.preprocessing, augmentation), augmentation)
        clip = normalised(random_crop(frames, self.preprocessing, augmentation), self.preprocessing)
        return erased(clip, augmentation.erase_probability, augmentation.erase_mode, augmentation.erase_count)


@dataclass(frozen=True)
class CropClip:
    """What loading processes do where :class:`mvitv2.data.video.device.DeviceClipAugmentation` does the rest."""

    preprocessing: Preprocessing
    augmentation: ClipAugmentation = KINETICS_CLIPS

    def __call__(self, frames: Tensor) -> Tensor:
        """A random crop, resized, and maybe flipped: ``(3, T, H, W)`` uint8 of ``(T, 3, H, W)`` uint8."""
        values = random_crop(frames, self.preprocessing, self.augmentation)
        return values.round_().clamp_(0, 255).to(torch.uint8).transpose(0, 1).contiguous()


def random_crop(frames: Tensor, preprocessing: Preprocessing, augmentation: ClipAugmentation) -> Tensor:
    """One crop and flip for all frames, ``(T, C, H, W)`` float32 of 0..255."""
    rule, crop = preprocessing.clip_rule, _crop(preprocessing)
    size = (frames.shape[-2], frames.shape[-1])
    if augmentation.jitter is None:
        top, left, height, width = random_box(size, augmentation.scale, augmentation.ratio)
        values = resized(frames[..., top : top + height, left : left + width], crop, rule)
    else:
        side = random_side(*augmentation.jitter, inverse=augmentation.inverse_jitter)
        values = resized(frames, short_side(size, side, rule), rule)
        room = [max(0, values.shape[axis] - crop[axis]) for axis in (-2, -1)]
        # numpy's randint leaves out its upper end (transform.py, random_crop)
        corner = tuple(np.random.randint(0, part) if part else 0 for part in room)
        values = cut(values, (corner[0], corner[1]), crop)
    return flipped(values, augmentation.flip)


def drawn(frames: Tensor, preprocessing: Preprocessing, augmentation: ClipAugmentation) -> Tensor:
    """The policy, timm's, with the same draw for every frame; on the CPU."""
    if augmentation.policy is None:
        return frames
    policy = policy_of(augmentation.policy, min(frames.shape[-2:]), preprocessing.interpolation)
    seed = int(torch.randint(1 << 62, ()))
    changed: list[np.ndarray] = []
    for frame in frames.permute(0, 2, 3, 1).cpu().numpy():
        with seeded(seed):
            changed.append(np.asarray(policy(Image.fromarray(frame))))
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).to(frames.device)


def coloured(frames: Tensor, augmentation: Augmentation) -> Tensor:
    """Brightness, contrast and saturation, the same draw for every frame: torchvision's, on any device."""
    if not augmentation.color_jitter:
        return frames
    transforms: Any = required("torchvision.transforms.v2", extra="train")
    return transforms.ColorJitter(*(augmentation.color_jitter,) * 3)(frames)


def _crop(preprocessing: Preprocessing) -> tuple[int, int]:
    """The size of the crop.

    Raises:
        ValueError: There is none, or the record is for pictures.
    """
    if preprocessing.size is None or preprocessing.num_frames is None:
        given = f"size={preprocessing.size}, num_frames={preprocessing.num_frames}"
        raise ValueError(f"clips need a size and num_frames in the preprocessing, got {given}")
    return preprocessing.size


def _side(preprocessing: Preprocessing) -> int:
    """The shorter side before the crop.

    Raises:
        ValueError: It is no single number.
    """
    crop = _crop(preprocessing)
    side = preprocessing.resize if preprocessing.resize is not None else min(crop)
    if isinstance(side, tuple):
        raise ValueError(f"resize={side}: clips are resized to a shorter side, one number")
    return side
