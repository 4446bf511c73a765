"""Mixup and cutmix of whole batches, timm's."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mvitv2.data.samples import sample_seed, seeded
from mvitv2.extras import required
from mvitv2.train.recipe import Recipe

MIX = -2
"""Stands for a sample's index in the seed of a batch's mixing."""


class Mixing:
    """Images and labels to mixed images and soft labels; repeatable from the step alone.

    Args:
        recipe: Tells alphas, probabilities and label smoothing.
        num_classes: Width of the soft labels.
    """

    def __init__(self, recipe: Recipe, num_classes: int):
        self.seed, self.num_classes = recipe.seed, num_classes
        self.smoothing = recipe.label_smoothing
        mixup: Any = required("timm.data.mixup", extra="train").Mixup
        self.mix = mixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            prob=recipe.mix_probability,
            switch_prob=recipe.mix_switch,
            label_smoothing=recipe.label_smoothing,
            num_classes=num_classes,
        )

    def __call__(self, images: Tensor, labels: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """Mix each image with its mirror place in the batch; of an odd number the last stays as it is.

        Args:
            images: ``(B, C, H, W)``, or clips ``(B, C, T, H, W)``, all frames of which are mixed alike; not changed.
            labels: ``(B,)`` int64.
            place: Which forward pass of the run this is.

        Returns:
            The same shape, and soft labels ``(B, num_classes)``.
        """
        even = len(images) // 2 * 2
        soft = smoothed(labels, self.num_classes, self.smoothing)
        if even == 0:
            return images, soft
        with seeded(sample_seed(self.seed, place, MIX)):
            # timm cuts axes 2 and 3: frames go to the channels for that
            flat, targets = self.mix(images[:even].flatten(1, -3).clone(), labels[:even])
            mixed = flat.view(even, *images.shape[1:])
        return torch.cat((mixed, images[even:])), torch.cat((targets.to(soft.dtype), soft[even:]))


def mixing_of(recipe: Recipe, num_classes: int) -> Mixing | None:
    """The mixing of a recipe, or ``None`` where it has none.

    Raises:
        MissingExtra: It has, and timm is not there.
    """
    return Mixing(recipe, num_classes) if recipe.mixup > 0 or recipe.cutmix > 0 else None


def smoothed(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """One-hot labels ``(B, num_classes)`` of which ``smoothing`` is spread over all classes."""
    return F.one_hot(labels, num_classes).float() * (1 - smoothing) + smoothing / num_classes
