"""Who does what in a step that several processes take together: every process makes equally many forward passes."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from mvitv2.data.samples import Samples
from mvitv2.tasks.processes import Processes

S = TypeVar("S", bound=Samples)


class Share(NamedTuple):
    """A forward pass of this process."""

    batch: Samples
    place: int
    """Which pass of the step it is, over all processes."""
    weight: float
    """1, or 0 for one that only keeps the others company."""


def shares(passes: Sequence[S | None], processes: Processes) -> tuple[list[Share], int]:
    """The passes that this process makes, and the images of the whole step.

    Gradients are summed, and the parts of a sharded model gathered, by all processes at once. One that has no readable
    image in a pass where another has some therefore makes it with the other's batch, which counts nothing.

    Args:
        passes: Of this process, as many as of any other; ``None`` where there is no batch at all.
        processes: With whom.
    """
    row = [0 if batch is None else batch.num_samples for batch in passes]
    table = processes.table(row)
    made: list[Share] = []
    for number, batch in enumerate(passes):
        counts = [int(other[number]) for other in table]
        if not any(counts):
            continue
        lent = None
        if not all(counts):
            lender = next(rank for rank, count in enumerate(counts) if count)
            lent = processes.sent(batch, lender)
        own = counts[processes.rank] > 0
        given = batch if own else lent
        if given is not None:
            made.append(Share(given, number * processes.count + processes.rank, float(own)))
    return made, int(sum(map(sum, table)))
