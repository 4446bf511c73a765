"""Processes that train together, in children of a process that has imported everything already."""

import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# loaded before children are forked, as all that they need
import torch.distributed.checkpoint.state_dict
import torch.distributed.checkpoint.state_dict_loader
import torch.distributed.checkpoint.state_dict_saver
import torch.distributed.fsdp
import torch.distributed.tensor

from mvitv2.tasks.processes import joined
from mvitv2.train.failures import TrainingStopped

from .training_job import LIMIT, logged_steps

LOST, FAILED = 70, 71
"""Exit codes: another process was lost; something else went wrong, and is in ``error-RANK.txt``."""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _member(
    work: Callable[..., Any], rank: int, environment: dict[str, str], folder: Path, given: dict[str, Any]
) -> None:
    os.setpgrp()
    os.environ.update(environment)
    try:
        work(folder, **given)
    except TrainingStopped as stopped:
        sys.exit(128 + stopped.signal_number)
    except Exception as error:
        (folder / f"error-{rank}.txt").write_text(f"{type(error).__name__}: {error}")
        traceback.print_exc()
        sys.exit(LOST if type(error).__name__ == "ProcessLost" else FAILED)


class Team:
    """``work(folder, **given)`` in so many processes, as a launcher would start them; ``port`` is torchrun's."""

    def __init__(
        self, count: int, work: Callable[..., Any], folder: Path, *, launcher: str = "", port: int = 0, **given: Any
    ):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, work.__module__])
        self.folder, meet = folder, {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port or free_port())}
        self.members, self.began = [], time.time_ns()
        for rank in range(count):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), **meet}
            if launcher == "torchrun":
                place["TORCHELASTIC_USE_AGENT_STORE"] = "True"
            if launcher == "slurm":
                step = {"SLURM_STEP_NUM_TASKS": str(count), "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": "7"}
                place = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), **step, **meet}
            self.members.append(context.Process(target=_member, args=(work, rank, place, folder, given)))
            self.members[-1].start()

    def wait_for(self, steps: int) -> None:
        """Wait until the log tells of so many steps."""
        end = time.monotonic() + LIMIT
        while len(logged_steps(self.folder, since=self.began)) < steps:
            if time.monotonic() > end or not all(member.is_alive() for member in self.members):
                raise TimeoutError(f"no step {steps}: {self.errors()}")
            time.sleep(0.002)

    def signal(self, rank: int, number: int) -> None:
        """Send a signal to one process."""
        os.kill(self.members[rank].pid or 0, number)

    def end(self) -> list[int | None]:
        """Wait for all; gives the exit codes by rank."""
        end = time.monotonic() + LIMIT
        for member in self.members:
            member.join(max(end - time.monotonic(), 0.1))
        for member in self.members:
            if member.is_alive():
                os.kill(member.pid or 0, signal.SIGKILL)
        return [member.exitcode for member in self.members]

    def errors(self) -> list[str]:
        """What the processes died of."""
        return [path.read_text() for path in sorted(self.folder.glob("error-*.txt"))]


def _called(folder: Path, act: Callable[..., Any], given: dict[str, Any]) -> None:
    with joined("cpu", minutes=1) as processes:
        torch.save(act(processes, **given), folder / f"result-{processes.rank}.pt")


def together(
    count: int, folder: Path, act: Callable[..., Any], *, launcher: str = "", port: int = 0, **given: Any
) -> list[Any]:
    """What ``act`` gives in each of so many processes, by rank."""
    folder.mkdir(parents=True, exist_ok=True)
    team = Team(count, _called, folder, launcher=launcher, port=port, act=act, given=given)
    if any(codes := team.end()):
        raise RuntimeError(f"exit codes {codes}: {team.errors()}")
    return [torch.load(folder / f"result-{rank}.pt", weights_only=False) for rank in range(count)]
