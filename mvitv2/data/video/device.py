"""Augmentation of clips on the device: loading processes crop and flip, the rest is done where the model is.

As :mod:`mvitv2.data.device_augment`, with one draw of RandAugment for the frames of each clip.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mvitv2.data.augment import Augmentation
from mvitv2.data.device_augment import DeviceAugmentation
from mvitv2.data.samples import seeded
from mvitv2.data.video.spatial import erased, normalised
from mvitv2.data.video.transforms import KINETICS_CLIPS


@dataclass(frozen=True)
class DeviceClipAugmentation(DeviceAugmentation):
    """What happens to a batch of cropped clips on its device; needs torchvision, the extra ``train``.

    Raises:
        ValueError: The policy is not RandAugment.
    """

    augmentation: Augmentation = KINETICS_CLIPS

    def __call__(self, images: Tensor, *, seed: int) -> Tensor:
        """Augment and normalise a batch.

        Args:
            images: ``(B, 3, T, H, W)`` uint8 of :class:`mvitv2.data.video.transforms.CropClip`, on any device.
            seed: Of this batch; the same gives the same.

        Returns:
            ``(B, C, T, H, W)`` float32, normalised.

        Raises:
            ValueError: ``images`` is something else.
        """
        if images.ndim != 5 or images.dtype != torch.uint8:
            raise ValueError(f"expected uint8 (B, 3, T, H, W) of CropClip, got {images.dtype} {tuple(images.shape)}")
        chosen = self.augmentation
        with seeded(seed):
            clips = [normalised(self.coloured(clip.transpose(0, 1)), self.preprocessing) for clip in images]
            done = [erased(c, chosen.erase_probability, chosen.erase_mode, chosen.erase_count) for c in clips]
        return torch.stack(done)
