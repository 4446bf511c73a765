"""One HTML file that tells how good a model is and why: no network, no script, light and dark.

>>> from mvitv2.report import report_on, write_report
"""

import os
from pathlib import Path

from mvitv2.report import page
from mvitv2.report.curves import training
from mvitv2.report.frame import write_page
from mvitv2.report.page import Report
from mvitv2.report.pictures import Sample, samples
from mvitv2.report.runs import report_on

__all__ = ["Report", "Sample", "report_on", "samples", "write_report"]


def write_report(path: str | os.PathLike[str], report: Report) -> Path:
    """Write the page, whole or not at all; names from data are escaped, so that no class name can inject anything.

    Args:
        path: Of the HTML file; its folder must exist.
        report: What it shows.
    """
    evaluation, names = report.evaluation, [c.name for c in report.evaluation.per_class]
    mistakes = evaluation.images - round(evaluation.top1 * evaluation.images)
    lost = {item.path: item.reason for item in evaluation.unreadable}
    body = [
        page.header(report),
        page.pictures(report.samples, mistakes, report.unit),
        training(report.history, report.steps, unit=report.unit),
        page.classes(evaluation, names, report.unit),
        page.unreadable(lost, "In no figure here."),
        page.unreadable(report.unreadable, f"Of the training {report.unit}; the run went on without."),
        page.next_steps(report.next_steps),
        page.details("Recipe: every setting of this run", report.recipe),
        page.details("Environment", report.versions),
    ]
    return write_page(path, report.title, body)
