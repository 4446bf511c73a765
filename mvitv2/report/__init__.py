"""One HTML file that tells how good a model is and why: no network, no script, light and dark.

>>> from mvitv2.report import report_on, write_report
"""

import os
from importlib.resources import files
from pathlib import Path
from string import Template

from mvitv2._version import __version__
from mvitv2.report import page
from mvitv2.report.page import Report
from mvitv2.report.pictures import Sample, samples
from mvitv2.report.runs import report_on
from mvitv2.weights.files import replacing

__all__ = ["Report", "Sample", "report_on", "samples", "write_report"]


def write_report(path: str | os.PathLike[str], report: Report) -> Path:
    """Write the page, whole or not at all; names from data are escaped, so that no class name can inject anything.

    Args:
        path: Of the HTML file; its folder must exist.
        report: What it shows.
    """
    evaluation, names = report.evaluation, [c.name for c in report.evaluation.per_class]
    mistakes = evaluation.images - round(evaluation.top1 * evaluation.images)
    body = [
        page.header(report),
        page.pictures(report.samples, mistakes),
        page.training(report.history, report.steps),
        page.classes(evaluation, names),
        page.unreadable(evaluation),
        page.next_steps(report.next_steps),
        page.details("Recipe: every setting of this run", report.recipe),
        page.details("Versions", report.versions),
        f"<footer>Written by mvitv2 {__version__}. This file is complete: it loads nothing.</footer>",
    ]
    text = Template(files(__name__).joinpath("template.html").read_text(encoding="utf-8")).substitute(
        title=page.escape(report.title), body="\n".join(part for part in body if part)
    )
    target = Path(path)
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return target
