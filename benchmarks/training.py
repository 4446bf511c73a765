"""``python -m benchmarks.training DATA``: our engine and timm's on the same pictures, recipe and processor time.

timm trains first, for the recipe's epochs. Ours then gets as many epochs as fit into the same processor time, by the
measured time of a step. Both end with the moving average of their last epoch; one thread, loading included.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from mvitv2.train.classification import classification_job, preprocessing_for
from mvitv2.train.loop import fit
from mvitv2.train.recipe import Recipe, overridden
from mvitv2.train.recipes import recipe
from mvitv2.train.settings import Settings

from . import timm_loop
from .machine import describe

ROOT = Path(__file__).parents[1]


def ours(data: Path, chosen: Recipe, folder: Path) -> dict[str, Any]:
    """Train by our engine, as ``mvitv2 train`` does; figures as :func:`benchmarks.timm_loop.train` gives them."""
    settings = Settings(output=folder, save_minutes=1e9)
    job = classification_job(data, chosen, settings)
    marks: list[float] = []
    objective = job.objective

    def noted(model: Any, batch: Any, place: int) -> Any:
        marks.append(time.process_time())
        return objective(model, batch, place)

    measure, measuring = job.measure, 0.0

    def measured(model: Any, told: Any) -> Any:
        nonlocal measuring
        started = time.process_time()
        figures = measure(model, told)
        measuring += time.process_time() - started
        return figures

    started = time.process_time()
    outcome = fit(dataclasses.replace(job, objective=noted, measure=measured), chosen, settings)
    seconds = time.process_time() - started - measuring
    steps = [after - before for before, after in pairwise(marks)]
    return {
        "top1": outcome.history[-1]["top1"],
        "epochs": chosen.epochs,
        "cpu_seconds": seconds,
        "steps": steps,
        "history": [row["top1"] for row in outcome.history],
    }


def classes_of(data: Path) -> int:
    """Class folders of the training images."""
    return len([entry for entry in (data / "train").iterdir() if entry.is_dir()])


def step_time(data: Path, chosen: Recipe, folder: Path) -> dict[str, float]:
    """Median processor seconds of a step, of either engine in either precision, an epoch each."""
    classes, found = classes_of(data), dict[str, float]()
    for precision in ("fp32", "bf16"):
        short = overridden(chosen, {"epochs": 1, "warmup_epochs": 0.0, "precision": precision})
        theirs = timm_loop.train(data, short, preprocessing_for(short, {}), num_classes=classes)
        found[f"timm {precision}"] = statistics.median(theirs["steps"])
        found[f"mvitv2 {precision}"] = statistics.median(ours(data, short, folder / precision)["steps"])
    return found


def compared(data: Path, chosen: Recipe, keep: Path, times: dict[str, float]) -> dict[str, Any]:
    """Both engines within the processor time that timm takes for the recipe, each in its faster precision."""
    classes = classes_of(data)
    fastest = {name: min(("fp32", "bf16"), key=lambda p: times[f"{name} {p}"]) for name in ("timm", "mvitv2")}
    theirs_recipe = overridden(chosen, {"precision": fastest["timm"]})
    theirs = timm_loop.train(data, theirs_recipe, preprocessing_for(theirs_recipe, {}), num_classes=classes)
    epoch = len(theirs["steps"]) / chosen.epochs * times[f"mvitv2 {fastest['mvitv2']}"]
    epochs = max(int(0.97 * theirs["cpu_seconds"] / epoch), 1)
    warmup = chosen.warmup_epochs * epochs / chosen.epochs
    mine = overridden(chosen, {"precision": fastest["mvitv2"], "epochs": epochs, "warmup_epochs": warmup})
    return {
        "seconds_per_step": times,
        "precision": fastest,
        "timm": _told(theirs),
        "mvitv2": _told(ours(data, mine, keep)),
    }


def _told(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "steps": statistics.median(found["steps"])}


def table(result: dict[str, Any]) -> str:
    """Both runs for a reader."""
    lines = [f"  a step, {name:12} {1e3 * seconds:8.1f} ms" for name, seconds in result["seconds_per_step"].items()]
    for name in ("timm", "mvitv2"):
        run = result[name]
        lines.append(
            f"  {name:8} {result['precision'][name]}  {run['epochs']:4} epochs  {run['cpu_seconds']:7.0f} s  "
            f"top-1 {100 * run['top1']:.2f} %"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("data", type=Path, help="a folder with train/ and val/ of class folders")
    parser.add_argument("--recipe", default="small", help="of `mvitv2 recipes` (default: small)")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="other fields of the recipe")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON file")
    parser.add_argument("--times", type=Path, help="JSON file of an earlier run with the same model, batch and machine")
    parser.add_argument("--keep", type=Path, help="folder for our run, as `mvitv2 train` leaves it (default: removed)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    changes = dict(item.split("=", 1) for item in arguments.set)
    chosen = overridden(recipe(arguments.recipe), changes)
    with tempfile.TemporaryDirectory() as temporary:
        known = json.loads(arguments.times.read_text())["seconds_per_step"] if arguments.times else None
        times = known or step_time(arguments.data, chosen, Path(temporary))
        result = compared(arguments.data, chosen, arguments.keep or Path(temporary) / "run", times)
    sys.stdout.write(f"{arguments.data.name}\n{table(result)}\n")
    record = {"date": str(date.today()), "machine": describe(), "recipe": chosen.to_dict(), **result}
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{record['date']}-training-{arguments.data.name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
