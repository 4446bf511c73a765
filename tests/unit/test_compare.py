"""Runs side by side: found, ranked, and told apart by what differs."""

import json
from pathlib import Path
from typing import Any

import pytest

from mvitv2.cli.__main__ import main
from mvitv2.report.compare import differing, find_runs, ranked, rows, write_comparison
from mvitv2.train.folder import write_json, write_results
from mvitv2.train.recipe import Recipe


def make(folder: Path, *, top1: list[float], finished: bool = True, **fields: Any) -> None:
    folder.mkdir(parents=True)
    write_json(folder / "recipe.json", Recipe(name=folder.name, epochs=len(top1), warmup_epochs=0, **fields).to_dict())
    write_results(
        folder,
        [
            {"epoch": i, "step": 5 * i, "lr": 0.1, "train_loss": 2 / i, "val_loss": 1 / i, "top1": v, "seconds": 30}
            for i, v in enumerate(top1, 1)
        ],
    )
    if finished:
        write_json(folder / "summary.json", {"seconds": 61.0, "epochs": len(top1)})


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    make(tmp_path / "runs" / "a<b>", top1=[0.2, 0.5, 0.4])
    make(tmp_path / "runs" / "deep" / "down", top1=[0.3, 0.8], lr=0.5, augmentation={"kind": "none"})
    (tmp_path / "runs" / "young").mkdir()
    write_json(tmp_path / "runs" / "young" / "recipe.json", Recipe(epochs=3, warmup_epochs=0).to_dict())
    (tmp_path / "runs" / "no run").mkdir()
    return tmp_path / "runs"


def test_the_best_comes_first(runs: Path) -> None:
    found = ranked(find_runs(runs), "top1")
    assert [(run.name, run.best("top1")) for run in found] == [("deep/down", 0.8), ("a<b>", 0.5), ("young", None)]
    assert [run.epochs for run in found] == ["2", "3", "0 of 3"]
    assert [run.name for run in ranked(found, "val_loss")] == ["a<b>", "deep/down", "young"]
    with pytest.raises(ValueError, match=r"no run has a figure 'mAP'; they have epoch, lr, seconds"):
        ranked(found, "mAP")


def test_what_differs_is_told(runs: Path) -> None:
    found = ranked(find_runs(runs), "top1")
    assert differing(found) == ["augmentation.kind", "epochs", "lr"]
    table = rows(found, "top1")
    assert table[1] == ["deep/down", "80.00 %", "2", "1 min 1 s", "none", "2", "0.5"]
    assert differing(found[:1]) == []


def test_mappings_in_mappings_are_told_apart_entry_by_entry(tmp_path: Path) -> None:
    for number, boxes in ((1, 1.0), (2, 1 / 3)):
        make(tmp_path / "runs" / str(number), top1=[0.1], detector={"proposals": {"convs": number, "overlap": boxes}})
    table = rows(find_runs(tmp_path / "runs"), "top1")
    assert table[0][4:] == ["detector.proposals.convs", "detector.proposals.overlap"]
    assert [row[4:] for row in table[1:]] == [["1", "1"], ["2", "0.333333"]]


def test_one_page_for_all(runs: Path, tmp_path: Path) -> None:
    text = write_comparison(tmp_path / "all.html", ranked(find_runs(runs), "top1"), "top1").read_text()
    assert text.count("<svg") == 3 and text.count('class="curve c0"') == 3 and text.count('class="curve c1"') == 3
    assert "a&lt;b&gt;" in text and "<b>" not in text.split("</style>")[1]


def test_on_the_command_line(capsys, runs: Path, tmp_path: Path, monkeypatch) -> None:
    assert main(["runs", str(runs), "--html", str(tmp_path / "all.html")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["RUN", "TOP1", "EPOCHS", "TIME"] and lines[1].startswith("deep/down  80.00 %")
    assert lines[-1] == f"page: {tmp_path / 'all.html'}"
    assert main(["runs", str(runs), "--sort", "val_loss", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["run"], one["finished"]) for one in told] == [("a<b>", True), ("deep/down", True), ("young", False)]
    monkeypatch.chdir(runs.parent)
    assert main(["runs"]) == 0
    assert "deep/down" in capsys.readouterr().out
    for folder, part in ((str(runs / "no run"), "no run in"), (str(runs / "nowhere"), "is no folder")):
        assert main(["runs", folder]) == 1
        assert part in capsys.readouterr().err
