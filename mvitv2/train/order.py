"""Which images an epoch sees, in which order: a pure function of seed and epoch, so a run can go on from any step."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from mvitv2.data.samples import SampleKey, sample_seed
from mvitv2.train.job import Job
from mvitv2.train.recipe import Recipe

SHUFFLE = -1
"""Stands for a sample's index in the seed of an epoch's order."""


class Shuffle(Protocol):
    """Every index once, in the order of an epoch."""

    def __call__(self, *, seed: int, epoch: int) -> list[int]:
        """A pure function."""
        ...


def order(size: int, *, seed: int, epoch: int) -> list[int]:
    """The indices ``0 .. size - 1`` in the order of an epoch."""
    return torch.randperm(size, generator=_generator(seed, epoch)).tolist()


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(sample_seed(seed, epoch, SHUFFLE) >> 1)


@dataclass(frozen=True)
class Order:
    """The images of every epoch; an epoch is as many as the data set has, whichever they are."""

    size: int
    """Images of the data set."""
    seed: int
    """Of the run."""
    labels: Sequence[int] | np.ndarray | None = field(default=None, repr=False)
    """The class of every image, to take as many of each; ``None``: every image once."""
    shuffle: Shuffle | None = None
    """The data set's own order of an epoch, where it knows a better one than any (shards); ``None``: :func:`order`."""
    repeats: int = 1
    """Times that an image comes, one after the other (timm ``RepeatAugSampler``: fewer images in an epoch)."""

    def keys(self, epoch: int) -> list[SampleKey]:
        """``size`` keys. An image that comes again has another seed, and so looks otherwise."""
        different = -(-self.size // self.repeats)
        if self.labels is not None:
            drawn = balanced(self.labels, different, seed=self.seed, epoch=epoch)
        elif self.shuffle is not None:
            drawn = self.shuffle(seed=self.seed, epoch=epoch)[:different]
        else:
            drawn = order(self.size, seed=self.seed, epoch=epoch)[:different]
        seen: Counter[int] = Counter()
        keys = []
        for index in [index for index in drawn for _ in range(self.repeats)][: self.size]:
            place = index + self.size * seen[index]
            seen[index] += 1
            keys.append(SampleKey(index, sample_seed(self.seed, epoch, place)))
        return keys


def order_of(job: Job, recipe: Recipe) -> Order:
    """The order of a recipe.

    Raises:
        ValueError: It is to be balanced, and the samples of the job have no classes.
    """
    size, seed = len(job.dataset), recipe.seed
    if recipe.sampling == "shuffle":
        return Order(size, seed, shuffle=job.order, repeats=recipe.repeats)
    if job.labels is None:
        raise ValueError(f"sampling={recipe.sampling!r} needs one class for each sample; task {recipe.task!r} has none")
    return Order(size, seed, labels=job.labels, repeats=recipe.repeats)


def balanced(labels: Sequence[int] | np.ndarray, count: int, *, seed: int, epoch: int) -> list[int]:
    """``count`` indices, as many of every class that there is, to one; images of large classes take turns by epoch.

    Args:
        labels: The class of every image.
        count: Indices wanted.
        seed: Of the run.
        epoch: From 0; it also turns which classes have the one more.
    """
    generator, of_class = _generator(seed, epoch), np.asarray(labels)
    classes = np.unique(of_class)
    drawn: list[torch.Tensor] = []
    for place, label in enumerate(classes):
        members = torch.from_numpy(np.flatnonzero(of_class == label))
        share = count // len(classes) + int((place - epoch) % len(classes) < count % len(classes))
        rounds = -(-share // len(members))
        shuffled = [members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)]
        drawn += [torch.cat(shuffled)[:share]] if shuffled else []
    together = torch.cat(drawn)
    return together[torch.randperm(len(together), generator=generator)].tolist()
