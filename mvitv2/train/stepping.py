"""One step of training: forward, backward, clip, update."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from mvitv2.data.samples import Samples, sample_seed
from mvitv2.tasks.evaluation import AUTOCAST
from mvitv2.tasks.processes import ALONE, Processes
from mvitv2.train import generators
from mvitv2.train.failures import TrainingError
from mvitv2.train.freezing import train_mode
from mvitv2.train.objective import Objective
from mvitv2.train.optim import clip, set_rate
from mvitv2.train.recipe import Recipe
from mvitv2.train.sharing import Share, shares
from mvitv2.train.state import TrainState

PASS = -3
"""Stands for a sample's index in the seed of a forward pass."""


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
    state: TrainState,
    passes: Sequence[Samples | None],
    objective: Objective,
    recipe: Recipe,
    rate: float,
    *,
    processes: Processes = ALONE,
) -> Stepped:
    """Change the weights once, by the mean gradient over the images of all passes of all processes.

    Args:
        state: Changed in place.
        passes: Batches of this process, as many as of any other; images that could not be read are not in them.
        objective: Of the task.
        recipe: Precision, clipping, seed.
        rate: Learning rate.
        processes: Who takes the step together.

    Raises:
        NotFinite: The weights are as they were, in every process.
    """
    train_mode(state.model)
    set_rate(state.optimizer, rate)
    state.optimizer.zero_grad(set_to_none=True)
    made, count = shares(passes, processes)
    first = state.step * state.passes
    losses: list[Tensor] = []
    for number, share in enumerate(made):
        with state.called.held() if number < len(made) - 1 else nullcontext():
            losses.append(backward(state, share, objective, recipe, place=first + share.place, count=count))
    state.scaler.unscale_(state.optimizer)
    norm = float(clip(state.model, recipe))
    # exactly rounded, so that it matters to no digit who made which pass
    mean = math.fsum(loss for row in processes.table(totals(losses)) for loss in row) / count
    # with a scaler an overflowing gradient is expected now and then: it leaves out the step and scales less
    if not math.isfinite(mean) or (not math.isfinite(norm) and not state.scaler.is_enabled()):
        raise NotFinite(mean, norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.called.settle()
    if state.average is not None:
        state.average.update(state.model)
    state.step += 1
    return Stepped(mean, norm, count)


def backward(
    state: TrainState, share: Share, objective: Objective, recipe: Recipe, *, place: int, count: int
) -> Tensor:
    """Add the gradients of one forward pass; gives the sum of its losses.

    All that is drawn at random in it follows from the recipe's seed and the place of the pass in the run: whichever
    process makes it, and wherever the run was resumed.
    """
    device, dtype = next(state.model.parameters()).device, AUTOCAST[recipe.precision]
    generators.start(sample_seed(recipe.seed, place, PASS), device)
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        there = share.batch.to(device, channels_last=recipe.channels_last)
        loss = objective(state.called.module, there, place)
    state.scaler.scale(loss.total * (share.weight / count)).backward()
    return loss.total.detach() * share.weight


def totals(losses: Sequence[Tensor]) -> list[float]:
    """The numbers of several scalars, waiting for a GPU once."""
    return torch.stack(list(losses)).tolist() if losses else []
