"""Which images make up which step: a pure function of seed and step, so a run can go on from any step."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from mvitv2.data.samples import SampleKey
from mvitv2.train.order import Order


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

    Several processes share the passes of a step as one deals cards, so that their number changes no pass.

    Args:
        order: Which images an epoch sees.
        batch_size: Images in one forward pass.
        passes: Forward passes of a step, of all processes together.
        first: Step to start at, counted over the whole run.
        steps: Steps of the whole run.
        rank: Which process this is.
        count: How many there are.
    """

    def __init__(
        self,
        order: Order,
        *,
        batch_size: int,
        passes: int,
        first: int,
        steps: int,
        rank: int = 0,
        count: int = 1,
    ):
        self.order, self.batch_size = order, batch_size
        self.global_batch = batch_size * passes
        self.first, self.steps, self.rank, self.count = first, steps, rank, count
        self.per_epoch = steps_per_epoch(order.size, self.global_batch)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Lists of keys; :meth:`own_passes` of them belong to a step."""
        epoch, keys = -1, []
        for step in range(self.first, self.steps):
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                keys = self.order.keys(epoch)
            start = step % self.per_epoch * self.global_batch
            share = keys[start : start + self.global_batch]
            yield from (share[i : i + self.batch_size] for i in self.starts())

    def starts(self) -> range:
        """Where in a step's images those of each pass of this process begin."""
        return range(self.rank * self.batch_size, min(self.global_batch, self.order.size), self.count * self.batch_size)

    def own_passes(self) -> int:
        """Forward passes of every step that are this process's."""
        return len(self.starts())

    def most_passes(self) -> int:
        """The same of the process that has most."""
        return -(-min(self.global_batch, self.order.size) // (self.batch_size * self.count))

    def __len__(self) -> int:
        return (self.steps - self.first) * self.own_passes()
