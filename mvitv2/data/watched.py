"""Loading processes that die leave word of what they were reading.

``DataLoader`` says which process died, and nothing of the picture that a decoder crashed on or that took all memory.
Each process notes the index it is at in memory that it shares with the main process.
"""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from typing import Any

import torch
from torch.utils.data import Dataset, get_worker_info

from mvitv2.data.labelled import LabelledImages
from mvitv2.data.samples import SampleKey, split_key

_PIDS = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")
_NOTHING = -1
_PATIENCE = 2.0  # seconds


class WorkerDied(RuntimeError):
    """A loading process died; the message says which, how, and which file it was reading."""


class Watched(Dataset[Any]):
    """A data set for ``DataLoader(num_workers=workers)`` whose processes note what they read; items are the same."""

    def __init__(self, dataset: LabelledImages, workers: int) -> None:
        """Watch a data set.

        Args:
            dataset: Any form.
            workers: Processes of the loader.
        """
        self.dataset = dataset
        self._notes = torch.full((max(workers, 1), 2), _NOTHING, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | SampleKey) -> Any:
        """The item, with a note of its index for as long as it takes."""
        worker = get_worker_info()
        if worker is None:
            return self.dataset[key]
        note = self._notes[worker.id]
        note[0], note[1] = os.getpid(), split_key(key)[0]
        item = self.dataset[key]
        note[1] = _NOTHING
        return item

    def explained(self, error: BaseException) -> str | None:
        """What to say of a loader's error; ``None`` if no process died."""
        first = (str(error).splitlines() or [""])[0]
        pids = _PIDS.search(first) if isinstance(error, RuntimeError) else None
        if pids is not None:
            dead, told = [int(pid) for pid in pids[1].split(",")], _spoken(first)
        elif isinstance(error, ConnectionError | EOFError | FileNotFoundError):
            # it died while the main process was fetching a batch from it
            try:
                dead = self._missing()
            except RuntimeError as later:  # torch's signal handler knows more by now
                return self.explained(later)
            told = f"DataLoader worker (pid {', '.join(map(str, dead))}) died"
        else:
            return None
        reading = {pid: index for pid, index in self._notes.tolist() if index != _NOTHING}
        named = [f"reading {self.dataset.path(reading[pid])}" for pid in dead if pid in reading]
        return f"{told}, {' and '.join(named) or 'between two files'}" if dead else None

    def _missing(self) -> list[int]:
        """Loading processes that are there no more; the system may need a moment to know of one."""
        started = {pid for pid in self._notes[:, 0].tolist() if pid != _NOTHING}
        until = time.monotonic() + _PATIENCE
        while not (gone := started - {child.pid for child in active_children()}) and time.monotonic() < until:
            time.sleep(0.01)
        return sorted(gone)


@contextmanager
def deaths_named(watched: Watched) -> Iterator[None]:
    """Inside, iterate over the loader; a process that dies is told with the file it was reading.

    torch tells of a death in two ways, by an error where a batch is fetched and by a signal at any moment. In the rare
    case that the signal comes while the first error is already on its way here, it is the loader's own error that goes
    through, unless there is another of these around this one.

    Raises:
        WorkerDied: One did.
    """
    try:
        yield
    except WorkerDied:
        raise
    except (RuntimeError, OSError, EOFError) as error:
        told = watched.explained(error)
        if told is None:
            raise
        raise WorkerDied(told) from error


def _spoken(line: str) -> str:
    """The loader's own first line, with the name of the signal for people who do not know its number."""
    match = re.search(r"killed by signal: (\w+)", line)
    if match is None:
        return line.removesuffix(".")
    return f"{line.split(' is killed', maxsplit=1)[0]} was ended by {match[1]}" + _likely(match[1])


def _likely(name: str) -> str:
    """What mostly is behind a signal."""
    reasons = {
        signal.strsignal(signal.SIGKILL): "mostly, memory ran out",
        signal.strsignal(signal.SIGBUS): "mostly, shared memory is full",
        signal.strsignal(signal.SIGSEGV): "a decoder crashed",
    }
    found = next((reason for known, reason in reasons.items() if known and known.startswith(name)), None)
    return f" ({found})" if found else ""
