"""The page of a detector: figures, every class, and what it finds beside what is there, worst pictures first."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import torch

from mvitv2._version import __version__
from mvitv2.data.detection.dataset import DetectionImages
from mvitv2.report import page
from mvitv2.report.charts import percent
from mvitv2.report.curves import training
from mvitv2.report.frame import write_page
from mvitv2.report.object_pictures import Pair, pairs
from mvitv2.tasks.detect.detector import Detector
from mvitv2.tasks.detect_evaluation import DetectionEvaluation
from mvitv2.tasks.detect_judged import Judgement, judged
from mvitv2.tasks.detect_metrics import DetectionMeasure
from mvitv2.tasks.spoken import seconds_spoken

SHOWN = 40
"""Classes in the table at most."""


@dataclass(frozen=True, kw_only=True)
class ObjectsReport:
    """What the page of a detector shows; everything but the first three may be left out."""

    title: str
    evaluation: DetectionEvaluation
    judgement: Judgement
    images: str = "images"
    """What they are, to be read after their number."""
    facts: Mapping[str, str] = field(default_factory=dict)
    pairs: Sequence[Pair] = ()
    history: Sequence[Mapping[str, Any]] = ()
    """Rows per epoch, of :class:`mvitv2.train.loop.Outcome`."""
    steps: Sequence[Mapping[str, Any]] = ()
    """Lines of ``metrics.jsonl``."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    next_steps: Sequence[tuple[str, str]] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Reason by file, of training images that could not be read."""


def report_on_detector(
    model: Detector,
    dataset: DetectionImages,
    evaluation: DetectionEvaluation,
    *,
    title: str,
    run: Mapping[str, Any] | None = None,
    most: int = 24,
    **fields: Any,
) -> ObjectsReport:
    """What a page shows of a detector on some data.

    Args:
        model: What was measured.
        dataset: What it was measured on.
        evaluation: The figures.
        title: Stands above them.
        run: What :func:`mvitv2.train.folder.read_run` gives of the run that trained the model: curves, recipe, time.
        most: Pictures, two thirds of them the worst.
        **fields: Others of :class:`ObjectsReport`.
    """
    run = run or {}
    summary, lost = run.get("summary") or {}, {item.index for item in evaluation.unreadable}
    rows = [int(row) for index, row in enumerate(dataset.places) if index not in lost]
    judgement = judged(dataset.annotations, evaluation.results, dataset.annotations.image_ids[rows].tolist())
    facts = {
        "Images": f"{evaluation.images:,}",
        "Objects": f"{sum(one.objects for one in evaluation.box.per_class):,}",
        "Classes": f"{model.config.num_classes:,}",
        "Parameters": f"{sum(p.numel() for p in model.parameters()):,}",
    }
    if summary:
        facts["Training"] = seconds_spoken(summary["seconds"])
        facts["Epoch"] = f"{summary['best']['epoch']} of {summary['epochs']}"
    return ObjectsReport(
        title=title,
        evaluation=evaluation,
        judgement=judgement,
        facts=facts,
        pairs=pairs(dataset, evaluation, judgement, most),
        history=run.get("history", ()),
        steps=run.get("steps", ()),
        recipe=run.get("recipe") or {},
        versions=summary.get("versions") or {"mvitv2": __version__, "torch": str(torch.__version__)},
        **fields,
    )


def write_objects_report(path: str | os.PathLike[str], report: ObjectsReport) -> Path:
    """Write the page, whole or not at all; names from data are escaped.

    Args:
        path: Of the HTML file; its folder must exist.
        report: What it shows.
    """
    lost = {item.path: item.reason for item in report.evaluation.unreadable}
    body = [
        header(report),
        pictures(report),
        training(report.history, report.steps),
        figures(report.evaluation),
        classes(report.evaluation),
        page.unreadable(lost, "In no figure here."),
        page.unreadable(report.unreadable, "Of the training images; the run went on without."),
        page.next_steps(report.next_steps),
        page.details("Recipe: every setting of this run", report.recipe),
        page.details("Environment", report.versions),
    ]
    return write_page(path, report.title, body)


def measures(evaluation: DetectionEvaluation) -> list[DetectionMeasure]:
    """Of boxes, and of masks where there are any."""
    return [one for one in (evaluation.box, evaluation.mask) if one is not None]


