"""The report on a data set as one HTML file with the pictures in question, which needs nothing beside it."""

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

import numpy as np

from mvitv2.data.across import Place, copies
from mvitv2.data.detection.preflight import BoxFacts
from mvitv2.data.findings import Report, SplitFacts, plural
from mvitv2.data.images import ImageError
from mvitv2.data.preflight import Examined

_SIDE = 128  # pixels of a picture on the page
_GROUPS, _IN_GROUP, _SAMPLES = 24, 4, 8
_LISTED = 100

_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}
th,td{text-align:left;padding:.15rem .9rem .15rem 0;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
td.b{width:16rem}
td.k{text-align:left;max-width:20rem}
td.b i{display:block;height:.75rem;background:#4a7fb5}
.problem b{color:#b3261e}.warning b{color:#a05a00}.note b{color:#3a6ea5}
li{margin:.4rem 0}
details{margin:.2rem 0 0 1rem;overflow-wrap:anywhere}
figure{display:inline-block;margin:.4rem .3rem .4rem 0;vertical-align:top;max-width:130px}
figcaption{font-size:12px;overflow-wrap:anywhere}
.group{border-left:3px solid #8886;padding-left:.8rem;margin:.6rem 0}
img{border-radius:3px}
"""


def page(examined: Examined[Any], report: Report) -> str:
    """One HTML file. Names of files and classes are data: they are escaped.

    Args:
        examined: The data sets and what was seen of them.
        report: What follows from it.
    """
    parts = [*_head(report), *_findings(report), *_splits(report, examined.unit), *_classes(report)]
    parts += [*_copies(examined, report), *_samples(examined)]
    return "\n".join([*parts, "</body></html>", ""])


def _head(report: Report) -> Iterator[str]:
    """Title and verdict."""
    verdict = {0: "nothing wrong was found", 1: "training cannot start", 3: "training can start; look at the warnings"}
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    yield f"<title>{escape(report.data)}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{escape(report.data)}</h1><p>{verdict[report.exit_code]}</p>"


def _findings(report: Report) -> Iterator[str]:
    """Every finding, with its examples folded away."""
    yield "<h2>Findings</h2><ul>" if report.findings else ""
    for finding in report.findings:
        rows = [f"<div>{escape(example)}</div>" for example in finding.examples[:_LISTED]]
        summary = plural(len(rows), "example")
        folded = f"<details><summary>{summary}</summary>{''.join(rows)}</details>" if rows else ""
        yield f'<li class="{finding.severity}"><b>{finding.severity}</b> {escape(finding.text)}{folded}</li>'
    yield "</ul>" if report.findings else ""
    mean, std = (" ".join(f"{value:g}" for value in report.normalisation[key]) for key in ("mean", "std"))
    source = "ImageNet's" if report.normalisation["source"] == "imagenet" else "their own"
    yield f"<p>Normalise by {source} mean {mean} and deviation {std}.</p>"


def _splits(report: Report, unit: str) -> Iterator[str]:
    """Figures of the splits, and of the objects in them; ``unit`` is what is counted, in the plural."""
    boxed = all(isinstance(facts, BoxFacts) for facts in report.splits.values())
    yield "<h2>Splits</h2><table><tr><th></th>"
    yield "".join(f'<th class="n">{escape(split)}</th>' for split in report.splits) + "</tr>"
    for name, told in (
        (unit, lambda facts: facts.images),
        ("unreadable", lambda facts: facts.unreadable),
        ("shorter side, least", lambda facts: facts.sides[0]),
        ("shorter side, median", lambda facts: facts.sides[1]),
        ("mean", lambda facts: " ".join(f"{value:.3f}" for value in facts.mean)),
        ("deviation", lambda facts: " ".join(f"{value:.3f}" for value in facts.std)),
        ("formats", _kinds),
        *(_OBJECTS if boxed else ()),
    ):
        cells = "".join(f'<td class="n">{escape(str(told(facts)))}</td>' for facts in report.splits.values())
        yield f"<tr><td>{name}</td>{cells}</tr>"
    yield "</table>"


def _kinds(facts: SplitFacts) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in facts.kinds.items())


_OBJECTS: tuple[tuple[str, Callable[[Any], int]], ...] = (
    ("objects", lambda facts: facts.objects),
    ("crowds", lambda facts: facts.crowds),
    ("objects with a mask", lambda facts: facts.masks),
    ("small, below 32 x 32 pixels", lambda facts: facts.by_size[0]),
    ("medium", lambda facts: facts.by_size[1]),
    ("large, above 96 x 96 pixels", lambda facts: facts.by_size[2]),
    ("pictures without an object", lambda facts: facts.without),
)
"""Rows of a table of :class:`~mvitv2.data.detection.preflight.BoxFacts`."""


def _classes(report: Report) -> Iterator[str]:
    """Pictures (or objects) of every class, a bar for the first split."""
    split, facts = next(iter(report.splits.items()))
    first, what = facts.counts, "Objects of each class" if isinstance(facts, BoxFacts) else "Classes"
    names = list(dict.fromkeys(name for facts in report.splits.values() for name in facts.counts))
    longest = max([*first.values(), 1])
    yield f"<h2>{what}</h2><table><tr><th>class</th>"
    yield "".join(f'<th class="n">{escape(name)}</th>' for name in report.splits) + f"<th>{escape(split)}</th></tr>"
    for name in names:
        cells = "".join(f'<td class="n">{facts.counts.get(name, "-")}</td>' for facts in report.splits.values())
        width = 100 * first.get(name, 0) / longest
        yield f'<tr><td>{escape(name)}</td>{cells}<td class="b"><i style="width:{width:.1f}%"></i></td></tr>'
    yield "</table>"


def _copies(examined: Examined[Any], report: Report) -> Iterator[str]:
    """Pictures that are there more than once, side by side; those in several splits first."""
    for kind, groups in copies(examined.looks, report.limits).items():
        if not groups:
            continue
        title = "The same file" if kind == "same" else f"Nearly the same {examined.unit.removesuffix('s')}"
        yield f"<h2>{title}</h2>"
        for group in sorted(groups, key=lambda group: -len({split for split, _ in group}))[:_GROUPS]:
            yield f'<div class="group">{"".join(_figure(examined, place) for place in group[:_IN_GROUP])}</div>'
        if len(groups) > _GROUPS:
            yield f"<p>{_GROUPS} of {len(groups)} groups are shown.</p>"


def _samples(examined: Examined[Any]) -> Iterator[str]:
    """A few pictures of every split, evenly from all of it."""
    for split in examined.datasets:
        places = np.flatnonzero(examined.looks[split].readable)
        spread = np.linspace(0, len(places) - 1, min(_SAMPLES, len(places))).round().astype(int)
        chosen: Sequence[int] = places[spread].tolist()
        yield f"<h2>Some of {escape(split)}</h2>{''.join(_figure(examined, (split, index)) for index in chosen)}"


def _figure(examined: Examined[Any], place: Place) -> str:
    """One picture with its class and its file; only the words, where it cannot be read any more."""
    split, index = place
    dataset = examined.datasets[split]
    name = dataset.told(index)
    path = dataset.path(index)
    caption = (
        f'<figcaption title="{escape(str(path))}"><b>{escape(name)}</b> {escape(f"{split}/{path.name}")}</figcaption>'
    )
    try:
        image = dataset.read(index)
    except ImageError as error:
        return f"<figure>{escape(error.reason)}{caption}</figure>"
    image.thumbnail((_SIDE, _SIDE))
    image.save(stream := io.BytesIO(), "JPEG", quality=80)
    data = base64.b64encode(stream.getvalue()).decode()
    size = f'width="{image.width}" height="{image.height}"'
    return f'<figure><img alt="{escape(name)}" {size} src="data:image/jpeg;base64,{data}">{caption}</figure>'
