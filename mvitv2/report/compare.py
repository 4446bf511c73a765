"""Training runs side by side: how good each became, in which settings they differ, and their curves in one chart."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvitv2.report.charts import Curve, line_chart, percent, plain
from mvitv2.report.curves import by_epoch
from mvitv2.report.frame import write_page
from mvitv2.report.page import escape
from mvitv2.tasks.spoken import seconds_spoken
from mvitv2.train.folder import RECIPE, read_json, read_results

COLOURED = 8
"""Runs whose curves have colours of their own; the others are in the background."""
DEPTH = 4
"""Folders below the given one in which runs are looked for."""
LESS_IS_BETTER = ("loss", "seconds", "lr")
SHARES = ("top1", "top5", "mean_class", "raw_top1", "raw_top5")
"""Figures of 0 to 1 that are written in per cent."""
UNSAID = ("name", "source")
"""Fields of a recipe that say nothing about numbers."""


@dataclass(frozen=True)
class ComparedRun:
    """One run as its folder tells it."""

    name: str
    """The folder, from where runs were looked for."""
    recipe: Mapping[str, Any]
    history: Sequence[Mapping[str, float]]
    summary: Mapping[str, Any]
    """Empty while it goes on, or where it was stopped."""

    def best(self, metric: str) -> float | None:
        """The best epoch's figure; ``None`` where no epoch has it."""
        values = [row[metric] for row in self.history if metric in row and math.isfinite(row[metric])]
        if not values:
            return None
        return min(values) if less_is_better(metric) else max(values)

    @property
    def epochs(self) -> str:
        """Epochs done, of how many where not all are."""
        wanted = self.recipe.get("epochs", len(self.history))
        return f"{len(self.history)}" if len(self.history) == wanted else f"{len(self.history)} of {wanted}"

    @property
    def seconds(self) -> float:
        """Spent on steps."""
        return self.summary.get("seconds") or sum(row.get("seconds", 0) for row in self.history)


def less_is_better(metric: str) -> bool:
    """Whether the smallest value of a figure is the best."""
    return any(part in metric for part in LESS_IS_BETTER)


def find_runs(folder: Path) -> list[ComparedRun]:
    """The runs in a folder and in folders below it, by name; itself, if it is one.

    Raises:
        ValueError: There is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; runs are looked for in the folder that holds theirs")
    runs = [read_compared(path, folder) for path in sorted(_run_folders(folder, DEPTH))]
    if not runs:
        raise ValueError(f"no run in {folder}: none of its folders has a {RECIPE}")
    return runs


def _run_folders(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / RECIPE).is_file():
        yield folder
    elif depth:
        for inside in folder.iterdir():
            if inside.is_dir() and not inside.is_symlink() and not inside.name.startswith("."):
                yield from _run_folders(inside, depth - 1)


def read_compared(path: Path, below: Path) -> ComparedRun:
    """One run from its folder."""
    name = str(path.relative_to(below)) if path != below else path.name
    return ComparedRun(name, read_json(path / RECIPE), read_results(path), read_json(path / "summary.json"))


def ranked(runs: Sequence[ComparedRun], metric: str) -> list[ComparedRun]:
    """Best first; runs without the figure last.

    Raises:
        ValueError: No run has it; those that they have are listed.
    """
    there = {name for run in runs for row in run.history for name in row}
    if metric not in there and there:
        raise ValueError(f"no run has a figure {metric!r}; they have {', '.join(sorted(there))}")

    def place(run: ComparedRun) -> tuple[bool, float]:
        value = run.best(metric)
        return value is None, 0.0 if value is None else value if less_is_better(metric) else -value

    return sorted(runs, key=place)


def differing(runs: Sequence[ComparedRun]) -> list[str]:
    """Fields of the recipes that are not the same in all runs; ``a.b`` for entries of fields that are mappings."""
    fields = [flat(run.recipe) for run in runs]
    names = dict.fromkeys(name for one in fields for name in one)
    return [n for n in names if n not in UNSAID and len({repr(one.get(n)) for one in fields}) > 1]


def flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with mappings opened up, and those in them."""
    found: dict[str, Any] = {}
    for name, value in recipe.items():
        inside = flat(value) if isinstance(value, dict) else {}
        found |= {f"{name}.{inner}": v for inner, v in inside.items()} if isinstance(value, dict) else {name: value}
    return found


def spoken(metric: str, value: float | None) -> str:
    """A figure as people read it."""
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if metric in SHARES else plain(value)


def rows(runs: Sequence[ComparedRun], metric: str) -> list[list[str]]:
    """A header and a row for each run: name, figure, epochs, time, and the settings that differ."""
    fields = differing(runs)
    table = [["RUN", metric.upper(), "EPOCHS", "TIME", *fields]]
    for run in runs:
        settings = flat(run.recipe)
        cells = [_cell(settings.get(name)) for name in fields]
        table.append([run.name, spoken(metric, run.best(metric)), run.epochs, seconds_spoken(run.seconds), *cells])
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ",".join(map(_cell, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def write_comparison(path: Path, runs: Sequence[ComparedRun], metric: str) -> Path:
    """One page: the table, and the curves of all runs in one chart for each figure."""
    table = rows(runs, metric)
    head = f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in table[0])}</tr>"
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table[1:])
    figures = dict.fromkeys((metric, "top1", "val_loss", "train_loss"))
    charts = "".join(_chart(runs, name) for name in figures)
    return write_page(
        path,
        f"{len(runs)} runs",
        [
            f'<header class="hero"><div><h1>{len(runs)} runs by {escape(metric)}, best first</h1></div></header>',
            f'<section><div class="card scroll"><table class="runs classes">{head}{body}</table></div></section>',
            f'<section><h2>Curves</h2><div class="cards two">{charts}</div></section>',
        ],
    )


def _chart(runs: Sequence[ComparedRun], name: str) -> str:
    """A figure of all runs by epoch."""
    curves = [
        Curve(run.name, by_epoch(run.history, name), f"c{place}" if place < COLOURED else "faint", marks=True)
        for place, run in enumerate(runs)
    ]
    share = name in SHARES
    chart = line_chart(f"{name} by epoch", curves, x_name="epoch", spoken=percent if share else plain)
    return f'<div class="card"><h3>{escape(name)}</h3>{chart}</div>' if chart else ""
