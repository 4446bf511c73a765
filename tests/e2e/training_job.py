"""A run of a second or two that draws on everything a step depends on, and a child process to run and kill it in."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # optimisers load it at their first step, for seconds; so it is there before children are forked
from torch import Tensor

from mvitv2.core.config import MViTConfig
from mvitv2.core.model import MViT
from mvitv2.core.stages import stages
from mvitv2.data.samples import SampleKey, seeded, split_key
from mvitv2.tasks.evaluation import evaluate
from mvitv2.tasks.processes import current
from mvitv2.train.failures import TrainingStopped
from mvitv2.train.generators import own_generators
from mvitv2.train.job import Job
from mvitv2.train.loop import Outcome, fit
from mvitv2.train.objective import Classification
from mvitv2.train.recipe import Recipe
from mvitv2.train.settings import Settings

RECIPE = Recipe(
    name="small",
    img_size=16,
    epochs=6,
    batch_size=4,
    accumulation=2,
    lr=0.02,
    lr_batch=64,
    warmup_epochs=1.0,
    label_smoothing=0.1,
    mixup=0.0,
    cutmix=0.0,
    layer_decay=0.8,
    ema_decay=0.9,
    seed=3,
)
STEPS = 30
LIMIT = 400.0
"""Seconds after which a test gives up waiting for a child."""


class Patterns:
    """Forty pictures of three classes that differ in one stripe, with noise that is a function of the key's seed."""

    class_names = ("top", "middle", "bottom")

    def __init__(self, size: int = 43):
        self.labels = [i * 7 % 3 for i in range(size)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: int | SampleKey) -> tuple[Tensor, int]:
        index, seed = split_key(key)
        picture = torch.zeros(3, 16, 16)
        picture[:, 5 * self.labels[index] : 5 * self.labels[index] + 5] = 1.0
        with seeded(index if seed is None else seed):
            return picture + torch.randn(picture.shape), self.labels[index]


def small_model() -> MViT:
    """Two stages with dropout and stochastic depth, which draw from the global generator."""
    blocks = stages(depths=(1, 1), embed_dim=8, kv_stride=(2, 2))
    config = MViTConfig(blocks=blocks, input_size=(16, 16), num_classes=3, drop_path=0.2, dropout=0.1)
    with own_generators(RECIPE.seed):
        return MViT(config)


def small_job(**changes: Any) -> Job:
    """What is trained."""

    def measure(model: MViT, told: Callable[[int, int], None]) -> dict[str, float]:
        found = evaluate(model, Patterns(20), batch_size=8, examples=0, on_batch=told, processes=current())
        return {"top1": found.top1, "val_loss": found.loss}

    parts: dict[str, Any] = {
        "model": small_model(),
        "dataset": Patterns(),
        "objective": Classification(RECIPE, 3),
        "measure": measure,
        "card": {"classes": list(Patterns.class_names)},
        "data": {"name": "patterns", "train_images": 43},
    }
    return Job(**{**parts, **changes})


def small_run(folder: Path, recipe: Recipe = RECIPE, **settings: Any) -> Outcome:
    """The run in this process."""
    return fit(small_job(), recipe, Settings(output=folder, **{"save_steps": 2, **settings}))


def _child(folder: str, settings: dict[str, Any]) -> None:
    """What a child process does; 143 where SIGTERM stopped it in good order."""
    os.setpgrp()
    try:
        small_run(Path(folder), **settings)
    except TrainingStopped as stopped:
        sys.exit(128 + stopped.signal_number)


class Child:
    """The run in a process of its own, which starts quickly: its parent has imported everything already."""

    def __init__(self, folder: Path, **settings: Any):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, f"{__package__}.team"])  # of the first child, for all
        self.folder, self.began = folder, time.time_ns()
        self.process = context.Process(target=_child, args=(str(folder), settings))
        self.process.start()

    def wait_for(self, steps: int) -> bool:
        """Wait until the log tells of so many steps; ``False`` if the child ended before."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            if len(logged_steps(self.folder, since=self.began)) >= steps:
                return True
            if not self.process.is_alive():
                return False
            time.sleep(0.002)
        raise TimeoutError(f"no step {steps} within {LIMIT} seconds")

    def signal(self, number: int, *, group: bool = False) -> int:
        """Send a signal to the process, or to it and all its workers; wait for the end; gives the exit code."""
        if self.process.pid is not None and self.process.is_alive():
            (os.killpg if group else os.kill)(self.process.pid, number)
        return self.end()

    def loaders(self) -> list[int]:
        """The processes that load its samples; a server of its own starts them, as one started the child.

        Raises:
            PermissionError: This system does not tell.
        """
        return [pid for server in children_of(self.process.pid or 0) for pid in children_of(server)]

    def end(self) -> int:
        """Wait for the end; gives the exit code."""
        self.process.join(LIMIT)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            raise TimeoutError(f"the child did not end within {LIMIT} seconds")
        self.process.close()
        return code


def children_of(pid: int) -> list[int]:
    """The processes that a process started, told by Linux alone.

    Raises:
        PermissionError: This is another system.
    """
    if not Path("/proc/self/task").exists():
        raise PermissionError("children of a process are found through /proc")
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return []


def killed_and_resumed(folder: Path, moments: Sequence[tuple[int, float]], **settings: Any) -> int:
    """Kill the run at each moment (steps in the log, then seconds), start it again after each; gives kills that hit."""
    hits = 0
    for steps, delay in moments:
        child = Child(folder, **settings)
        if child.wait_for(steps):
            time.sleep(delay)
        hits += child.signal(signal.SIGKILL) == -signal.SIGKILL
    child = Child(folder, **settings)
    if (code := child.end()) != 0:
        raise RuntimeError(f"the last part of the run ended with exit code {code}")
    return hits


def logged_steps(folder: Path, *, since: int = 0) -> list[str]:
    """Whole lines of the log; none where no run has opened it since that time, in nanoseconds."""
    path = folder / "metrics.jsonl"
    if not path.exists() or path.stat().st_mtime_ns < since:
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
