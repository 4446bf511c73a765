"""The processes that work on one thing together, and the few things they tell each other.

Any launcher will do that sets what ``torchrun`` sets (``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``), and
Slurm's ``srun``. Where nothing is set, a process is alone: nothing is sent, and nothing waits. What is told here is
small and goes over gloo from CPU to CPU; gradients travel by themselves.
"""

import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from mvitv2.tasks.launchers import Launched, launched

T = TypeVar("T")
MINUTES = 10.0
"""How long a process waits for another one, if nothing else is said."""
MEETING = "mvitv2/meeting"
"""Key under which torchrun's store tells the port of this start's own."""
_LOST = ("closed by peer", "reset by peer", "Timed out waiting", "timeout", "gloo", "NCCL", "Broken pipe", "connect")


class ProcessLost(RuntimeError):
    """Another process of the same run is gone or stuck; the message says what to do."""


class Processes:
    """One process, alone; :class:`Group` is several that do the same."""

    rank = 0
    count = 1
    local_rank = 0
    """Among the processes of one machine."""

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def gathered(self, value: T) -> list[T]:
        """What each process has, by rank."""
        return [value]

    def table(self, row: Sequence[float]) -> list[list[float]]:
        """The numbers of each process, by rank; all have equally many."""
        return [list(row)]

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over all processes of a tensor on the CPU."""
        return tensor

    def led(self, act: Callable[[], T]) -> T:
        """What ``act`` gives where it is carried out, which is in the first process; all get it, or its error."""
        return act()

    def kept(self, act: Callable[[], T]) -> T | None:
        """What ``act`` gives in the first process, and stays there; the others get ``None``, or its error."""
        return act()

    def first(self, act: Callable[[], T]) -> T:
        """What ``act`` gives in every process; the others begin when the first one is done."""
        return act()

    def sent(self, value: T, rank: int) -> T:
        """The value that the process of that rank has."""
        return value


ALONE = Processes()


class Group(Processes):
    """The processes of torch's default group."""

    def __init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        found = launched(os.environ)
        self.local_rank = self.rank if found is None else found.local_rank

    def gathered(self, value: T) -> list[T]:
        """What each process has, by rank."""
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def table(self, row: Sequence[float]) -> list[list[float]]:
        """The numbers of each process, by rank; all have equally many."""
        mine = torch.tensor(row, dtype=torch.float64)
        rows = [torch.empty_like(mine) for _ in range(self.count)]
        dist.all_gather(rows, mine)
        return [one.tolist() for one in rows]

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over all processes of a tensor on the CPU."""
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def led(self, act: Callable[[], T]) -> T:
        """What ``act`` gives in the first process.

        Raises:
            OSError, RuntimeError, ValueError: What it raised there; elsewhere marked as told already.
        """
        result: Any = None
        error: Exception | None = None
        if self.leads:
            try:
                result = act()
            except (OSError, RuntimeError, ValueError) as raised:
                error = raised
        result, away = self.sent((result, None if error is None else portable(error)), 0)
        if error is not None:
            raise error
        if away is not None:
            raise told_elsewhere(away)
        return result

    def kept(self, act: Callable[[], T]) -> T | None:
        """What ``act`` gives in the first process, and stays there; the others get ``None``, or its error."""
        made: list[T] = []
        self.led(lambda: made.append(act()))
        return made[0] if made else None

    def first(self, act: Callable[[], T]) -> T:
        """What ``act`` gives in every process; if the first one fails, all do, with its error."""
        made: list[T] = []
        self.led(lambda: made.append(act()))
        return made[0] if made else act()

    def sent(self, value: T, rank: int) -> T:
        """The value that the process of that rank has."""
        box = [value if rank == self.rank else None]
        dist.broadcast_object_list(box, src=rank)
        return box[0]  # type: ignore[return-value]


def portable(error: Exception) -> Exception:
    """An error that can be sent: itself, or one of torch's kind with the same words."""
    try:
        pickle.loads(pickle.dumps(error))
    except (TypeError, AttributeError, pickle.PicklingError):
        return RuntimeError(str(error))
    return error


def told_elsewhere(error: T) -> T:
    """The same error, marked so that commands leave telling it to the first process."""
    vars(error)["told_elsewhere"] = True
    return error


def current() -> Processes:
    """The processes that this one works with: torch's default group where there is one."""
    return Group() if dist.is_available() and dist.is_initialized() else ALONE


@contextmanager
def joined(device: str = "auto", *, minutes: float = MINUTES) -> Iterator[Processes]:
    """Inside, this process works with the others that a launcher started; alone where it started none.

    Args:
        device: What is computed on, as for :func:`~mvitv2.tasks.devices.device_named`.
        minutes: How long to wait for another process before it counts as lost.

    Raises:
        ProcessLost: Another process does not come, is gone, or is stuck.
        ValueError: The launcher says something that cannot be.
    """
    if current() is not ALONE:
        yield current()
        return
    if (found := launched(os.environ)) is None:
        yield ALONE
        return
    gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    with losses_explained(found, minutes):
        store = meeting(found, minutes) if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else None
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpu else "gloo",
            init_method=found.address if store is None else None,
            store=store,
            rank=found.rank,
            world_size=found.count,
            timeout=timedelta(minutes=minutes),
        )
        try:
            yield Group()
        finally:
            dist.destroy_process_group()


def meeting(found: Launched, minutes: float) -> Any:
    """Where the processes of this start meet.

    torchrun's own place outlives a restart and still tells where the processes before were (torch 2.14), so the first
    process opens a new one, and torchrun's is only asked where; an answer that is of the past leads nowhere.
    """
    open_store: Any = dist.TCPStore  # pyright: ignore[reportPrivateImportUsage]
    host, wait = os.environ["MASTER_ADDR"], timedelta(minutes=minutes)
    agent = open_store(host, int(os.environ["MASTER_PORT"]), is_master=False, timeout=wait)
    if found.rank == 0:
        new = open_store(host, 0, is_master=True, wait_for_workers=False, timeout=wait)
        agent.set(MEETING, str(new.port))
        return new
    end = time.monotonic() + wait.total_seconds()
    while not _is_open(host, port := int(agent.get(MEETING))):
        if time.monotonic() > end:
            raise ProcessLost(
                f"process 0 did not come to {host}:{port} within {minutes:g} minutes; look for its message"
            )
        time.sleep(0.2)
    return open_store(host, port, is_master=False, wait_for_workers=False, timeout=wait)


def _is_open(host: str, port: int) -> bool:
    """Whether somebody listens there; asked quietly, where torch would fill the screen."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


@contextmanager
def losses_explained(found: Launched, minutes: float) -> Iterator[None]:
    """Turn what torch says of a process that is gone into a sentence that says what to do.

    Raises:
        ProcessLost: One is.
    """
    try:
        yield
    except RuntimeError as error:
        text = (str(error).splitlines() or [""])[0]
        # torch's own errors say so; gloo's are plain
        if type(error) is not RuntimeError and not isinstance(error, dist.DistError):
            raise
        if not isinstance(error, dist.DistError) and not any(mark in text for mark in _LOST):
            raise
        raise ProcessLost(
            f"process {found.rank} of {found.count} lost another one, which died, or was silent for {minutes:g} "
            f"minutes ({text[:160]}); look for its own message. The last checkpoint is safe: the same command goes on "
            "from there. If it was only slow, raise --timeout-minutes"
        ) from error
