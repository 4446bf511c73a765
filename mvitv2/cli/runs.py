"""``mvitv2 runs``: training runs side by side."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from mvitv2.cli.output import check_folder, columns
from mvitv2.cli.words import Maybe

EXAMPLES = """\
  mvitv2 runs                                        # all runs below runs/, best first
  mvitv2 runs experiments --sort val_loss --html experiments.html
  mvitv2 runs --json
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which runs, in which order, and how they are shown."""

    folder: Annotated[Positional[Path], arg(help_behavior_hint="(default: runs)")] = Path("runs")
    """Where the folders of the runs are."""
    sort: str = "top1"
    """The figure that they are compared by: a column of their results.csv."""
    html: Maybe[Path] = None
    """Write a page with the table and all curves in one chart."""
    json: bool = False
    """Print it for programs."""


def run(options: Options) -> int:
    """Print the table; write the page."""
    from mvitv2.report.compare import find_runs, ranked, rows, write_comparison

    if options.html is not None:
        check_folder(options.html)
    runs = ranked(find_runs(options.folder), options.sort)
    if options.json:
        found = [
            {
                "run": one.name,
                options.sort: one.best(options.sort),
                "epochs": len(one.history),
                "finished": bool(one.summary),
                "seconds": one.seconds,
                "recipe": dict(one.recipe),
            }
            for one in runs
        ]
        print(json.dumps(found, indent=2))
    else:
        print(columns(rows(runs, options.sort), right=(1,)))
    if options.html is not None:
        page = write_comparison(options.html, runs, options.sort)
        if not options.json:
            print(f"page: {page}")
    return 0
