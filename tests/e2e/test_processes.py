"""Several processes train as one does: the same steps, the same measures, and nothing lost when one of them is."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from mvitv2.core.model import MViT
from mvitv2.data.samples import Batch, SampleKey, Unreadable
from mvitv2.tasks.evaluation import Evaluation, evaluate
from mvitv2.tasks.processes import MEETING, Processes
from mvitv2.train import checkpoint, folder, shards
from mvitv2.train.loop import fit
from mvitv2.train.objective import Loss
from mvitv2.train.recipe import overridden
from mvitv2.train.settings import Settings

from .team import FAILED, LOST, Team, free_port, together
from .test_training import same, timeless
from .training_job import RECIPE, Patterns, small_job, small_model

SHORT = {"epochs": 2, "warmup_epochs": 1}


def run(output: Path, *, passes: int, among: int, part: str = "", recipe: Any = None, **settings: Any) -> None:
    """The small run with so many forward passes a step, shared among so many processes."""
    changes = {**SHORT, **(recipe or {}), "accumulation": max(passes // among, 1)}
    job = small_job(**PARTS[part]()) if part else small_job()
    given = {"save_steps": 2, "timeout_minutes": 1, **settings}
    fit(job, overridden(RECIPE, changes), Settings(output=output, **given))


def team_run(path: Path, among: int, **given: Any) -> Path:
    team = Team(among, run, path, among=among, **given)
    assert team.end() == [0] * among, team.errors()
    return path


class Doubles(Patterns):
    """In float64, so that the order of sums hardly matters."""

    def __getitem__(self, key: int | SampleKey) -> Any:
        picture, label = super().__getitem__(key)
        return picture.double(), label


class Holes(Patterns):
    """Of the first thirty nothing can be read, so that a process may go without any picture."""

    def __getitem__(self, key: int | SampleKey) -> Any:
        index = key.index if isinstance(key, SampleKey) else key
        return Unreadable(index, f"p{index:02}.jpg", "is empty") if index < 30 else super().__getitem__(key)


def double_loss(model: torch.nn.Module, given: Batch, place: int) -> Loss:
    return Loss(F.cross_entropy(model(given.images), given.labels, reduction="sum"), len(given.labels))


def no_number_in_one(model: torch.nn.Module, given: Batch, place: int) -> Loss:
    loss = model(given.images).sum()
    return Loss(loss * float("nan") if place == 5 else loss, len(given.labels))


def stuck(model: torch.nn.Module, given: Batch, place: int) -> Loss:
    if place == 5:
        time.sleep(60)
    return Loss(model(given.images).sum(), len(given.labels))


def double_measure(model: MViT, told: Callable[[int, int], None]) -> dict[str, float]:
    return {"top1": 0.0}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "double": lambda: {
        "model": small_model().double(),
        "dataset": Doubles(),
        "objective": double_loss,
        "measure": double_measure,
    },
    "holes": lambda: {"dataset": Holes()},
    "nan": lambda: {"objective": no_number_in_one},
    "stuck": lambda: {"objective": stuck},
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, two forward passes a step."""
    path = tmp_path_factory.mktemp("alone")
    run(path, passes=2, among=1)
    return path


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes, one forward pass each."""
    return team_run(tmp_path_factory.mktemp("two"), 2, passes=2)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes that have a part of the model each."""
    return team_run(tmp_path_factory.mktemp("parts"), 2, passes=2, parallel="fsdp")


def assert_same_weights(path: Path, other: Path) -> None:
    mine, its = checkpoint.read(path / "last.pt"), checkpoint.read(other / "last.pt")
    for part in ("step", "passes", "model", "average", "optimizer"):
        assert same(mine[part], its[part]), part


def figures(path: Path) -> list[dict[str, Any]]:
    rows = [*folder.read_results(path), *folder.read_metrics(path)]
    assert len(rows) > 2
    return [{k: v for k, v in row.items() if not k.endswith("gib")} for row in timeless(rows)]


def assert_same_figures(path: Path, other: Path, rel: float = 1e-12) -> None:
    mine, its = figures(path), figures(other)
    assert len(mine) == len(its)
    for row, its_row in zip(mine, its, strict=True):
        assert row == pytest.approx(its_row, rel=rel)


