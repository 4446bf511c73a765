"""The page, section by section. Everything that comes from data is escaped here, once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from mvitv2.report.charts import confused_pairs, confusion_matrix, percent
from mvitv2.report.pictures import Sample
from mvitv2.tasks.evaluation import Evaluation
from mvitv2.tasks.metrics import ClassResult

SHORT_NAME = 3
"""Class names up to this length stand upright above a column."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a page shows; everything but the first two may be left out."""

    title: str
    evaluation: Evaluation
    images: str = "images"
    """What they are, to be read after their number."""
    unit: str = "images"
    """``"images"`` or ``"clips"``."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Short figures beside the headline: model, parameters, time."""
    history: Sequence[Mapping[str, Any]] = ()
    """Rows per epoch, of :class:`mvitv2.train.loop.Outcome`."""
    steps: Sequence[Mapping[str, Any]] = ()
    """Lines of ``metrics.jsonl``."""
    samples: Sequence[Sample] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    next_steps: Sequence[tuple[str, str]] = ()
    """Sentences and commands."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Reason by file, of training images that could not be read."""


def header(report: Report) -> str:
    """The figure that counts, how sure it is, and what it belongs to."""
    evaluation, (low, high) = report.evaluation, report.evaluation.top1_interval
    facts = report.facts.items()
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    number, right = f"{100 * evaluation.top1:.2f}", round(evaluation.top1 * evaluation.images)
    return f"""<header class="hero"><div>
<h1>{escape(report.title)}</h1>
<p class="big">{number}<small>% right</small></p>
<div class="span" title="95 % interval on a scale of 0 to 100 %"><b style="width:{100 * evaluation.top1:.2f}%"></b>
<i style="left:{100 * low:.2f}%;right:{100 - 100 * high:.2f}%"></i></div>
<div class="soft">{right} of {evaluation.images} {escape(report.images)}; between {percent(low)} and {percent(high)}
with 95 % confidence</div>
</div><dl class="facts">{items}</dl></header>"""


def classes(evaluation: Evaluation, names: Sequence[str], unit: str = "images") -> str:
    """Which class is taken for which, and how well each is recognised."""
    matrix = pairs = ""
    if evaluation.confusion is not None:
        matrix = confusion_matrix(evaluation.confusion, names)
        if any(len(name) > SHORT_NAME for name in names):
            matrix = matrix.replace('class="confusion', 'class="confusion tall')
        pairs = _pairs(confused_pairs(evaluation.confusion, names)) if not matrix else ""
    left = f'<div class="card"><h3>What is taken for what</h3>{matrix or pairs}</div>' if matrix or pairs else ""
    ranked = sorted(evaluation.per_class, key=lambda c: (c.recall is None, c.recall, c.name))
    shown = ranked if len(ranked) <= 40 else ranked[:40]
    more = f'<p class="soft">The 40 weakest of {len(ranked)} classes.</p>' if len(shown) < len(ranked) else ""
    rows = "".join(_class_row(result, unit) for result in shown)
    table = (
        '<div class="card"><h3>Each class, weakest first</h3><div class="scroll"><table class="classes">'
        "<tr><th>class</th>"
        f'<th class="n">{escape(unit)}</th><th class="n">found</th><th></th>'
        '<th class="n">right when it says so</th></tr>'
        f"{rows}</table></div>{more}</div>"
    )
    sure = (
        f"Its confidence is off by {percent(evaluation.calibration_error)} on average (expected calibration error); "
        f"mean recall over classes {percent(evaluation.mean_class)}."
    )
    return f'<section><h2>Classes</h2><p class="soft">{sure}</p><div class="cards">{left}{table}</div></section>'


def _pairs(pairs: Sequence[tuple[str, str, int, int]]) -> str:
    rows = "".join(
        f'<tr><td>{escape(truth)}</td><td>{escape(guess)}</td><td class="n">{count} of {total}</td></tr>'
        for truth, guess, count, total in pairs
    )
    return (
        f'<table class="classes"><tr><th>it is</th><th>it says</th><th class="n">times</th></tr>{rows}</table>'
        if rows
        else ""
    )


