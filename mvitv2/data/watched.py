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

from mvitv2.data.samples import SampleKey, split_key

_PIDS = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")
_NOTHING = -1
_PATIENCE = 2.0  # seconds
_ADVICE = "fewer workers need less memory, and workers=0 shows an error itself"
_REASONS = {
    signal.SIGKILL: ("mostly, memory ran out", "fewer workers need less"),
    signal.SIGBUS: ("mostly, shared memory is full", "make /dev/shm larger, or use fewer workers"),
    signal.SIGSEGV: ("a decoder crashed", "leave the file out, or write it anew"),
}
"""What mostly is behind a signal, and what to do about it."""


class WorkerDied(RuntimeError):
    """A loading process died; the message says which, how, which file it was reading, and what to do."""


class Watched(Dataset[Any]):
    """A data set for ``DataLoader(num_workers=workers)`` whose processes note what they read; items are the same."""

    def __init__(self, dataset: Any, workers: int) -> None:
        """Watch a data set.

        Args:
            dataset: Items by index or by ``SampleKey``. Its samples are named by ``path(index)`` where it has that.
            workers: Processes of the loader; each is to call :meth:`begin`.
        """
        self.dataset = dataset
        with torch.inference_mode(False):  # processes write into it outside of that
            self._notes = torch.full((workers, 2), _NOTHING, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def begin(self, worker: int) -> None:
        """Note which process is the loader's ``worker``; for ``DataLoader(worker_init_fn=...)``."""
        self._notes[worker, 0] = os.getpid()

    def __getitem__(self, key: int | SampleKey) -> Any:
        """The item, with a note of its index for as long as it takes."""
        worker = get_worker_info()
        if worker is None:
            return self.dataset[key]
        self._notes[worker.id, 1] = split_key(key)[0]
        item = self.dataset[key]
        self._notes[worker.id, 1] = _NOTHING
        return item

    def explained(self, error: BaseException) -> str | None:
        """What to say of a loader's error; ``None`` if no process of this data set died."""
        first = (str(error).splitlines() or [""])[0]
        pids = _PIDS.search(first) if isinstance(error, RuntimeError) else None
        if pids is not None:
            dead, (told, advice) = [int(pid) for pid in pids[1].split(",")], _spoken(first)
        elif isinstance(error, ConnectionError | EOFError | FileNotFoundError):
            # it died while the main process was fetching a batch from it
            try:
                dead = self._missing()
            except RuntimeError as later:  # torch's signal handler knows more by now
                return self.explained(later)
            told, advice = f"DataLoader worker (pid {', '.join(map(str, dead))}) died", _ADVICE
        else:
            return None
        notes = dict(self._notes.tolist())
        if not dead or not (notes.keys() & {*dead, _NOTHING}):  # another loader's; all of this one are known
            return None
        named = [f"reading {self._named(notes[pid])}" for pid in dead if notes.get(pid, _NOTHING) != _NOTHING]
        return f"{told}, {' and '.join(named) or 'between two files'}; {advice}"

    def _named(self, index: int) -> str:
        """The file of a sample, or the place of one that has none."""
        path = getattr(self.dataset, "path", None)
        return str(path(index)) if path else f"sample {index} of the data"

    def _missing(self) -> list[int]:
        """Loading processes that are there no more; the system may need a moment to know of one."""
        started = {pid for pid in self._notes[:, 0].tolist() if pid != _NOTHING}
        until, gone = time.monotonic() + _PATIENCE, set[int]()
        while started and not gone and time.monotonic() < until:
            time.sleep(0.01)
            gone = started - {child.pid for child in active_children()}
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


def _spoken(line: str) -> tuple[str, str]:
    """The loader's own first line, with the name of the signal for people who do not know its number; what to do."""
    told, _, name = line.partition(". ")[0].partition(" is killed by signal: ")
    if not name:
        return told, _ADVICE
    known = (why for number, why in _REASONS.items() if signal.strsignal(number) == name)
    reason, advice = next(known, ("", _ADVICE))
    return f"{told} was ended by {name}" + (f" ({reason})" if reason else ""), advice