def best(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(path / "best.safetensors")


def test_two_processes_train_as_one_bit_for_bit(alone: Path, two: Path) -> None:
    # a sum of two gradients has one order
    assert_same_weights(two, alone)
    assert_same_figures(two, alone)
    assert sorted(p.name for p in two.iterdir()) == sorted(p.name for p in alone.iterdir())


@pytest.mark.parametrize("among, parallel", [(2, "ddp"), (3, "ddp"), (2, "fsdp")])
def test_any_number_of_processes_trains_as_one(tmp_path: Path, among: int, parallel: str) -> None:
    """Four passes: of three processes, two idle in the second round. In float64 only the order of sums shows."""
    recipe = {"ema_decay": None, "epochs": 1, "warmup_epochs": 0, "lr": 0.002}
    run(tmp_path / "one", passes=4, among=1, part="double", recipe=recipe)
    path = tmp_path / "several"
    path.mkdir()
    # as many passes as three processes do not divide come from the checkpoint of a run that one process began
    recipe_of_team = {**recipe, "batch_size": 4}
    if among == 3:
        run_until(path, 1, recipe)
        team = Team(3, run, path, among=1, passes=4, part="double", recipe=recipe_of_team)
        assert team.end() == [0] * 3, team.errors()
    else:
        team_run(path, among, passes=4, part="double", recipe=recipe_of_team, parallel=parallel)
    assert_same_figures(path, tmp_path / "one", rel=1e-9)
    for name, value in best(tmp_path / "one").items():
        torch.testing.assert_close(best(path)[name], value, rtol=1e-9, atol=1e-11)


def run_until(path: Path, steps: int, recipe: dict[str, Any]) -> None:
    """The double run in this process, stopped after so many steps."""
    from mvitv2.train import loop
    from mvitv2.train.failures import TrainingStopped

    take, taken = loop.take_step, []

    def counted(*given: Any, **named: Any) -> Any:
        taken.append(1)
        if len(taken) == steps:
            signal.raise_signal(signal.SIGTERM)
        return take(*given, **named)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingStopped):
        patch.setattr(loop, "take_step", counted)
        run(path, passes=4, among=1, part="double", recipe=recipe)


def test_parts_of_a_model_train_as_copies_do(two: Path, parts: Path) -> None:
    # Adam makes much of the last bits of gradients near zero; in float64, above, they agree to 1e-9
    assert_same_figures(parts, two, rel=1e-3)
    for name, value in best(two).items():
        torch.testing.assert_close(best(parts)[name], value, rtol=1e-3, atol=1e-3)
    assert not (parts / "last.pt").exists()
    steps = sorted(path.name for path in (parts / shards.FOLDER).glob("step-*"))
    assert len(steps) == 2
    assert (parts / shards.FOLDER / shards.LATEST).read_text().strip() == steps[-1]
    assert len(list((parts / shards.FOLDER / steps[-1]).glob("__*.distcp"))) == 2


def test_killed_and_resumed_with_more_and_fewer_processes(alone: Path, tmp_path: Path) -> None:
    team = Team(2, run, tmp_path, among=2, passes=2)
    team.wait_for(3)
    team.signal(1, signal.SIGKILL)
    assert team.end() == [LOST, -signal.SIGKILL]
    assert "process 0 of 2 lost another one" in team.errors()[0]
    assert "The last checkpoint is safe: the same command goes on from there" in team.errors()[0]
    team = Team(3, run, tmp_path, among=1, passes=1)  # the same recipe: the run keeps its two passes a step
    team.wait_for(5)
    team.signal(2, signal.SIGTERM)
    assert team.end() == [143] * 3
    run(tmp_path, passes=2, among=1)
    assert_same_weights(tmp_path, alone)
    assert_same_figures(tmp_path, alone)


def test_parts_are_killed_and_resumed_and_put_together(parts: Path, tmp_path: Path) -> None:
    team = Team(2, run, tmp_path, among=2, passes=2, parallel="fsdp")
    team.wait_for(5)
    team.signal(0, signal.SIGKILL)
    assert team.end() == [-signal.SIGKILL, LOST]
    newest = max((tmp_path / shards.FOLDER).glob("step-*"))
    (newest / "__1_0.distcp").write_bytes(b"cut off")
    # what was saved in parts goes on as a whole in one process, and that in three parts
    for among, parallel, steps in ((1, "ddp", 6), (3, "fsdp", 7)):
        team = Team(among, run, tmp_path, among=1, passes=1, parallel=parallel)
        team.wait_for(steps)
        team.signal(0, signal.SIGTERM)
        assert team.end() == [143] * among, team.errors()
        assert (tmp_path / "last.pt").exists() == (parallel == "ddp") != shards.is_there(tmp_path)
    team_run(tmp_path, 2, passes=2, parallel="fsdp")
    assert_same_figures(tmp_path, parts, rel=1e-3)


