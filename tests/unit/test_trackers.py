"""The same figures in every tracker, once each, however often a run is interrupted."""

import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mvitv2.train.folder import read_metrics
from mvitv2.train.loop import fit
from mvitv2.train.progress import JsonLines, Together, silent
from mvitv2.train.recipe import overridden
from mvitv2.train.settings import Settings
from mvitv2.train.tracked import Tracked, flat
from mvitv2.train.trackers import NAMES, chosen

from ..e2e.training_job import small_job
from .test_train_loop import PLAIN

RECIPE = overridden(PLAIN, {"epochs": 2})


class Killed(RuntimeError):
    """Stands for kill -9: nothing is closed, nothing more is told."""


class Killer(JsonLines):
    """A listener that ends the run at a step, after everybody else was told."""

    def __init__(self, at: int | None):
        super().__init__(io.StringIO())
        self.at = at

    def step(self, values: Mapping[str, Any]) -> None:
        if values["step"] == self.at:
            raise Killed


def run(folder: Path, *names: str, killed_at: int | None = None) -> None:
    tracked = Tracked(names, folder, config={"lr": 0.1, "stages": {"depths": [1, 1]}})
    settings = Settings(output=folder, save_steps=3)
    fit(small_job(), RECIPE, settings, Together(tracked, Killer(killed_at)))


class Runs:
    """What a fake library was told, by run."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[str, int, float]]] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.now = ""
        self.closed = 0
        self.broken = False

    def log(self, values: dict[str, float], step: int) -> None:
        if self.broken:
            raise OSError("no route to host")
        self.points[self.now] += [(name, step, value) for name, value in values.items()]

    def begin(self, name: str) -> None:
        self.now = name
        self.points.setdefault(name, [])


def module(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Any) -> None:
    made = ModuleType(name)
    vars(made).update(functions)
    monkeypatch.setitem(sys.modules, name, made)


@pytest.fixture(params=["wandb", "trackio", "mlflow"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Runs]]:
    runs = Runs()

    def init(*, project: str, name: str, config: dict[str, Any], resume: str, **options: Any) -> Any:
        assert project == "mvitv2" and resume in ("allow", "never")
        key = options.get("id") or name
        runs.begin(key)
        runs.configs.setdefault(key, config)
        return SimpleNamespace(id=key, name=name)

    def start_run(*, run_id: str | None = None, run_name: str | None = None) -> Any:
        runs.begin(run_id or f"id of {run_name}")
        return SimpleNamespace(info=SimpleNamespace(run_id=runs.now))

    def finish() -> None:
        runs.closed += 1

    if request.param == "mlflow":
        module(
            monkeypatch,
            "mlflow",
            start_run=start_run,
            log_params=lambda values: runs.configs.setdefault(runs.now, values),
            log_metrics=runs.log,
            end_run=finish,
        )
        module(monkeypatch, "mlflow.exceptions", MlflowException=type("MlflowException", (Exception,), {}))
    else:
        module(monkeypatch, request.param, init=init, log=runs.log, finish=finish)
        module(monkeypatch, f"{request.param}.errors", Error=type("Error", (Exception,), {}))
    yield request.param, runs


def test_a_run_goes_on_where_it_is_followed_and_tells_nothing_twice(service: tuple[str, Runs], tmp_path: Path) -> None:
    name, runs = service
    with pytest.raises(Killed):
        run(tmp_path / "run", name, killed_at=8)
    run(tmp_path / "run", name)
    ((points, config),) = zip(runs.points.values(), runs.configs.values(), strict=True)
    losses = [(step, value) for metric, step, value in points if metric == "train/loss"]
    assert losses == [(line["step"], line["loss"]) for line in read_metrics(tmp_path / "run")]
    assert len(losses) == RECIPE.epochs * 5
    assert [step for metric, step, _ in points if metric == "epoch/top1"] == [5, 10]
    assert config == {"lr": 0.1, "stages.depths": [1, 1]}
    assert runs.closed == 2


def test_a_tracker_that_fails_does_not_end_the_run(service: tuple[str, Runs], tmp_path: Path) -> None:
    name, runs = service
    told: list[str] = []
    tracked = Tracked((name,), tmp_path, config={}, warn=told.append)
    tracked.start(step=0, steps=2, epochs=1)
    runs.broken = True
    tracked.step({"step": 1, "loss": 1.0})
    tracked.step({"step": 2, "loss": 1.0})
    assert len(told) == 1 and f"{name} fails (no route to host)" in told[0]


def test_tensorboard_has_every_step_once(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with pytest.raises(Killed):
        run(tmp_path / "run", "tensorboard", killed_at=8)
    run(tmp_path / "run", "tensorboard")
    events = reader.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    lines = read_metrics(tmp_path / "run")
    for metric in ("loss", "lr", "images_per_second", "ram_gib"):
        told = [(event.step, event.value) for event in events.Scalars(f"train/{metric}")]
        assert told == [(line["step"], pytest.approx(line[metric], rel=1e-6)) for line in lines]
    assert [event.step for event in events.Scalars("epoch/val_loss")] == [5, 10]
    assert "stages.depths" in str(events.Tensors("recipe/text_summary")[0].tensor_proto.string_val)


def test_which_trackers_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    assert chosen("auto") == chosen("tensorboard") == ("tensorboard",)
    assert chosen("none") == ()
    with pytest.raises(ValueError, match=f"no tracker 'tensorbord'; there are {', '.join(NAMES)}, auto and none"):
        chosen("tensorbord")
    for name in ("wandb", "mlflow", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=f"pip install {name}"):
            chosen(f"tensorboard,{name}")
    monkeypatch.setattr("mvitv2.train.trackers.find_spec", lambda _: None)
    assert chosen("auto") == ()


def test_a_line_of_json_for_every_event(tmp_path: Path) -> None:
    out = io.StringIO()
    fit(small_job(), RECIPE, Settings(output=tmp_path), JsonLines(out))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["start", *["step"] * 5, "epoch", *["step"] * 5, "epoch"]
    assert lines[0] == {"event": "start", "step": 0, "steps": 10, "epochs": 2}
    steps = [line for line in lines if line["event"] == "step"]
    assert [{**line, "event": "step"} for line in read_metrics(tmp_path)] == steps
    assert all(line["ram_gib"] > 0.05 for line in steps)


def test_all_listeners_are_closed_even_if_one_cannot_be() -> None:
    closed: list[int] = []

    class Broken(JsonLines):
        def close(self) -> None:
            closed.append(1)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        Together(Broken(io.StringIO()), silent(), Broken(io.StringIO())).close()
    assert closed == [1, 1]


def test_nested_settings_are_flat() -> None:
    assert flat({"a": 1, "b": {"c": 2, "d": {"e": [3]}}}) == {"a": 1, "b.c": 2, "b.d.e": [3]}
