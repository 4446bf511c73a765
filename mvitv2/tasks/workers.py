"""Processes that load samples: one thread each, signals are the main process's business, and a death is explained."""

import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from types import FrameType, TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader

from mvitv2.data.watched import Watched, deaths_named

GRACE = 60
"""Seconds that a loading process lives on after a first SIGTERM."""


@contextmanager
def loading(
    dataset: Any,
    batches: Iterable[list[Any]],
    collate: Callable[[Sequence[Any]], Any],
    workers: int,
    *,
    pin_memory: bool = False,
) -> Iterator[Iterator[Any]]:
    """The batches of a data set one after the other, while inside; the processes that load them end with it.

    Args:
        dataset: Items by the keys of ``batches``.
        batches: The keys of each.
        collate: Items to a batch.
        workers: Processes; 0 loads in this one.
        pin_memory: Put batches where a GPU fetches them from.

    Raises:
        mvitv2.data.watched.WorkerDied: A process did, wherever in here this one was.
    """
    watched = Watched(dataset, workers)
    loader = DataLoader(
        watched,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=partial(_begin, watched),
        pin_memory=pin_memory,
        generator=torch.Generator(),  # the run's own generator stays where it is
    )
    with ExitStack() as stack:
        stack.push(_let_go)
        stack.enter_context(deaths_named(watched))  # two: the signal of a death may come while another is explained
        stack.enter_context(deaths_named(watched))
        yield stack.enter_context(closing(batch for batch in loader))


def _let_go(_kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
    """Clear what an error's frames hold of a loader: its processes, which pay no heed to SIGTERM, end with the last."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _begin(watched: Watched, worker: int) -> None:
    """What a process does first.

    Ctrl-C and a first SIGTERM do not end it: sent to all processes of a group, they would take the images away from a
    step that the main process still wants to finish. A second SIGTERM does, and so does time.
    """
    watched.begin(worker)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _heed_the_next)
    torch.set_num_threads(1)


def _heed_the_next(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    if hasattr(signal, "alarm"):
        signal.alarm(GRACE)
