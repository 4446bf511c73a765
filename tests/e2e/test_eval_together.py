"""``mvitv2 eval`` in several processes: what one alone finds, with every picture, clip and object once."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mvitv2 import save_weights
from mvitv2.cli.__main__ import main
from mvitv2.preprocessing import Preprocessing
from tests import films, tiny

from .team import Team
from .test_cli_eval import CLASSES, coloured
from .training_job import small_model


def told(folder: Path, words: list[str]) -> None:
    """One process of the command."""
    if code := main(words):
        raise RuntimeError(f"exit code {code}")


def both(path: Path, words: list[str], count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures of one process, and of several."""
    for name in ("one", "several"):
        (path / name).mkdir()
    assert main([*words, "--json", str(path / "one" / "f.json")]) == 0
    team = Team(count, told, path / "several", words=[*words, "--json", str(path / "several" / "f.json")])
    assert team.end() == [0] * count, team.errors()
    one, several = (json.loads((path / name / "f.json").read_text()) for name in ("one", "several"))
    return one, several


def assert_same_figures(mine: dict[str, Any], its: dict[str, Any]) -> None:
    assert mine.keys() == its.keys()
    for name in mine.keys() - {"seconds", "view_scores"}:
        approximate = isinstance(mine[name], float)
        assert mine[name] == (pytest.approx(its[name], rel=1e-9) if approximate else its[name]), name


def test_pictures_and_what_is_said_of_each(tmp_path: Path) -> None:
    photos = coloured(tmp_path / "photos")
    (photos / "top" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    model = small_model()
    record = Preprocessing(size=(16, 16), resize=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    model.card = {"classes": CLASSES, "preprocessing": record.to_dict()}
    save_weights(model, tmp_path / "w.safetensors")
    words = ["eval", str(tmp_path / "w.safetensors"), str(photos), "-j", "0", "-b", "2"]
    one, several = both(tmp_path, words, 3)
    assert_same_figures(several, one)
    assert (several["images"], len(several["unreadable"])) == (9, 1)
    answers = [tmp_path / "one" / "answers.csv", tmp_path / "several" / "answers.csv"]
    assert main([*words, "--predictions", str(answers[0])]) == 0
    team = Team(2, told, tmp_path / "several", words=[*words, "--predictions", str(answers[1])])
    assert team.end() == [0, 0], team.errors()
    rows = []
    for path in answers:
        with path.open(newline="") as file:
            rows.append(list(csv.DictReader(file)))
    assert len(rows[0]) == 9 and rows[0] == rows[1]


def test_views_of_clips_and_going_on_with_fewer(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="clips are read by PyAV: the extra video")
    data = films.two_classes(tmp_path / "films", [("val", 4)])
    torch.manual_seed(0)
    model = tiny.model(tiny.clip(num_classes=2))
    prepared = Preprocessing(
        size=(32, 32), resize=32, interpolation="bilinear", mean=(0.45,) * 3, std=(0.225,) * 3,
        num_frames=4, sampling_rate=2, fps=10.0,
    )  # fmt: skip
    model.card = {"preprocessing": prepared.to_dict(), "classes": ["left", "right"]}
    save_weights(model, tmp_path / "w.safetensors")
    words = ["eval", str(tmp_path / "w.safetensors"), str(data), "-j", "0", "--views", "2x1", "-b", "6"]
    (tmp_path / "one").mkdir()
    (tmp_path / "several").mkdir()
    figures = []
    for name, count in (("one", 1), ("several", 2)):
        given = [*words, "--scores", str(tmp_path / name / "scores"), "--json", str(tmp_path / name / "f.json")]
        team = Team(count, told, tmp_path / name, words=given)
        assert team.end() == [0] * count, team.errors()
        figures.append(json.loads((tmp_path / name / "f.json").read_text()))
    assert_same_figures(figures[1], figures[0])
    kept = [(tmp_path / name / "scores" / "views.bin").read_bytes() for name in ("one", "several")]
    assert kept[0] == kept[1] != b""
    # as if stopped after the first batch: one process goes on with what two began
    whole = (tmp_path / "several" / "scores" / "views.bin").stat().st_size
    with (tmp_path / "several" / "scores" / "views.bin").open("r+b") as file:
        file.truncate(whole // 2)
    assert main([*words, "--scores", str(tmp_path / "several" / "scores"), "--json", "-"]) == 0
    assert (tmp_path / "several" / "scores" / "views.bin").read_bytes() == kept[0]
