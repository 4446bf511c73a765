"""What a recipe does to a model before its first step: what is trained of it, and how it computes."""

import torch

from mvitv2.core.model import MViT
from mvitv2.train.adapters import adapt
from mvitv2.train.freezing import freeze
from mvitv2.train.recipe import Recipe


def prepare(model: MViT, recipe: Recipe) -> None:
    """Freeze or adapt, set the memory layout and whether activations are kept; the model is changed in place.

    Raises:
        ValueError: What is to be frozen or adapted is not there.
    """
    if recipe.adapters:
        adapt(model, **recipe.adapters)
    elif recipe.freeze:
        freeze(model, recipe.freeze)
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.set_grad_checkpointing(recipe.grad_checkpointing)
