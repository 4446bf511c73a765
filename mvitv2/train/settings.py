"""Where and how a run is carried out: nothing here changes the numbers it ends with."""

import os
from dataclasses import dataclass
from pathlib import Path

from mvitv2.tasks.processes import MINUTES

PARALLEL = ("ddp", "fsdp")
RESUME = ("auto", "never", "must")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the engine needs to know besides the recipe.

    Raises:
        ValueError: A field is out of range.
    """

    output: Path
    """Folder of the run: checkpoints, best weights, logs."""
    device: str = "auto"
    """``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ..."""
    workers: int = 0
    """Processes that load images, one thread each; 0 loads between the steps."""
    resume: str = "auto"
    """``"auto"`` goes on if there is a checkpoint, ``"must"`` fails if there is none, ``"never"`` if there is one."""
    save_minutes: float = 10.0
    """A checkpoint at least this often; there is one after every epoch as well."""
    save_steps: int | None = None
    """And one every so many steps; ``None``: by time alone."""
    log_steps: int = 1
    """A line of ``metrics.jsonl`` every so many steps."""
    deterministic: bool | None = None
    """The same bits every time; ``None``: on a CPU, where it costs next to nothing."""

    parallel: str = "ddp"
    """How several processes share the model: ``"ddp"``, a copy in each, or ``"fsdp"``, a part of each block in each."""
    timeout_minutes: float = MINUTES
    """How long a process waits for another one before it counts as lost."""
    mirror: str | None = None
    """A URL that fsspec knows, where every checkpoint and what the run leaves is copied to; a run whose folder is empty
    goes on from there. ``None``: nowhere."""

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if self.resume not in RESUME:
            raise ValueError(f"resume={self.resume!r} is none of {', '.join(map(repr, RESUME))}")
        if self.parallel not in PARALLEL or self.timeout_minutes <= 0:
            raise ValueError(
                f"parallel={self.parallel!r} must be one of {', '.join(map(repr, PARALLEL))}, "
                f"timeout_minutes={self.timeout_minutes} above 0"
            )
        if self.workers < 0 or self.save_minutes <= 0 or self.log_steps < 1 or (self.save_steps or 1) < 1:
            raise ValueError(
                f"workers={self.workers} must be at least 0, save_minutes={self.save_minutes} above 0, "
                f"save_steps={self.save_steps} and log_steps={self.log_steps} at least 1"
            )


def default_workers() -> int:
    """Loading processes for files: one per core this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)
