"""Which images make up which step: a pure function of seed and step, so a run can go on from any step."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from mvitv2.data.samples import SampleKey, sample_seed

SHUFFLE = -1
"""Stands for a sample's index in the seed of an epoch's order."""


def order(size: int, *, seed: int, epoch: int) -> list[int]:
    """The indices ``0 .. size - 1`` in the order of an epoch."""
    generator = torch.Generator().manual_seed(sample_seed(seed, epoch, SHUFFLE) >> 1)
    return torch.randperm(size, generator=generator).tolist()


def steps_per_epoch(size: int, global_batch: int) -> int:
    """Steps of an epoch: images that fill no whole batch wait for another epoch, unless they are all there are.

    Raises:
        ValueError: There are no images.
    """
    if size < 1:
        raise ValueError("there are no training images; check the folder, and what was said about unreadable files")
    return max(size // global_batch, 1)


class MicroBatches(Sampler[list[SampleKey]]):
    """The keys of every forward pass from one step to the end of the run, epoch after epoch.

    Keys carry the seed of their sample, so that neither the number of workers nor the step the run is resumed at
    changes what a sample looks like. Workers go on loading while a model is evaluated between epochs.

    Args:
        size: Images of the data set.
        batch_size: Images in one forward pass.
        accumulation: Forward passes of a step.
        first: Step to start at, counted over the whole run.
        steps: Steps of the whole run.
        seed: Of the run.
    """

    def __init__(self, size: int, *, batch_size: int, accumulation: int, first: int, steps: int, seed: int):
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.global_batch = batch_size * accumulation
        self.first, self.steps = first, steps
        self.per_epoch = steps_per_epoch(size, self.global_batch)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Lists of keys; :meth:`passes` of them belong to a step."""
        epoch, indices = -1, []
        for step in range(self.first, self.steps):
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                indices = order(self.size, seed=self.seed, epoch=epoch)
            start = step % self.per_epoch * self.global_batch
            share = indices[start : start + self.global_batch]
            keys = [SampleKey(i, sample_seed(self.seed, epoch, i)) for i in share]
            yield from (keys[i : i + self.batch_size] for i in range(0, len(keys), self.batch_size))

    def passes(self) -> int:
        """Forward passes of every step."""
        return -(-min(self.global_batch, self.size) // self.batch_size)

    def __len__(self) -> int:
        return (self.steps - self.first) * self.passes()
