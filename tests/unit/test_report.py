"""One file, complete, escaped, and right about its numbers."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mvitv2.preprocessing import Preprocessing
from mvitv2.report import Report, report_on, samples, write_report
from mvitv2.report.charts import Curve, confused_pairs, confusion_matrix, line_chart, thinned, ticks
from mvitv2.report.pictures import data_address, enlarged
from mvitv2.tasks.classify import evaluate
from mvitv2.train.folder import read_run
from mvitv2.train.loop import fit
from mvitv2.train.recipe import overridden
from mvitv2.train.settings import Settings

from ..e2e.training_job import Patterns, small_job, small_model

NASTY = ("<script>alert(1)</script>", "a\"b'c&d", "äöü\u202e")
VOID = {"meta", "img", "br"}


class Balanced(HTMLParser):
    """Fails on tags that do not match; remembers texts and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


class Named(Patterns):
    class_names = NASTY


def report(**changes: Any) -> Report:
    model = small_model()
    model.card = {
        "classes": list(NASTY),
        "preprocessing": Preprocessing(size=(16, 16), resize=16, mean=(0.5,) * 3, std=(0.5,) * 3).to_dict(),
    }
    found = evaluate(model, Named(20))
    history = [
        {"epoch": e, "step": 5 * e, "lr": 1e-3 / e, "train_loss": 1 / e, "val_loss": 1.2 / e, "top1": 1 - 0.5 / e}
        for e in (1, 2, 3)
    ]
    return Report(
        **{
            "title": "A <b>title</b>",
            "evaluation": found,
            "facts": {"Classes": "3", "<x>": "<y>"},
            "history": history,
            "steps": [{"step": s, "loss": 1.0, "lr": 0.1} for s in range(1, 16)],
            "samples": samples(model, Named(20), found),
            "recipe": {"lr": 0.1, "name": "</details>"},
            "versions": {"torch": "2"},
            "next_steps": [("Do <this>", "mvitv2 predict 'a&b'")],
            **changes,
        }
    )


def page(tmp_path: Path, **changes: Any) -> tuple[str, Balanced]:
    text = write_report(tmp_path / "report.html", report(**changes)).read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    return text, parser


def test_the_page_is_complete_and_loads_nothing(tmp_path: Path) -> None:
    text, parser = page(tmp_path)
    assert "script" not in parser.tags
    assert "link" not in parser.tags
    for name, value in parser.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert (value or "").startswith("data:image/")
    assert "http:" not in text and "https:" not in text
    assert "prefers-color-scheme: dark" in text
    assert re.search(r"<svg .*</svg>", text, re.S)


def test_names_cannot_inject_anything(tmp_path: Path) -> None:
    text, _ = page(tmp_path)
    for name in ("<script>", "<b>title", "<this>", "<x>", "<y>"):
        assert name not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "a&quot;b&#x27;c&amp;d" in text


def test_the_headline_is_the_evaluation(tmp_path: Path) -> None:
    found = report().evaluation
    text, _ = page(tmp_path)
    assert f"{100 * found.top1:.2f}<small>% right" in text
    assert f"{round(found.top1 * 20)} of 20 images" in text


def test_a_page_of_an_evaluation_alone(tmp_path: Path) -> None:
    text, parser = page(tmp_path, history=(), steps=(), samples=(), recipe={}, versions={}, next_steps=(), facts={})
    assert "svg" not in parser.tags
    assert "Each class, weakest first" in text


def test_a_page_of_a_run(tmp_path: Path) -> None:
    from .test_train_loop import PLAIN

    outcome = fit(small_job(), overridden(PLAIN, {"epochs": 2}), Settings(output=tmp_path))
    model = small_model()
    model.card = {"classes": list(NASTY), "preprocessing": Preprocessing(size=(16, 16), resize=16).to_dict()}
    found = report_on(model, Named(20), evaluate(model, Named(20)), title="t", run=read_run(outcome.folder))
    assert [row["epoch"] for row in found.history] == [1.0, 2.0]
    assert len(found.steps) == outcome.steps
    assert (found.facts["Image size"], found.facts["Epoch"]) == ("16 x 16", f"{outcome.best['epoch']} of 2")
    assert found.recipe["name"] == "small"
    alone = report_on(model, Named(20), evaluate(model, Named(20)), title="t")
    assert (list(alone.history), list(alone.steps), alone.recipe) == ([], [], {})
    assert "Training" not in alone.facts


def test_wrong_samples_come_first_and_right_ones_are_there_too() -> None:
    shown = report().samples
    rights = [sample.right for sample in shown]
    assert rights == sorted(rights)
    assert len(shown) <= 24
    assert all(s.picture.startswith("data:image/") and s.attention for s in shown)


def test_pictures_are_small() -> None:
    assert enlarged(Image.new("RGB", (400, 100))).size == (144, 36)
    assert enlarged(Image.new("L", (8, 8))).size == (144, 144)
    assert data_address(Image.new("RGB", (8, 8))).startswith("data:image/png;base64,")


@pytest.mark.parametrize("low, high", [(0, 1), (0.93, 1), (3, 3), (-2, 7), (1e-6, 2e-3), (0, 12)])
def test_ticks_are_round_and_cover_the_range(low: float, high: float) -> None:
    found = ticks(low, high, 5)
    assert found[0] <= low and found[-1] >= high
    assert 2 <= len(found) <= 9
    assert found == sorted(set(found))


def test_charts() -> None:
    assert line_chart("none", [Curve("a", [], "a")], x_name="epoch") == ""
    drawn = line_chart("<t>", [Curve("a", [(1, 0.5), (2, float("nan"))], "a", marks=True)], x_name="epoch")
    assert "&lt;t&gt;" in drawn
    assert drawn.count("<circle") == 1
    assert len(thinned([(float(i), 1.0) for i in range(1001)], 100)) <= 100


@pytest.mark.parametrize("value", [0.00075, 7.5e-7, 1e12, 40.0])
def test_values_of_an_axis_are_not_cut_off(value: float) -> None:
    """Texts end before the axis: the longest has room, at 7 pixels a character at least."""
    drawn = line_chart("t", [Curve("a", [(1, 0.0), (2, value)], "a")], x_name="epoch")
    texts = re.findall(r'x="(\d+)" y="[^"]*" text-anchor="end">([^<]*)<', drawn)
    assert len(texts) > 3 and all(int(end) >= 7 * len(text) for end, text in texts)


def test_confusion() -> None:
    counts = [[5, 1, 0], [0, 4, 0], [2, 0, 3]]
    table = confusion_matrix(counts, ["a", "b", "<c>"])
    assert 'title="&lt;c&gt; taken for a: 2 of 5"' in table
    assert confusion_matrix([[0] * 31] * 31, ["x"] * 31) == ""
    assert confused_pairs(counts, ["a", "b", "c"]) == [("c", "a", 2, 5), ("a", "b", 1, 6)]