def test_a_process_without_pictures_keeps_the_others_company(tmp_path: Path) -> None:
    run(tmp_path / "one", passes=2, among=1, part="holes")
    (tmp_path / "two").mkdir()
    (tmp_path / "parts").mkdir()
    team_run(tmp_path / "two", 2, passes=2, part="holes")
    assert_same_weights(tmp_path / "two", tmp_path / "one")
    assert_same_figures(tmp_path / "two", tmp_path / "one")
    named = [(tmp_path / name / "unreadable.txt").read_text() for name in ("one", "two")]
    assert named[0] == named[1] != ""
    team_run(tmp_path / "parts", 2, passes=2, part="holes", parallel="fsdp")
    assert_same_figures(tmp_path / "parts", tmp_path / "one", rel=1e-3)


def test_a_loss_that_is_no_number_stops_all(tmp_path: Path) -> None:
    team = Team(2, run, tmp_path, among=2, passes=2, part="nan")
    assert team.end() == [FAILED, FAILED]
    assert all("the loss is nan" in told and "in step 3" in told for told in team.errors())
    saved = torch.load(tmp_path / "not-finite-step-3.pt", weights_only=True)
    assert len(saved["batches"]) == 2


def test_a_process_that_is_stuck_is_lost_in_time(tmp_path: Path) -> None:
    team = Team(2, run, tmp_path, among=2, passes=2, part="stuck", timeout_minutes=0.05)
    team.members[0].join(50)
    assert team.members[0].exitcode == LOST
    team.signal(1, signal.SIGKILL)
    team.end()
    assert "was silent for 0.05 minutes" in team.errors()[0]
    assert "raise --timeout-minutes" in team.errors()[0]


def test_processes_must_be_given_the_same(tmp_path: Path) -> None:
    team = Team(2, differing, tmp_path)
    assert team.end() == [FAILED, FAILED]
    assert "process 1 was given something else than process 0: lr: 0.0 -> 1.0" in team.errors()[0]


def differing(output: Path) -> None:
    import os

    run(output, passes=2, among=2, recipe={"lr": float(os.environ["RANK"])})


def measured(processes: Processes, sizes: list[int]) -> list[Evaluation]:
    torch.manual_seed(0)
    return [evaluate(small_model(), data, batch_size=3, examples=9, processes=processes) for data in data_of(sizes)]


def data_of(sizes: list[int]) -> list[Patterns]:
    return [*(Patterns(size) for size in sizes), SomeHoles(20)]


class SomeHoles(Patterns):
    """Every third picture cannot be read."""

    def __getitem__(self, key: Any) -> Any:
        return Unreadable(key, f"p{key}.jpg", "is empty") if key % 3 == 0 else super().__getitem__(key)


@pytest.mark.parametrize("count, launcher", [(2, "slurm"), (3, "")])
def test_every_picture_counts_once(tmp_path: Path, count: int, launcher: str) -> None:
    from mvitv2.tasks.processes import ALONE

    sizes = [1, 3, 7, 20]
    expected = measured(ALONE, sizes)
    for result in together(count, tmp_path, measured, launcher=launcher, sizes=sizes):
        for mine, its in zip(map(Evaluation.to_dict, result), map(Evaluation.to_dict, expected), strict=True):
            for name in ("loss", "calibration_error"):
                assert mine.pop(name) == pytest.approx(its[name], rel=1e-9)
            apart = ("loss", "calibration_error", "seconds")
            assert {k: v for k, v in mine.items() if k != "seconds"} == {k: its[k] for k in its if k not in apart}


def ranks(processes: Processes) -> list[int]:
    return processes.gathered(processes.rank)


def test_a_start_after_another_does_not_look_for_the_processes_before(tmp_path: Path) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun's agent
    store.set(MEETING, str(free_port()))
    for number in range(2):
        found = together(2, tmp_path / str(number), ranks, launcher="torchrun", port=store.port)
        assert found == [[0, 1], [0, 1]]
