"""A run's figures on their way to trackers: named in groups, and a tracker that fails ends no run."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mvitv2.train.trackers import Tracker, failures, tracker

LOG = logging.getLogger(__name__)


class Tracked:
    """A :class:`~mvitv2.train.progress.Progress` that passes the figures on to trackers.

    Args:
        names: Of :data:`NAMES`.
        folder: Of the run.
        config: Settings of the run, maybe nested.
        every: Steps between two lines, as in ``metrics.jsonl``.
        warn: Told the first time that a tracker fails; the run goes on.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        *,
        config: Mapping[str, Any],
        every: int = 1,
        warn: Callable[[str], None] = LOG.warning,
    ):
        self.names, self.folder, self.every, self.warn = names, folder, every, warn
        self.settings = flat(config)
        self.trackers: dict[str, Tracker] = {}
        self.failed: set[str] = set()

    def start(self, *, step: int, steps: int, epochs: int) -> None:
        """Open them, where the run starts or goes on; what fails here ends it."""
        for name in self.names:
            self.trackers[name] = tracker(name, self.folder, step=step)
            self.trackers[name].config(self.settings)

    def step(self, values: Mapping[str, Any]) -> None:
        """Figures of a step, as ``train/...``."""
        if values["step"] % self.every == 0:
            self.log("train", values, values["step"])

    def evaluating(self, done: int, total: int) -> None:
        """Nothing: the epoch follows."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Figures of an epoch, as ``epoch/...``."""
        self.log("epoch", row, int(row["step"]))

    def log(self, group: str, values: Mapping[str, Any], step: int) -> None:
        """All numbers but the step itself."""
        numbers = {f"{group}/{k}": v for k, v in values.items() if k != "step" and isinstance(v, int | float)}
        for name, one in self.trackers.items():
            self.attempt(name, partial(one.log, numbers, step))

    def say(self, text: str) -> None:
        """Nothing: it is for people."""

    def close(self) -> None:
        """Close them."""
        trackers, self.trackers = self.trackers, {}
        for name, one in trackers.items():
            self.attempt(name, one.finish)

    def attempt(self, name: str, call: Callable[[], None]) -> None:
        """Do something that may fail without ending the run."""
        try:
            call()
        except failures(name) as error:
            if name not in self.failed:
                self.warn(f"warning: {name} fails ({error}); the run goes on, metrics.jsonl and results.csv have all")
            self.failed.add(name)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Mappings in mappings as ``a.b``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
