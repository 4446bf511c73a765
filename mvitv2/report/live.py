"""The page of a run that is under way, written again as it goes: a browser that has it open follows by itself."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mvitv2.report.curves import training
from mvitv2.report.frame import write_page
from mvitv2.report.page import details, escape
from mvitv2.tasks.spoken import seconds_spoken
from mvitv2.train.folder import read_run
from mvitv2.train.progress import memory

NAME = "report.html"
EVERY = 15.0
"""Seconds between two writings within an epoch."""
AGAIN = 10
"""Seconds after which a browser reads the page again."""
MOST_POINTS = 2000
"""Steps that are kept; above it neighbours become one."""
BEST = {"top1": "Best top-1", "box_ap": "Best box AP", "mask_ap": "Best mask AP"}
"""What is told beside how far the run is, by the figure of the epochs."""
DRAWN = ("step", "loss", "lr", "images_per_second")


class LivePage:
    """A :class:`~mvitv2.train.progress.Progress` that keeps ``report.html`` in the run's folder.

    Args:
        folder: Of the run.
        title: Stands above the page.
        recipe: Of the run, shown in full.
        unit: What is counted, ``"images"`` or ``"clips"``.
    """

    def __init__(self, folder: Path, *, title: str, recipe: Mapping[str, Any], unit: str = "images"):
        self.folder, self.title, self.recipe, self.unit = folder, title, recipe, unit
        self.first = self.last_step = self.steps = self.epochs = 0
        self.values: Mapping[str, Any] = {}
        self.history: list[Mapping[str, Any]] = []
        self.points: list[Mapping[str, Any]] = []
        self.notes: list[str] = []
        self.began = self.written = time.monotonic()

    def start(self, *, step: int, steps: int, epochs: int) -> None:
        """Take over what an earlier process drew, up to the step that the run goes on from."""
        self.first = self.last_step = step
        self.steps, self.epochs = steps, epochs
        run = read_run(self.folder) if step else {"history": [], "steps": []}
        self.history = [row for row in run["history"] if row["step"] <= step]
        self.points = run["steps"]
        self.began = time.monotonic()
        self.write()

    def step(self, values: Mapping[str, Any]) -> None:
        """Add a point; write the page if it was not for some time."""
        self.values, self.last_step = values, values["step"]
        self.points.append({name: values[name] for name in DRAWN if name in values})
        while len(self.points) > MOST_POINTS:
            self.points = halved(self.points)
        if time.monotonic() - self.written > EVERY:
            self.write()

    def evaluating(self, done: int, total: int) -> None:
        """Nothing: the epoch follows."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Add an epoch and write the page."""
        self.history.append(row)
        self.write()

    def say(self, text: str) -> None:
        """Keep the last sentences."""
        self.notes = [*self.notes, text][-12:]

    def close(self) -> None:
        """Write the page a last time; it is not read again by itself."""
        if self.steps:
            self.write(running=False)

    def write(self, *, running: bool = True) -> None:
        """The page as things stand."""
        per_epoch = self.steps / max(self.epochs, 1)
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        body = [
            self.header(running),
            training(self.history, self.points, per_epoch=per_epoch, unit=self.unit),
            f'<section><h2>Notes</h2><ul class="files">{notes}</ul></section>' if notes else "",
            details("Recipe: every setting of this run", self.recipe),
        ]
        # a run can do without its page, and the books tell about a full disk
        with suppress(OSError):
            write_page(self.folder / NAME, self.title, body, again_after=AGAIN if running else None)
        self.written = time.monotonic()

    def header(self, running: bool) -> str:
        """How far the run is, and its figures now."""
        part = self.last_step / max(self.steps, 1)
        ended = "finished" if self.last_step >= self.steps else "stopped; the same command goes on from here"
        state = "training" if running else ended
        items = "".join(f"<div><dt>{name}</dt><dd>{escape(v)}</dd></div>" for name, v in self.facts(running).items())
        return f"""<header class="hero"><div>
<h1>{escape(self.title)}</h1>
<p class="big">{100 * part:.0f}<small>% done</small></p>
<div class="span"><b style="width:{100 * part:.2f}%"></b></div>
<div class="soft">step {self.last_step} of {self.steps}, {state}</div>
</div><dl class="facts">{items}</dl></header>"""

    def facts(self, running: bool) -> dict[str, str]:
        """Short figures."""
        facts = {"Epoch": f"{min(len(self.history) + 1, self.epochs)} of {self.epochs}"}
        for metric, name in BEST.items():
            if best := max((row[metric] for row in self.history if metric in row), default=None):
                facts[name] = f"{100 * best:.2f}" + (" %" if metric == "top1" else "")
        if not self.values:
            return facts
        facts["Loss"] = f"{self.values['loss']:.4f}"
        facts[f"{self.unit.capitalize()} per second"] = f"{self.values['images_per_second']:.0f}"
        facts["Memory"] = memory(self.values)
        if running:
            spent = (time.monotonic() - self.began) / max(self.last_step - self.first, 1)
            facts["Time left"] = seconds_spoken(spent * (self.steps - self.last_step))
        return facts


def halved(points: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Neighbours as one, with their mean."""
    pairs = (points[i : i + 2] for i in range(0, len(points), 2))
    return [{name: sum(p[name] for p in pair) / len(pair) for name in pair[0] if name in pair[-1]} for pair in pairs]
