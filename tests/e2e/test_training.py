"""A run that is killed, stopped, damaged or doubled ends as one that never was, or says why it cannot."""

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import mvitv2
from mvitv2.train import checkpoint, folder
from mvitv2.train.failures import FolderBusy, TrainingStopped

from .training_job import (
    RECIPE,
    STEPS,
    Child,
    killed_and_resumed,
    logged_steps,
    small_run,
)

TIMES = {"seconds", "images_per_second", "waited_for_data", "ram_gib", "memory_gib"}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happened to, in a child as all others."""
    path = tmp_path_factory.mktemp("uninterrupted")
    assert Child(path).end() == 0
    return path


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def same(a: Any, b: Any) -> bool:
    """Equal trees of tensors and plain data, bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def assert_same_run(path: Path, other: Path) -> None:
    """Bit by bit: weights, average, optimiser, log, results."""
    mine, its = checkpoint.read(path / "last.pt"), checkpoint.read(other / "last.pt")
    assert mine["step"] == its["step"] == STEPS
    for part in ("model", "average", "optimizer", "generators"):
        assert same(mine[part], its[part]), part
    assert timeless(mine["history"]) == timeless(its["history"])
    assert timeless(folder.read_metrics(path)) == timeless(folder.read_metrics(other))
    assert (path / "best.safetensors").read_bytes() == (other / "best.safetensors").read_bytes()


def test_two_runs_of_one_seed_are_the_same_bit_for_bit(uninterrupted: Path, tmp_path: Path) -> None:
    assert Child(tmp_path).end() == 0
    assert_same_run(tmp_path, uninterrupted)


def test_the_number_of_workers_changes_nothing(uninterrupted: Path, tmp_path: Path) -> None:
    assert Child(tmp_path, workers=2).end() == 0
    assert_same_run(tmp_path, uninterrupted)


def test_killed_at_random_moments_and_resumed(uninterrupted: Path, tmp_path: Path) -> None:
    chance = random.Random(5)
    moments = [(steps, chance.uniform(0, 0.03)) for steps in (1, 4, 9, 14, 22)]
    assert killed_and_resumed(tmp_path, moments) >= 4
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
def test_killed_at_twenty_random_moments_and_resumed(uninterrupted: Path, tmp_path: Path) -> None:
    chance = random.Random(6)
    moments = [(1 + i * STEPS // 20, chance.uniform(0, 0.06)) for i in range(20)]
    assert killed_and_resumed(tmp_path, moments, save_steps=1) >= 15
    assert_same_run(tmp_path, uninterrupted)


def test_killed_with_loading_processes_and_resumed(uninterrupted: Path, tmp_path: Path) -> None:
    assert killed_and_resumed(tmp_path, [(7, 0.0)], workers=1) == 1
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_first(uninterrupted: Path, tmp_path: Path, number: int) -> None:
    child = Child(tmp_path, save_steps=None)
    assert child.wait_for(3)
    assert child.signal(number) == 128 + number
    saved = checkpoint.read(tmp_path / "last.pt")
    assert saved["step"] == len(logged_steps(tmp_path)) >= 3
    assert Child(tmp_path).end() == 0
    assert_same_run(tmp_path, uninterrupted)


def test_a_signal_to_all_processes_of_the_group_lets_the_step_end(uninterrupted: Path, tmp_path: Path) -> None:
    child = Child(tmp_path, save_steps=None, workers=2)
    assert child.wait_for(3)
    assert child.signal(signal.SIGTERM, group=True) == 143
    assert checkpoint.read(tmp_path / "last.pt")["step"] == len(logged_steps(tmp_path))
    assert Child(tmp_path).end() == 0
    assert_same_run(tmp_path, uninterrupted)


def test_the_signal_is_told_and_handlers_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mvitv2.train import loop

    step = loop.take_step

    def interrupted(*given: Any, **named: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return step(*given, **named)

    monkeypatch.setattr(loop, "take_step", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStopped, match="stopped by SIGTERM after step 1 of 30; saved in"):
        small_run(tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("damage", ["cut off", "one bit", "empty"])
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(
    uninterrupted: Path, tmp_path: Path, damage: str
) -> None:
    child = Child(tmp_path)
    assert child.wait_for(9)
    child.signal(signal.SIGKILL)
    last = tmp_path / "last.pt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes({"cut off": bytes(content[: len(content) // 2]), "one bit": bytes(content), "empty": b""}[damage])
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert "last.pt is damaged" in loaded.notes[0]
    assert "going on from previous.pt" in loaded.notes[1]
    assert not last.exists()
    assert Child(tmp_path).end() == 0
    assert_same_run(tmp_path, uninterrupted)


def test_two_runs_in_one_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "PATIENCE", 0.1)
    with (
        folder.locked(tmp_path),
        pytest.raises(FolderBusy, match=r"another run works in .* \(process \d+ on .*\); wait"),
    ):
        small_run(tmp_path)


def test_resuming_as_asked(uninterrupted: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no checkpoint to go on from"):
        small_run(tmp_path, resume="must")
    with pytest.raises(ValueError, match="holds a run already"):
        small_run(uninterrupted, resume="never")
    with pytest.raises(ValueError, match=r"differs: lr: 0\.02 -> 0\.01\. Use the same"):
        small_run(uninterrupted, mvitv2_recipe(lr=0.01))
    again = small_run(uninterrupted, resume="must")
    assert again.steps == STEPS
    assert len(again.history) == RECIPE.epochs


def mvitv2_recipe(**changes: Any) -> Any:
    from mvitv2.train.recipe import overridden

    return overridden(RECIPE, changes)


@pytest.mark.slow
def test_the_demonstration(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn: the extra train")
    from mvitv2.demo import run_demo

    demo = run_demo(tmp_path / "demo")
    assert demo.evaluation.images > 250
    assert demo.evaluation.top1 >= 0.97
    assert [answer.error for _, answer in demo.predictions] == [None] * 5
    assert sum(truth == answer.classes[0] for truth, answer in demo.predictions) >= 4
    page = demo.report.read_text(encoding="utf-8")
    assert f"{100 * demo.evaluation.top1:.2f}<small>% right" in page
    assert "mvitv2 predict" in page
    again = run_demo(tmp_path / "demo", resume="must")
    assert again.evaluation.top1 == demo.evaluation.top1


def test_what_a_run_leaves(uninterrupted: Path) -> None:
    with safe_open(uninterrupted / "best.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["mvitv2"])
    assert header["card"]["classes"] == ["top", "middle", "bottom"]
    assert header["card"]["provenance"]["recipe"]["lr"] == RECIPE.lr
    model = mvitv2.load_model(uninterrupted / "best.safetensors")
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 3)
    summary = json.loads((uninterrupted / "summary.json").read_text())
    assert summary["steps"] == STEPS
    assert summary["best"]["value"] > 0.6
    assert len((uninterrupted / "results.csv").read_text().splitlines()) == 1 + RECIPE.epochs
    assert json.loads((uninterrupted / "recipe.json").read_text()) == RECIPE.to_dict()
    assert not list(uninterrupted.glob(".*.tmp"))