def _class_row(result: ClassResult, unit: str) -> str:
    recall, precision = result.recall, result.precision
    found = f"no {escape(unit)}" if recall is None else percent(recall)
    bar = f'<span class="bar"><i style="width:{100 * (recall or 0):.1f}%"></i></span>'
    said = "never said" if precision is None else percent(precision)
    return (
        f'<tr><td>{escape(result.name)}</td><td class="n">{result.images}</td><td class="n">{found}</td><td>{bar}</td>'
        f'<td class="n">{said}</td></tr>'
    )


def pictures(samples: Sequence[Sample], mistakes: int, unit: str = "images") -> str:
    """Pictures with what the model says, mistakes first, and where it looked; clips as strips of frames."""
    if not samples:
        return ""
    wrong = sum(not s.right for s in samples)
    told = (
        f"No mistakes on these {escape(unit)}. "
        if not mistakes
        else f"{wrong} of {mistakes} mistakes, the most confident first. "
    )
    figures, clips = "".join(_figure(sample) for sample in samples), unit == "clips"
    where = "Some frames of each clip, from its first to its last, and below them" if clips else "Beside each picture:"
    return (
        f'<section><h2>What it sees and says</h2><p class="soft">{told}{where} what its answer rests on, '
        "attention followed back through every pooling to the pixels; light is much.</p>"
        f'<div class="samples{" strips" * clips}">{figures}</div></section>'
    )


def _figure(sample: Sample) -> str:
    looked = f'<img src="{sample.attention}" alt="where the model looked">' if sample.attention else ""
    truth = "" if sample.right else f'<span class="truth">but it is {escape(sample.truth)}</span>'
    return (
        f'<figure class="sample {"yes" if sample.right else "no"}"><div class="pair">'
        f'<img src="{sample.picture}" alt="{escape(sample.truth)}">{looked}</div><figcaption>'
        f'<span class="score">{percent(sample.score)}</span><strong>{escape(sample.guess)}</strong> {truth}'
        f'<span class="file">{escape(sample.name)}</span></figcaption></figure>'
    )


def unreadable(files: Mapping[str, str], what: str, most: int = 200) -> str:
    """Files that could not be read, with the reason of each; nothing where all could.

    Args:
        files: Reason by file.
        what: What they are, and what became of them, as a sentence.
        most: How many are named.
    """
    if not files:
        return ""
    items = "".join(f"<li>{escape(path)}: {escape(reason)}</li>" for path, reason in list(files.items())[:most])
    rest = f"<li>and {len(files) - most} more</li>" if len(files) > most else ""
    count = f"{len(files)} file{'s' * (len(files) > 1)}"
    told = f"<h2>{count} could not be read</h2><p>{escape(what)}</p>"
    return (
        f"<section>{told}<details{' open' if len(files) <= 10 else ''}><summary>Which, and why</summary>"
        f'<ul class="files">{items}{rest}</ul></details></section>'
    )


def next_steps(steps: Sequence[tuple[str, str]]) -> str:
    """Sentences and the commands that go with them."""
    items = "".join(f"<li>{escape(text)}<pre>{escape(command)}</pre></li>" for text, command in steps)
    return (
        f'<section><h2>What to do next</h2><div class="card"><ol class="next">{items}</ol></div></section>'
        if steps
        else ""
    )


def details(title: str, fields: Mapping[str, Any], *, opened: bool = False) -> str:
    """Names and values, folded away."""
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(_spoken(value))}</dd></div>" for name, value in fields.items()
    )
    state = " open" if opened else ""
    return f'<details{state}><summary>{escape(title)}</summary><dl class="fields">{rows}</dl></details>' if rows else ""


def _spoken(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
