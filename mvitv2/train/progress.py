"""How a run goes: a bar on a terminal, plain lines anywhere else, lines of JSON for programs."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from mvitv2.tasks.spoken import seconds_spoken

EVERY = 10.0
"""Seconds between plain lines."""
SHORT = {"images": "img"}
"""Units as a bar has room for them."""


class Progress(Protocol):
    """What the engine tells while it works."""

    def start(self, *, step: int, steps: int, epochs: int) -> None:
        """The run begins or goes on at ``step`` of ``steps``."""
        ...

    def step(self, values: Mapping[str, Any]) -> None:
        """A step is done: ``step``, ``epoch``, ``loss``, ``lr``, ``images_per_second``, ``ram_gib``, ..."""
        ...

    def evaluating(self, done: int, total: int) -> None:
        """So many images of the validation set are done."""
        ...

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is done and measured."""
        ...

    def say(self, text: str) -> None:
        """A sentence."""
        ...

    def close(self) -> None:
        """The run has ended, however it did."""
        ...


def epoch_line(row: Mapping[str, Any], epochs: int, unit: str = "images") -> str:
    """An epoch in one line; ``unit`` is what is trained on, in the plural."""
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}", f"loss {row['train_loss']:.4f}"]
    if "top1" in row:
        parts.append(f"top-1 {100 * row['top1']:6.2f} %")
    parts += [f"{kind} AP {100 * row[f'{kind}_ap']:5.1f}" for kind in ("box", "mask") if f"{kind}_ap" in row]
    parts += [f"lr {row['lr']:.2e}", f"{row['images_per_second']:.0f} {unit}/s", seconds_spoken(row["seconds"])]
    return "  ".join(parts)


def memory(values: Mapping[str, Any]) -> str:
    """Memory of the process, and of the GPU where there is one."""
    device = f", GPU {values['memory_gib']:.1f} GiB" if "memory_gib" in values else ""
    return f"{values.get('ram_gib', 0):.1f} GiB{device}"


class Lines:
    """Plain lines: one an epoch, and one every few seconds of an epoch that takes longer.

    Args:
        console: Where to.
        unit: What is trained on, in the plural.
    """

    def __init__(self, console: Console, unit: str = "images"):
        self.console, self.unit, self.epochs = console, unit, 0
        self.spoken, self.began, self.first, self.steps = time.monotonic(), time.monotonic(), 0, 0

    def start(self, *, step: int, steps: int, epochs: int) -> None:
        """Remember where the run stands, for the time that is left."""
        self.first, self.steps, self.epochs = step, steps, epochs
        self.began = self.spoken = time.monotonic()

    def step(self, values: Mapping[str, Any]) -> None:
        """A line, if the last one is some seconds ago."""
        now = time.monotonic()
        if now - self.spoken < EVERY:
            return
        self.spoken = now
        left = (now - self.began) / max(values["step"] - self.first, 1) * (self.steps - values["step"])
        self.say(
            f"step {values['step']}/{self.steps}  loss {values['loss']:.4f}  lr {values['lr']:.2e}  "
            f"{values['images_per_second']:.0f} {self.unit}/s  {memory(values)}  {seconds_spoken(left)} left"
        )

    def evaluating(self, done: int, total: int) -> None:
        """Nothing: the epoch's line follows."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """The epoch's line."""
        self.spoken = time.monotonic()
        self.say(epoch_line(row, self.epochs, self.unit))

    def say(self, text: str) -> None:
        """A line."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing is open."""


class Bar:
    """A bar with loss, rate, speed and the time that is left; an epoch's line scrolls by above it.

    Args:
        console: A terminal.
        unit: What is trained on, in the plural.
    """

    def __init__(self, console: Console, unit: str = "images"):
        self.console, self.unit, self.epochs = console, unit, 0
        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def start(self, *, step: int, steps: int, epochs: int) -> None:
        """Show the bar."""
        self.epochs = epochs
        self.task = self.bars.add_task("training", total=steps, completed=step, told="")
        self.measured = self.bars.add_task("measuring", total=1, visible=False, told="")
        self.bars.start()

    def step(self, values: Mapping[str, Any]) -> None:
        """Move it."""
        told = (
            f"loss {values['loss']:.3f} lr {values['lr']:.1e} "
            f"{values['images_per_second']:.0f} {SHORT.get(self.unit, self.unit)}/s {memory(values)}"
        )
        name = f"epoch {values['epoch']}/{self.epochs}"
        self.bars.update(self.task, completed=values["step"], description=name, told=told)

    def evaluating(self, done: int, total: int) -> None:
        """A second bar while a model is measured."""
        self.bars.update(self.measured, completed=done, total=total, visible=done < total)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """The epoch's line, above the bar."""
        self.say(epoch_line(row, self.epochs, self.unit))

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.bars.console.print(escape(text), highlight=False)

    def close(self) -> None:
        """Take the bar away."""
        self.bars.stop()


class JsonLines:
    """One object a line, for programs: ``event`` is ``start``, ``step``, ``epoch`` or ``note``, the rest its values.

    Args:
        file: Where to; standard output if not given.
    """

    def __init__(self, file: TextIO | None = None):
        self.file = sys.stdout if file is None else file

    def write(self, event: str, values: Mapping[str, Any]) -> None:
        """A line, at once."""
        self.file.write(json.dumps({"event": event, **values}) + "\n")
        self.file.flush()

    def start(self, *, step: int, steps: int, epochs: int) -> None:
        """Where the run starts or goes on."""
        self.write("start", {"step": step, "steps": steps, "epochs": epochs})

    def step(self, values: Mapping[str, Any]) -> None:
        """A step's figures."""
        self.write("step", values)

    def evaluating(self, done: int, total: int) -> None:
        """Nothing: the epoch follows."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch's figures."""
        self.write("epoch", row)

    def say(self, text: str) -> None:
        """A sentence."""
        self.write("note", {"text": text})

    def close(self) -> None:
        """Nothing is open."""


class Together:
    """Several listeners as one; each hears everything, and all are closed even if closing one fails.

    Args:
        *listeners: In the order in which they are told.
    """

    def __init__(self, *listeners: Progress):
        self.listeners = listeners

    def start(self, *, step: int, steps: int, epochs: int) -> None:
        """The run begins or goes on."""
        self._all(lambda one: one.start(step=step, steps=steps, epochs=epochs))

    def step(self, values: Mapping[str, Any]) -> None:
        """A step is done."""
        self._all(lambda one: one.step(values))

    def evaluating(self, done: int, total: int) -> None:
        """Images are measured."""
        self._all(lambda one: one.evaluating(done, total))

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is done."""
        self._all(lambda one: one.epoch(row))

    def say(self, text: str) -> None:
        """A sentence."""
        self._all(lambda one: one.say(text))

    def close(self) -> None:
        """The run has ended."""
        with ExitStack() as stack:
            for one in reversed(self.listeners):
                stack.callback(one.close)

    def _all(self, tell: Callable[[Progress], None]) -> None:
        for one in self.listeners:
            tell(one)


def silent() -> Progress:
    """Tells nothing."""
    return Lines(Console(quiet=True))


def progress_on(console: Console | None = None, unit: str = "images") -> Progress:
    """A bar where the console is a terminal, plain lines where it is not; ``unit`` is what is trained on."""
    where = Console() if console is None else console
    return Bar(where, unit) if where.is_terminal else Lines(where, unit)