def header(report: ObjectsReport) -> str:
    """The figure that counts, and what it belongs to."""
    evaluation = report.evaluation
    told = [f"{one.kind}es AP50 {ap(one.figures['AP50'])}" for one in measures(evaluation)[:1]]
    told += [f"masks AP {ap(one.figures['AP'])}, AP50 {ap(one.figures['AP50'])}" for one in measures(evaluation)[1:]]
    items = "".join(f"<div><dt>{escape(n)}</dt><dd>{escape(v)}</dd></div>" for n, v in report.facts.items())
    precision = evaluation.box.figures["AP"] or 0.0
    return f"""<header class="hero"><div>
<h1>{escape(report.title)}</h1>
<p class="big">{100 * precision:.1f}<small>box AP</small></p>
<div class="span"><b style="width:{100 * precision:.2f}%"></b></div>
<div class="soft">on {evaluation.images} {escape(report.images)}; {"; ".join(told)}</div>
</div><dl class="facts">{items}</dl></header>"""


def figures(evaluation: DetectionEvaluation) -> str:
    """All figures of COCO or LVIS."""
    both = measures(evaluation)
    head = "".join(f'<th class="n">{escape(one.kind)}</th>' for one in both)
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f'<td class="n">{ap(one.figures[name])}</td>' for one in both)
        + "</tr>"
        for name in evaluation.box.figures
    )
    told = (
        "Average precision over overlaps of 0.50 to 0.95, at 0.50 and at 0.75; of small (below 32 x 32 pixels), medium "
        "and large (above 96 x 96) objects; average recall. All times 100."
    )
    return (
        f'<section><h2>Figures</h2><p class="soft">{told}</p><div class="cards two"><div class="card">'
        f'<table class="classes"><tr><th></th>{head}</tr>{rows}</table></div></div></section>'
    )


def classes(evaluation: DetectionEvaluation) -> str:
    """Average precision of every class that there is, weakest first."""
    both = measures(evaluation)
    there = [place for place, one in enumerate(evaluation.box.per_class) if one.objects]
    there.sort(
        key=lambda place: (evaluation.box.per_class[place].precision or 0.0, evaluation.box.per_class[place].name)
    )
    head = "".join(f'<th class="n">{one.kind} AP</th><th class="n">AP50</th>' for one in both)
    rows = "".join(_class_row(both, place) for place in there[:SHOWN])
    more = f'<p class="soft">The {SHOWN} weakest of {len(there)} classes.</p>' if len(there) > SHOWN else ""
    return (
        '<section><h2>Each class, weakest first</h2><div class="card"><div class="scroll"><table class="classes">'
        f'<tr><th>class</th><th class="n">objects</th>{head}<th></th></tr>{rows}</table></div>{more}</div></section>'
    )


def _class_row(both: Sequence[DetectionMeasure], place: int) -> str:
    first = both[0].per_class[place]
    cells = "".join(
        f'<td class="n">{ap(own.precision)}</td><td class="n">{ap(own.precision50)}</td>'
        for own in (one.per_class[place] for one in both)
    )
    bar = f'<span class="bar"><i style="width:{100 * (first.precision or 0):.1f}%"></i></span>'
    return f'<tr><td>{escape(first.name)}</td><td class="n">{first.objects}</td>{cells}<td>{bar}</td></tr>'


def ap(value: float | None) -> str:
    """A figure as papers print it; a dash where there is nothing to measure on."""
    return "-" if value is None else f"{100 * value:.1f}"


def pictures(report: ObjectsReport) -> str:
    """What is there beside what is found, worst pictures first."""
    if not report.pairs:
        return ""
    every = report.judgement.pictures
    found, missed, false = (sum(getattr(one, name) for one in every) for name in ("found", "missed", "false"))
    told = (
        f"Detections that score {percent(report.judgement.threshold)} or more, where missed and false ones weigh the "
        f"same (highest F1 at an overlap of a half): {found} of {found + missed} objects found, {false} false. "
        "Left what is there, right what is found; the worst pictures first, then some that are right."
    )
    shown = "".join(_figure(pair) for pair in report.pairs)
    return (
        f'<section><h2>What is there and what it finds</h2><p class="soft">{told}</p>'
        f'<div class="samples large">{shown}</div></section>'
    )


def _figure(pair: Pair) -> str:
    one = pair.judged
    good = "yes" if not one.missed and not one.false else "no"
    told = f"{one.found} of {one.found + one.missed} found" + (f", {one.false} false" if one.false else "")
    return (
        f'<figure class="sample {good}"><div class="pair"><img src="{pair.truth}" alt="what is there">'
        f'<img src="{pair.found}" alt="what is found"></div><figcaption><strong>{told}</strong>'
        f'<span class="file">{escape(pair.name)}</span></figcaption></figure>'
    )
