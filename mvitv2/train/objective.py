"""What a model is trained to make small."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from mvitv2.data.samples import Batch
from mvitv2.train.mixing import mixing_of, smoothed
from mvitv2.train.recipe import Recipe


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
    """

    def __init__(self, recipe: Recipe, num_classes: int):
        self.loss, self.smoothing, self.num_classes = recipe.loss, recipe.label_smoothing, num_classes
        self.mixing = mixing_of(recipe, num_classes)

    def __call__(self, model: nn.Module, batch: Batch, place: int) -> Loss:
        """The loss of a batch, summed over its images."""
        images, targets = batch.images, batch.labels
        if self.mixing is not None:
            images, targets = self.mixing(images, targets, place)
        elif self.loss == "bce" or self.smoothing:
            targets = smoothed(targets, self.num_classes, self.smoothing)
        logits = model(images).float()
        if self.loss == "bce":
            each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=-1)
        else:
            each = F.cross_entropy(logits, targets, reduction="none")
        return Loss(each.sum(), len(each))
