"""One step of training: forward, backward, clip, update."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from mvitv2.data.samples import Samples
from mvitv2.tasks.evaluation import AUTOCAST
from mvitv2.train.failures import TrainingError
from mvitv2.train.freezing import train_mode
from mvitv2.train.objective import Objective
from mvitv2.train.optim import clip, set_rate
from mvitv2.train.recipe import Recipe
from mvitv2.train.state import TrainState


class Stepped(NamedTuple):
    """What a step gave."""

    loss: float
    """Mean over its images."""
    norm: float
    """Of the gradient, before clipping."""
    images: int


class NotFinite(TrainingError):
    """A loss or gradient that is no number.

    Attributes:
        loss: Mean over the images of the step.
        norm: Of the gradient.
    """

    def __init__(self, loss: float, norm: float) -> None:
        super().__init__(f"the loss is {loss} and the norm of the gradient {norm}")
        self.loss, self.norm = loss, norm


def take_step(
    state: TrainState, batches: Sequence[Samples], objective: Objective, recipe: Recipe, rate: float
) -> Stepped:
    """Change the weights once, by the mean gradient over the images of all batches.

    Args:
        state: Changed in place.
        batches: One per forward pass; images that could not be read are not in them.
        objective: Of the task.
        recipe: Precision, clipping.
        rate: Learning rate.

    Raises:
        NotFinite: The weights are as they were.
    """
    device = next(state.model.parameters()).device
    count = sum(batch.num_samples for batch in batches)
    train_mode(state.model)
    set_rate(state.optimizer, rate)
    state.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=device)
    dtype = AUTOCAST[recipe.precision]
    for number, batch in enumerate(batches):
        if batch.num_samples:
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                there = batch.to(device, channels_last=recipe.channels_last)
                loss = objective(state.model, there, state.step * len(batches) + number)
            state.scaler.scale(loss.total / count).backward()
            total += loss.total.detach()
    state.scaler.unscale_(state.optimizer)
    norm = float(clip(state.model, recipe))
    mean = float(total) / count
    # with a scaler an overflowing gradient is expected now and then: it leaves out the step and scales less
    if not math.isfinite(mean) or (not math.isfinite(norm) and not state.scaler.is_enabled()):
        raise NotFinite(mean, norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average is not None:
        state.average.update(state.model)
    state.step += 1
    return Stepped(mean, norm, count)
