"""``mvitv2 check`` as one types it: exit codes for scripts, text for people, JSON, a page and a sheet."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvitv2.cli.__main__ import main


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch) -> None:
    """A folder and a cache of its own."""
    monkeypatch.setenv("MVITV2_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two clean splits."""
    chance = np.random.default_rng(0)
    for split, number in (("train", 6), ("val", 2)):
        for name in ("cat", "dog"):
            for place in range(number):
                path = tmp_path / "photos" / split / name / f"{place}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                values = chance.normal((124, 116, 104), 70, (6, 8, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(values).resize((64, 48), Image.Resampling.BICUBIC).save(path)
    return tmp_path / "photos"


def test_clean_data(photos, capsys):
    assert main(["check", "photos"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.endswith("nothing wrong was found\n")
    assert "train        12           0        2  48 .. 48 .. 48  12 PNG RGB" in out
    assert f"cat        6    2  {'#' * 30}" in out


def test_warnings_alone(photos, capsys):
    (photos / "train" / "cat" / "2.png").write_bytes(b"")
    assert main(["check", "photos", "--min-side", "50"]) == 3
    out = capsys.readouterr().out
    assert "warning: 1 picture of train cannot be read (8.3 %); they are left out and counted\n" in out
    assert "    train/cat/2.png: is empty (0 bytes); copy or download it again\n" in out
    assert "warning: 11 pictures of train with a side below 50 pixels" in out
    assert "    ... (all in the report: --json, --html)" in out and out.endswith("3 warnings\n")


def test_training_cannot_start(photos, capsys):
    (photos / "val" / "dog").rename(photos / "val" / "dogs")
    assert main(["check", "photos"]) == 1
    out = capsys.readouterr().out
    assert "problem: training cannot open it" in out and "1 unknown: dogs" in out
    assert ["dogs", "-", "2"] in [line.split() for line in out.splitlines()]
    assert main(["check", "photos/train"]) == 1
    assert main(["check", "photos/train", "--need"]) == 0
    assert main(["check", "nowhere"]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err


def test_json_for_programs(photos, capsys):
    assert main(["check", "photos", "--json", "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert main(["check", "photos", "json=report.json", "--no-cache"]) == 0
    assert json.loads(Path("report.json").read_text()) == printed
    assert printed["splits"]["val"]["counts"] == {"cat": 2, "dog": 2} and printed["findings"] == []


def test_a_page_and_a_sheet(photos, capsys):
    pytest.importorskip("timm", reason="the augmentation comes with timm (extra `train`)")
    words = [
        "--html",
        "page.html",
        "--show",
        "4",
        "--output",
        "sheet.png",
        "--img-size",
        "32",
        "--recipe",
        "imagenet_s",
    ]
    assert main(["check", "photos", *words]) == 0
    assert "sheet.png: 4 samples as training sees them" in capsys.readouterr().out
    assert Path("page.html").read_text().startswith("<!doctype html>")
    with Image.open("sheet.png") as drawn:
        assert drawn.format == "PNG" and drawn.width > 500


def test_no_folder_to_write_to_is_told_before_anything_is_read(photos, capsys):
    for words in (["--html", "no/page.html"], ["--json", "no/r.json"], ["--show", "2", "--output", "no/sheet.png"]):
        assert main(["check", "photos", *words]) == 1
        assert "there is no folder no" in capsys.readouterr().err


def test_lists_with_a_root_and_columns(photos, capsys, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    for split in ("train", "val"):
        rows = [f"{p.parent.name},{split}/{p.parent.name}/{p.name},x" for p in sorted((photos / split).rglob("*.png"))]
        (lists / f"{split}.csv").write_text("\n".join(["what,where,how", *rows]) + "\n")
    words = ["--data-root", "photos", "--file-column", "where", "--label-column", "what"]
    assert main(["check", "lists", *words]) == 0
    assert main(["check", "lists/train.csv,lists/val.csv", *words]) == 0
    capsys.readouterr()
    assert main(["check", "lists", *words[2:]]) == 1
    assert "none of 12 listed files is there" in capsys.readouterr().err


def test_many_classes_are_cut(tmp_path, capsys):
    for number in range(40):
        for split in ("train", "val"):
            path = tmp_path / "many" / split / f"c{number:02}" / "0.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    assert main(["check", "many", "--min-images", "1"]) == 3
    shown = capsys.readouterr().out
    assert "...\n" in shown and "c00" in shown and "c39" in shown and "c20  " not in shown
    assert "the same file in train and in val: 40 pictures leaked, in 40 groups" in shown
