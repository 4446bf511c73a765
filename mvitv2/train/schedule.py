"""The learning rate of every step, as a pure function: nothing to save, nothing to restore."""

import math
from dataclasses import dataclass

from mvitv2.train.recipe import Recipe


@dataclass(frozen=True)
class Schedule:
    """Warm-up in a straight line, then a cosine or nothing (mvit ``utils/lr_policy.py``, but by step)."""

    steps: int
    warmup_steps: int
    start: float
    peak: float
    end: float
    shape: str = "cosine"
    milestones: tuple[float, ...] = ()
    """Parts of the run, with ``"steps"``."""

    def __call__(self, step: int) -> float:
        """The rate of ``step``, counted from 0."""
        if step < self.warmup_steps:
            return self.start + (self.peak - self.start) * step / self.warmup_steps
        if self.shape == "constant":
            return self.peak
        if self.shape == "steps":
            return self.peak * 0.1 ** sum(step >= round(part * self.steps) for part in self.milestones)
        done = min((step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1), 1.0)
        return self.end + (self.peak - self.end) * (math.cos(math.pi * done) + 1) / 2


def schedule_of(recipe: Recipe, *, steps_per_epoch: int, global_batch: int) -> Schedule:
    """The schedule of a recipe for the real global batch, accumulation and processes counted."""
    scale = lr_scale(recipe, global_batch)
    return Schedule(
        steps=recipe.epochs * steps_per_epoch,
        warmup_steps=round(recipe.warmup_epochs * steps_per_epoch),
        start=recipe.warmup_lr * scale,
        peak=recipe.lr * scale,
        end=recipe.min_lr * scale,
        shape=recipe.schedule,
        milestones=recipe.milestones,
    )


def lr_scale(recipe: Recipe, global_batch: int) -> float:
    """What stated learning rates are multiplied by for a global batch; never a function of the number of machines."""
    ratio = global_batch / recipe.lr_batch
    return {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[recipe.lr_scaling]
