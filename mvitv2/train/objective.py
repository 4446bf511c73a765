"""What a model is trained to make small."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvitv2.data.device_augment import DeviceAugmentation
from mvitv2.data.samples import Batch, sample_seed
from mvitv2.train.mixing import mixing_of, smoothed
from mvitv2.train.recipe import Recipe

BATCH = -2
"""Stands for a sample's index in the seed of a whole batch."""


class Loss(NamedTuple):
    """A loss that adds up over the forward passes of a step, whatever their sizes."""

    total: Tensor
    """Sum over images, a scalar with gradients."""
    count: int
    """Images."""


Objective = Callable[[nn.Module, Any, int], Loss]
"""Model, batch of the job on the model's device, number of the forward pass in the run."""


class Classification:
    """Cross entropy or one yes or no per class, with soft labels where the recipe mixes or smooths.

    Args:
        recipe: Tells loss, smoothing and mixing.
        num_classes: Width of soft labels.
        labels: The class of every training image, for balanced class weights.
        augment: Done to every batch first, on its device.
    """

    def __init__(
        self,
        recipe: Recipe,
        num_classes: int,
        labels: Sequence[int] | np.ndarray = (),
        *,
        augment: DeviceAugmentation | None = None,
    ):
        self.augment, self.seed = augment, recipe.seed
        self.loss, self.smoothing, self.num_classes = recipe.loss, recipe.label_smoothing, num_classes
        self.threshold, self.weights = recipe.target_threshold, class_weights(recipe, num_classes, labels)
        self.mixing = mixing_of(recipe, num_classes)

    def __call__(self, model: nn.Module, batch: Batch, place: int) -> Loss:
        """The loss of a batch, summed over its images."""
        images, targets = batch.images, batch.labels
        if self.augment is not None:
            images = self.augment(images, seed=sample_seed(self.seed, place, BATCH))
        if self.mixing is not None:
            images, targets = self.mixing(images, targets, place)
        elif self.loss == "bce" or self.smoothing:
            targets = smoothed(targets, self.num_classes, self.smoothing)
        logits = model(images).float()
        weights = None if self.weights is None else self.weights.to(logits.device)
        if self.loss == "bce":
            each = yes_or_no(logits, targets, weights, self.threshold)
        else:
            each = F.cross_entropy(logits, targets, weights, reduction="none")
        return Loss(each.sum(), len(each))


def yes_or_no(logits: Tensor, targets: Tensor, weights: Tensor | None, threshold: float | None) -> Tensor:
    """Binary cross entropy of every image ``(B,)``, the mean over its classes.

    Args:
        logits: ``(B, num_classes)``.
        targets: The same shape, 0 to 1.
        weights: By class; an image counts as its classes do.
        threshold: Targets above it become 1, the others 0.
    """
    hard = targets if threshold is None else targets.gt(threshold).to(targets.dtype)
    each = F.binary_cross_entropy_with_logits(logits, hard, reduction="none").mean(dim=-1)
    return each if weights is None else each * (targets @ weights) / targets.sum(dim=-1)


def class_weights(recipe: Recipe, num_classes: int, labels: Sequence[int] | np.ndarray) -> Tensor | None:
    """How much an image of each class counts, ``(num_classes,)``; ``None`` where all count alike.

    Balanced weights are 1 in the mean over the training images, so that learning rates keep their meaning.

    Raises:
        ValueError: There is not one weight for each class.
    """
    if recipe.class_weights == "none":
        return None
    if recipe.class_weights == "balanced":
        counts = torch.from_numpy(np.bincount(np.asarray(labels, dtype=np.int64), minlength=num_classes))
        return torch.where(counts > 0, counts.sum() / ((counts > 0).sum() * counts.clamp(min=1)), 0.0)
    if len(recipe.class_weights) != num_classes:
        raise ValueError(f"class_weights has {len(recipe.class_weights)} numbers for {num_classes} classes")
    return torch.tensor(recipe.class_weights, dtype=torch.float32)
