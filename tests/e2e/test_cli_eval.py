"""``mvitv2 eval`` on data of other classes, sizes and labels, into every kind of file."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from mvitv2 import save_weights
from mvitv2.cli.__main__ import main
from mvitv2.preprocessing import Preprocessing

from .training_job import small_model

CLASSES = ["bottom", "middle", "top"]


@pytest.fixture
def weights(tmp_path: Path) -> str:
    model = small_model()
    record = Preprocessing(size=(16, 16), resize=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    model.card = {"classes": CLASSES, "preprocessing": record.to_dict()}
    save_weights(model, tmp_path / "w.safetensors")
    return str(tmp_path / "w.safetensors")


def coloured(folder: Path) -> Path:
    """Three pictures of each class."""
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (30, 40), (40 * i, 80 * number, 9)).save(folder / name / f"{name}{i}.png")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return coloured(tmp_path / "photos")


def test_every_kind_of_file(capsys, tmp_path: Path, weights: str, photos: Path) -> None:
    report, table, answers = tmp_path / "r.html", tmp_path / "all.csv", tmp_path / "answers.csv"
    words = ["eval", weights, str(photos), "-j", "0", "--results-file", str(table)]
    assert main([*words, "--report", str(report), "--predictions", str(answers), "--json", "-"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert main([*words, "--img-size", "16", "24", "--crops", "10", "--crop-pct", "0.8"]) == 0
    with table.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert float(first["top1"]) == pytest.approx(100 * figures["top1"], abs=1e-3)
    assert (first["img_size"], first["crop_pct"], second["img_size"], second["crop_pct"]) == (
        "16",
        "1.0",
        "16x24",
        "0.8",
    )
    assert (second["crops"], second["images"]) == ("10", "9")
    with answers.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 and sum(r["label"] == r["predicted"] for r in rows) == round(9 * figures["top1"])
    assert "photos" in report.read_text() and report.read_text().count("<figure") == 9


def test_labels_from_a_file(capsys, tmp_path: Path, weights: str, photos: Path) -> None:
    labels = {path.name: CLASSES for path in photos.rglob("*.png")}
    labels["top0.png"] = []
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    assert main(["eval", weights, str(photos), "-j", "0", "--labels", str(tmp_path / "labels.json")]) == 0
    shown = capsys.readouterr().out
    assert "images                  8\n" in shown and "top-1                   100.00 %" in shown
    assert "without a right answer  1\n" in shown


def test_what_cannot_be_measured(capsys, tmp_path: Path, weights: str, photos: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n")
    for words, part in (
        (["--results-file", str(tmp_path / "other.csv")], "has the columns a, b; expected model, top1"),
        (["--labels", str(tmp_path / "none.json")], "labels cannot be read"),
        (["--crop-pct", "2"], "crop fraction 2.0 must be above 0 and at most 1"),
        (["--predictions", str(tmp_path / "a.txt")], "are written as .jsonl, .csv, .parquet"),
    ):
        assert main(["eval", weights, str(photos), "-j", "0", *words]) == 1
        assert part in capsys.readouterr().err
