"""The faults. Each takes an empty folder, that of a run which nothing happened to, and how often; gives figures."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mvitv2.train import checkpoint

from ..e2e.team import LOST, Team
from ..e2e.test_training import assert_same_run
from ..e2e.training_job import STEPS, Child, killed_and_resumed, logged_steps, small_run

Fault = Callable[[Path, Path, int], str]
DISK = 640 << 10
"""Bytes of the small disk: a checkpoint of the small run, the one before and the results fit, a third one does not."""


def killed(folder: Path, whole: Path, times: int) -> str:
    """SIGKILL at random moments, most of them while a checkpoint is being written or a step is under way."""
    chance = random.Random(7)
    moments = [(1 + i * (STEPS - 2) // times, chance.uniform(0, 0.06)) for i in range(times)]
    hits = killed_and_resumed(folder, moments, save_steps=1)
    assert_same_run(folder, whole)
    return f"killed {hits} times of {times}, same bits"


def stopped(folder: Path, whole: Path, times: int) -> str:
    """SIGTERM, which saves first."""
    for i in range(times):
        child = Child(folder, save_steps=None)
        child.wait_for((i + 1) * (STEPS - 4) // (times + 1))
        if (code := child.signal(signal.SIGTERM)) != 143:
            raise RuntimeError(f"exit code {code} after SIGTERM")
        if (step := checkpoint.read(folder / "last.pt")["step"]) != len(logged_steps(folder)):
            raise RuntimeError(f"saved at step {step} of {len(logged_steps(folder))}")
    Child(folder).end()
    assert_same_run(folder, whole)
    return f"stopped {times} times, no step lost, same bits"


def damaged(folder: Path, whole: Path, times: int) -> str:
    """The last checkpoint cut off somewhere, after a kill."""
    chance = random.Random(8)
    for i in range(times):
        child = Child(folder, save_steps=1)
        child.wait_for(4 + i * (STEPS - 8) // times)
        child.signal(signal.SIGKILL)
        last = folder / "last.pt"
        content = last.read_bytes()
        last.write_bytes(content[: chance.randrange(len(content))])
    Child(folder, save_steps=1).end()
    assert_same_run(folder, whole)
    return f"cut off {times} times, went on from the one before, same bits"


def lost_rank(folder: Path, whole: Path, times: int) -> str:
    """One of two processes killed; the other one leaves with a message; both start again."""
    chance = random.Random(9)
    for i in range(times):
        team = Team(2, shared, folder)
        team.wait_for(2 + i * (STEPS - 6) // times)
        time.sleep(chance.uniform(0, 0.05))
        team.signal(i % 2, signal.SIGKILL)
        codes = team.end()
        if codes[1 - i % 2] != LOST:
            raise RuntimeError(f"exit codes {codes}: {team.errors()}")
    if any(codes := Team(2, shared, folder).end()):
        raise RuntimeError(f"exit codes {codes}")
    mine, its = (checkpoint.read(path / "last.pt")["model"] for path in (folder, whole))
    if any(not value.equal(its[name]) for name, value in mine.items()):
        raise RuntimeError("the weights differ from those of a run of one process")
    return f"lost {times} times, the other one told, same bits as one process"


def lost_loader(folder: Path, whole: Path, times: int) -> str:
    """One of two loading processes killed: the run ends by itself, with an error."""
    chance = random.Random(10)
    for i in range(times):
        child = Child(folder, save_steps=1, workers=2)
        child.wait_for(1 + i * (STEPS - 6) // times)
        time.sleep(chance.uniform(0, 0.05))
        os.kill(chance.choice(child.loaders()), signal.SIGKILL)
        if (code := child.end()) != 1:
            raise RuntimeError(f"exit code {code} after the death of a loading process")
    Child(folder, save_steps=1, workers=2).end()
    assert_same_run(folder, whole)
    return f"lost {times} times, told, same bits"


def shared(folder: Path) -> None:
    """The small run by two processes: the same global batch."""
    from mvitv2.train.loop import fit
    from mvitv2.train.recipe import overridden
    from mvitv2.train.settings import Settings

    from ..e2e.training_job import RECIPE, small_job

    fit(small_job(), overridden(RECIPE, {"accumulation": 1}), Settings(output=folder, save_steps=2, timeout_minutes=1))


def full_disk(folder: Path, whole: Path, times: int) -> str:
    """A disk that fills up in the middle of the run, and has room again later."""
    with small_disk(folder / "disk") as disk:
        run = disk / "run"
        for i in range(times):
            child = Child(run, save_steps=1)
            child.wait_for(3 + 6 * i)
            ballast = fill(disk)
            if (code := child.end()) == 0:
                raise RuntimeError("the run ended well on a full disk")
            ballast.unlink()
            if checkpoint.load(run) is None:
                raise RuntimeError(f"no checkpoint is left after exit code {code}")
        small_run(run)
        assert_same_run(run, whole)
    return f"full {times} times, went on once there was room, same bits"


def fill(disk: Path) -> Path:
    """A file that takes all the room."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A file system of :data:`DISK` bytes in memory.

    Raises:
        PermissionError: Only root may mount one.
    """
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(path)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise PermissionError(f"a small disk needs the right to mount one: {made.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


SCENARIOS: dict[str, tuple[Fault, int, int]] = {
    "kill -9": (killed, 3, 20),
    "SIGTERM": (stopped, 1, 5),
    "truncated last checkpoint": (damaged, 1, 5),
    "full disk": (full_disk, 1, 3),
    "dead process of two": (lost_rank, 1, 5),
    "dead loading process": (lost_loader, 1, 5),
}
"""By name: the fault, how often in the short form, how often in the long one."""
