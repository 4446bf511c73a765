"""What ``mvitv2 train`` does around a run: a look at the data before, who listens while it goes, the page after."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from mvitv2.cli.failures import one_line
from mvitv2.cli.output import counter, notes

if TYPE_CHECKING:
    from mvitv2.cli.train import Options
    from mvitv2.data.findings import Report
    from mvitv2.data.preflight import Told
    from mvitv2.train.loop import Outcome
    from mvitv2.train.progress import Progress
    from mvitv2.train.recipe import Recipe
    from mvitv2.train.settings import Settings

LOOKED_AT = ("classify", "detect", "segment")
"""Tasks whose data is looked at before training."""
SHOWN = 5
"""Findings that are named before training."""


@contextmanager
def notes_for(options: "Options") -> Iterator[None]:
    """Inside, notes are printed: on standard error, where standard output is for programs."""
    with redirect_stdout(sys.stderr if options.json else sys.stdout), notes():
        yield


def look_at(options: "Options", recipe: "Recipe") -> None:
    """Look at the data as ``mvitv2 check`` does, and say what is found; nothing for the built-in digits.

    Raises:
        mvitv2.data.labelled.DataError: Training could not start on it.
    """
    if not options.check or options.data == "digits" or recipe.task not in LOOKED_AT:
        return
    from mvitv2.data.labelled import DataError

    with counter("looking at pictures") as told:
        report = looked(options.data, recipe.task, lambda _split, done, total: told(done, total))
    try:
        report.stop_if_needed()
    except DataError as error:
        raise DataError(
            f"{error} (mvitv2 check {options.data} shows all, --no-check trains without looking)"
        ) from error
    where = sys.stderr if options.json else sys.stdout
    # detectors have a normalisation of their own
    told_of = [one for one in report.findings if recipe.task == "classify" or one.kind != "normalisation"]
    for finding in told_of[:SHOWN]:
        print(f"{finding.severity}: {one_line(finding.text)}", file=where)
    if (rest := len(told_of) - SHOWN) > 0:
        print(f"and {rest} more; `mvitv2 check {options.data}` shows all", file=where)
    measured = recipe.task == "classify" and report.normalisation["source"] == "measured"
    if measured and recipe.weights is None and not recipe.preprocessing:
        mean, std = (",".join(f"{v:g}" for v in report.normalisation[key]) for key in ("mean", "std"))
        print(f"for these pictures: preprocessing.mean={mean} preprocessing.std={std}", file=where)


def looked(data: str, task: str, told: "Told") -> "Report":
    """What is found in pictures, or in pictures with boxes.

    Raises:
        mvitv2.data.labelled.DataError: Not one split can be opened.
    """
    from mvitv2.data.detection.preflight import examine_detection, report_on_boxes
    from mvitv2.data.findings import Limits
    from mvitv2.data.preflight import preflight

    if task == "classify":
        return preflight(data, on_progress=told)
    return report_on_boxes(examine_detection(data, on_progress=told), Limits())


def listeners(options: "Options", recipe: "Recipe", settings: "Settings", unit: str) -> "Progress":
    """All who are told how the run goes: people or programs, trackers, the page in its folder.

    Args:
        options: Whom to tell.
        recipe: Of the run.
        settings: Its folder.
        unit: What is trained on, in the plural.

    Raises:
        ValueError: ``--log`` names no tracker.
        ImportError: Or one whose library is missing.
    """
    from mvitv2.report.live import LivePage
    from mvitv2.train.progress import JsonLines, Together, progress_on
    from mvitv2.train.tracked import Tracked
    from mvitv2.train.trackers import chosen

    people = JsonLines() if options.json else progress_on(unit=unit)
    everybody: list[Progress] = [people]
    if names := chosen(options.log):
        config = {"data": options.data, **recipe.to_dict()}
        everybody.append(Tracked(names, settings.output, config=config, every=settings.log_steps, warn=people.say))
    if options.report:
        title = f"{recipe.model} on {Path(options.data).name}"
        everybody.append(LivePage(settings.output, title=title, recipe=recipe.to_dict(), unit=unit))
    return Together(*everybody)


def last_page(options: "Options", outcome: "Outcome", recipe: "Recipe", settings: "Settings") -> Path | None:
    """The page of the finished run; ``None`` where none is wanted."""
    if not options.report:
        return None
    from mvitv2.report.finished import MAKERS
    from mvitv2.report.live import NAME

    if recipe.task not in MAKERS:
        return outcome.folder / NAME
    with counter("measuring for the report") as told:
        return MAKERS[recipe.task](options.data, outcome, recipe, settings, told)
