"""Augmentation on the device: loading processes crop and flip, the rest is done to whole batches where the model is.

RandAugment takes nine tenths of the time of a loading core. Here torchvision does it to tensors, with one draw for a
few neighbours of a batch; the operations and their strengths are torchvision's, so the numbers are not timm's, which
:class:`mvitv2.data.augment.TrainTransform` keeps to.
"""

import math
import random
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mvitv2.data.augment import AUTHORS, Augmentation, drawn
from mvitv2.data.samples import seeded
from mvitv2.data.transforms import in_channels
from mvitv2.extras import required
from mvitv2.preprocessing import Preprocessing

_POLICY = re.compile(r"rand(?:-(?:m\d+(?:\.\d+)?|n\d+|mstd\d+(?:\.\d+)?|inc[01]))*")
_BINS = 31
"""Strengths that torchvision knows, 0 to 30, where timm's go from 0 to 10."""
_ERASED = (0.02, 1 / 3)
_ASPECT = (0.3, 1 / 0.3)
"""Part of the picture that is erased, and height by width of it: timm's ``RandomErasing``."""


@dataclass(frozen=True)
class CropTransform:
    """What loading processes do: a random crop, resized, and flips; the pixels as they are. The extra ``train``."""

    preprocessing: Preprocessing
    augmentation: Augmentation = AUTHORS

    def __call__(self, image: Image.Image) -> Tensor:
        """``image`` as ``(C, H, W)`` uint8."""
        crop = replace(self.augmentation, policy=None, color_jitter=0.0, erase_probability=0.0)
        picture = in_channels(drawn(image, self.preprocessing, crop), self.preprocessing.channels)
        pixels = torch.from_numpy(np.array(picture))
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class DeviceAugmentation:
    """What happens to a batch of crops on its device; needs torchvision, the extra ``train``.

    Raises:
        ValueError: The policy is not RandAugment, or ``neighbours`` is below 1.
    """

    preprocessing: Preprocessing
    augmentation: Augmentation = AUTHORS
    neighbours: int = 4
    """Pictures that share one draw of RandAugment and colours."""

    def __post_init__(self) -> None:
        """Refuse what torchvision has not."""
        policy = self.augmentation.policy
        if policy is not None and not _POLICY.fullmatch(policy):
            raise ValueError(f"policy={policy!r} is not done on the device; RandAugment is, such as {AUTHORS.policy!r}")
        if self.neighbours < 1:
            raise ValueError(f"neighbours={self.neighbours} must be at least 1")

    def __call__(self, images: Tensor, *, seed: int) -> Tensor:
        """Augment and normalise a batch.

        Args:
            images: ``(B, C, H, W)`` uint8 of a :class:`CropTransform`, on any device.
            seed: Of this batch; the same gives the same.

        Returns:
            ``(B, C, H, W)`` float32, normalised.

        Raises:
            ValueError: ``images`` is something else.
        """
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise ValueError(f"expected uint8 (B, C, H, W) of CropTransform, got {images.dtype} {tuple(images.shape)}")
        with seeded(seed):
            groups = [self.coloured(group) for group in images.split(self.neighbours)]
            return self._erased(self._normalised(torch.cat(groups)))

    def coloured(self, images: Tensor) -> Tensor:
        """One draw of the policy and of colours, for a few pictures."""
        transforms: Any = required("torchvision.transforms.v2", extra="train")
        augmentation = self.augmentation
        if augmentation.color_jitter:
            strength = (augmentation.color_jitter,) * 3
            images = transforms.ColorJitter(*strength)(images) if images.shape[1] == 3 else images
        if augmentation.policy is None:
            return images
        strength, count = _strength(augmentation.policy)
        mean = self.preprocessing.mean[::-1] if self.preprocessing.channels == "bgr" else self.preprocessing.mean
        fill = [round(255 * value) for value in mean]
        return transforms.RandAugment(count, strength, _BINS, fill=fill)(images)

    def _normalised(self, images: Tensor) -> Tensor:
        """``images`` as the model wants them."""
        values = images.float().div_(255)
        if self.preprocessing.channels == "bgr":
            values = values.flip(1)
        mean, std = (values.new_tensor(v)[:, None, None] for v in (self.preprocessing.mean, self.preprocessing.std))
        return values.sub_(mean).div_(std)

    def _erased(self, images: Tensor) -> Tensor:
        """Rectangles of each picture replaced, by the rule of timm's ``RandomErasing``."""
        height, width = images.shape[-2:]
        for image in images:
            if random.random() >= self.augmentation.erase_probability:
                continue
            for _ in range(random.randint(1, self.augmentation.erase_count)):
                box = _box(height, width, self.augmentation.erase_count)
                if box is not None:
                    part = image[:, box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
                    part.copy_(self._filling(part))
        return images

    def _filling(self, part: Tensor) -> Tensor:
        """What an erased rectangle becomes; drawn on the CPU, so that every device gets the same."""
        shapes = {"const": None, "rand": (part.shape[0], 1, 1), "pixel": tuple(part.shape)}
        shape = shapes[self.augmentation.erase_mode]
        return torch.zeros_like(part) if shape is None else torch.randn(shape).to(part.device)


def _strength(policy: str) -> tuple[int, int]:
    """torchvision's strength and number of operations for a policy in timm's notation.

    timm does each of the ``n`` operations with probability 0.5 (timm ``auto_augment.py``, ``rand_augment_ops``);
    torchvision does all that it is told, so fewer are told.
    """
    fields = dict(re.findall(r"(mstd|m|n)(\d+(?:\.\d+)?)", policy))
    strength = random.gauss(float(fields.get("m", 10)), float(fields.get("mstd", 0)))
    count = sum(random.random() < 0.5 for _ in range(int(float(fields.get("n", 2)))))
    return round(min(max(strength, 0.0), 10.0) / 10 * (_BINS - 1)), count


def _box(height: int, width: int, count: int) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of a rectangle to erase; ``None`` where ten draws did not fit."""
    for _ in range(10):
        area = random.uniform(*_ERASED) * height * width / count
        aspect = math.exp(random.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if tall < height and wide < width:
            return random.randint(0, height - tall), random.randint(0, width - wide), tall, wide
    return None
