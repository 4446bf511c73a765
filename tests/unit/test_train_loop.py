"""A step is a step: accumulation, precision, averaging, mixing; and what stops a run says what to do."""

import copy
import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from mvitv2.core.model import MViT
from mvitv2.data.samples import Batch, SampleKey, Unreadable
from mvitv2.tasks.spoken import seconds_spoken
from mvitv2.train import generators
from mvitv2.train.average import Average
from mvitv2.train.failures import TrainingError, advice
from mvitv2.train.loop import fit
from mvitv2.train.mixing import Mixing, smoothed
from mvitv2.train.objective import Classification, Loss
from mvitv2.train.progress import Bar, Lines, progress_on
from mvitv2.train.recipe import Recipe, overridden
from mvitv2.train.settings import Settings
from mvitv2.train.state import TrainState
from mvitv2.train.stepping import NotFinite, take_step

from ..e2e.training_job import RECIPE, Patterns, small_job, small_model

PLAIN = overridden(RECIPE, {"ema_decay": None, "layer_decay": 1, "clip_norm": "none", "epochs": 1, "warmup_epochs": 0})


def batch(*indices: int) -> Batch:
    items = [Patterns()[i] for i in indices]
    return Batch(torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items]), ())


def stepped(parts: list[Batch], recipe: Recipe = PLAIN, **changes: Any) -> MViT:
    """The weights after one step, without anything random in the model."""
    recipe = overridden(recipe, changes)
    state = TrainState.fresh(small_model(), recipe)
    for module in state.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        vars(module).update(rate=0.0) if type(module).__name__ == "DropPath" else None
    take_step(state, parts, Classification(recipe, 3), recipe, 0.01)
    return state.model


def test_accumulation_is_exact_for_parts_of_any_size() -> None:
    whole = stepped([batch(0, 1, 2, 3, 4, 5, 6)], optimizer="sgd")
    parts = stepped([batch(0, 1, 2, 3), batch(4, 5), batch(6)], optimizer="sgd")
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32"])
def test_precision_changes_little(precision: str) -> None:
    exact = stepped([batch(0, 1, 2, 3)], optimizer="sgd").get_parameter("head.projection.weight")
    rough = stepped([batch(0, 1, 2, 3)], optimizer="sgd", precision=precision).get_parameter("head.projection.weight")
    assert rough.dtype == torch.float32
    torch.testing.assert_close(exact, rough, rtol=0.05, atol=1e-3)


def test_channels_last_and_checkpointing_change_nothing(tmp_path: Path) -> None:
    plain = fit(small_job(), PLAIN, Settings(output=tmp_path / "plain"))
    for name in ("grad_checkpointing", "channels_last"):
        other = fit(small_job(), overridden(PLAIN, {name: True}), Settings(output=tmp_path / name))
        assert other.history[0]["val_loss"] == pytest.approx(plain.history[0]["val_loss"], rel=1e-4)


@pytest.mark.slow
def test_a_compiled_model_trains_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the graphs are captured as ever, but run by torch itself: the usual backend takes a minute to compile them
    monkeypatch.setattr(MViT, "compile", functools.partialmethod(torch.nn.Module.compile, backend="aot_eager"))
    recipe = overridden(PLAIN, {"ema_decay": 0.5, "model_fields": {}})
    plain = fit(small_job(), recipe, Settings(output=tmp_path / "plain"))
    compiled = fit(small_job(), replace(recipe, compile=True), Settings(output=tmp_path / "compiled"))
    assert compiled.history[0]["val_loss"] == pytest.approx(plain.history[0]["val_loss"], rel=0.02)
    assert list(load_file(compiled.weights)) == list(load_file(plain.weights))


def test_the_loss_that_is_no_number_stops_the_run_and_is_kept(tmp_path: Path) -> None:
    def objective(model: torch.nn.Module, given: Batch, place: int) -> Loss:
        loss = model(given.images).sum()
        return Loss(loss * float("nan") if place >= 4 else loss, len(given.labels))

    with pytest.raises(TrainingError, match=r"the loss is nan .* in step 3 at learning rate .*not-finite-step-3.pt"):
        fit(small_job(objective=objective), PLAIN, Settings(output=tmp_path))
    saved = torch.load(tmp_path / "not-finite-step-3.pt", weights_only=True)
    assert saved["step"] == 3
    assert saved["batches"][0]["images"].shape == (4, 3, 16, 16)
    assert all(value.isfinite().all() for value in saved["model"].values())


def test_a_gradient_that_is_no_number_leaves_the_weights(tmp_path: Path) -> None:
    recipe = overridden(PLAIN, {"clip_norm": 1.0})
    state = TrainState.fresh(small_model(), recipe)
    before = copy.deepcopy(state.model.state_dict())

    def objective(model: torch.nn.Module, given: Batch, place: int) -> Loss:
        return Loss((model(given.images) * 0).abs().pow(0.5).sum(), len(given.labels))  # infinite slope at 0

    with pytest.raises(NotFinite, match=r"the loss is 0\.0 and the norm of the gradient nan"):
        take_step(state, [batch(0, 1)], objective, recipe, 0.1)
    assert all(torch.equal(before[name], value) for name, value in state.model.state_dict().items())


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("[enforce fail] DefaultCPUAllocator: ...")]
)
def test_running_out_of_memory_says_what_to_change(tmp_path: Path, error: RuntimeError) -> None:
    def objective(model: torch.nn.Module, given: Batch, place: int) -> Loss:
        raise error

    with pytest.raises(TrainingError, match=r"memory ran out .*at batch_size=4.*try batch_size=2 accumulation=4"):
        fit(small_job(objective=objective), PLAIN, Settings(output=tmp_path))
    assert "precision=bf16" in advice(PLAIN, torch.device("cuda"))
    assert "grad_checkpointing" not in advice(replace(PLAIN, grad_checkpointing=True), torch.device("cpu"))


class Holes(Patterns):
    """Every third picture cannot be read."""

    def __getitem__(self, key: int | SampleKey) -> Any:
        index = key.index if isinstance(key, SampleKey) else key
        return Unreadable(index, f"p{index}.jpg", "is empty") if index % 3 == 0 else super().__getitem__(key)


def test_unreadable_images_are_left_out_and_named(tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    outcome = fit(small_job(dataset=Holes()), PLAIN, Settings(output=tmp_path), Lines(console))
    assert outcome.unreadable
    assert set(outcome.unreadable) <= {f"p{i}.jpg" for i in range(0, 43, 3)}
    assert "unreadable, left out: p" in console.export_text()
    lines = (tmp_path / "unreadable.txt").read_text().splitlines()
    assert len(lines) == len(outcome.unreadable)
    assert lines[0].endswith(".jpg: is empty")


def test_no_readable_image_at_all_stops_the_run(tmp_path: Path) -> None:
    class Nothing(Patterns):
        def __getitem__(self, key: int | SampleKey) -> Any:
            return Unreadable(0, "p.jpg", "is empty")

    with pytest.raises(TrainingError, match=r"no image of step 1 can be read; for example p\.jpg: is empty"):
        fit(small_job(dataset=Nothing()), PLAIN, Settings(output=tmp_path))


def test_fewer_images_than_a_batch(tmp_path: Path) -> None:
    outcome = fit(small_job(dataset=Patterns(5)), overridden(PLAIN, {"epochs": 2}), Settings(output=tmp_path))
    assert outcome.steps == 2


def test_selecting_the_last_epoch(tmp_path: Path) -> None:
    recipe = overridden(PLAIN, {"select": "last", "epochs": 3})
    assert fit(small_job(), recipe, Settings(output=tmp_path)).best["epoch"] == 3


def test_a_full_disk_does_not_stop_a_run_before_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mvitv2.train import books, checkpoint
    from mvitv2.train.failures import CheckpointError
    from mvitv2.train.folder import MetricsLog

    save, calls = checkpoint.save, []

    def sometimes(folder: Path, tree: Any) -> None:
        calls.append(tree["step"])
        if len(calls) == 1:
            raise CheckpointError("last.pt could not be written (No space left on device; 0 MiB are free)")
        save(folder, tree)

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", sometimes)
    monkeypatch.setattr(MetricsLog, "write", full)
    monkeypatch.setattr(books, "write_results", full)
    console = Console(record=True, width=200)
    fit(small_job(), PLAIN, Settings(output=tmp_path, save_steps=2), Lines(console))
    told = " ".join(console.export_text().split())
    assert "0 MiB are free); the run goes on, and the checkpoint before stays" in told
    assert told.count("No space left on device; its logs have gaps") == 1
    assert calls == [2, 4, 5]


def test_weights_that_could_not_be_kept_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mvitv2.train import checkpoint

    write, calls = checkpoint.write_own, []

    def sometimes(*given: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        write(*given, **named)

    monkeypatch.setattr(checkpoint, "write_own", sometimes)
    recipe = overridden(PLAIN, {"epochs": 2, "lr": 1e-9})
    console = Console(record=True, width=200)
    outcome = fit(small_job(), recipe, Settings(output=tmp_path), Lines(console))
    assert outcome.best["epoch"] == 2
    assert outcome.weights.exists()
    assert "No space left on device" in console.export_text()


def test_generators_of_the_caller_are_given_back(tmp_path: Path) -> None:
    drawn: Any = np.random.get_state()
    state, keys = torch.get_rng_state(), drawn[1].copy()
    fit(small_job(), PLAIN, Settings(output=tmp_path))
    drawn = np.random.get_state()
    assert torch.equal(torch.get_rng_state(), state)
    assert (drawn[1] == keys).all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_generators_survive_a_trip() -> None:
    import random

    with generators.own_generators(3):
        saved = generators.state()
        drawn = random.random(), np.random.rand(), torch.rand(()).item()
        generators.restore(saved)
        assert (random.random(), np.random.rand(), torch.rand(()).item()) == drawn


def test_the_average_follows_the_weights() -> None:
    model = small_model()
    average = Average(model, 0.9)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    start = average.model.get_parameter("head.projection.weight").clone()
    average.update(model)
    torch.testing.assert_close(
        average.model.get_parameter("head.projection.weight"), start.lerp(torch.ones(()), 1 - 2 / 11)
    )
    for _ in range(200):
        average.update(model)
    assert all((p - 1).abs().max() < 1e-4 for p in average.model.parameters())
    assert not any(p.requires_grad for p in average.model.parameters())


def test_mixing_is_a_function_of_the_step() -> None:
    pytest.importorskip("timm", reason="mixup and cutmix are timm's: the extra train")
    mix = Mixing(Recipe(label_smoothing=0.1), 3)
    images, labels = torch.rand(5, 3, 16, 16), torch.tensor([0, 1, 2, 0, 1])
    kept = images.clone()
    first, soft = mix(images, labels, 7)
    again, _ = mix(images, labels, 7)
    other, _ = mix(images, labels, 8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, kept)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(5))
    assert torch.equal(first[4], images[4])
    torch.testing.assert_close(soft[4], smoothed(labels[4:], 3, 0.1)[0])


def test_losses_are_sums_of_what_torch_means() -> None:
    model, given = small_model().eval(), batch(0, 1, 2, 3, 4)
    logits = model(given.images)
    smooth = Classification(overridden(PLAIN, {"label_smoothing": 0.1}), 3)(model, given, 0)
    expected = torch.nn.functional.cross_entropy(logits, given.labels, label_smoothing=0.1)
    torch.testing.assert_close(smooth.total / smooth.count, expected)
    bce = Classification(overridden(PLAIN, {"loss": "bce", "label_smoothing": 0}), 3)(model, given, 0)
    hot = torch.nn.functional.one_hot(given.labels, 3).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, hot)
    torch.testing.assert_close(bce.total / bce.count, expected)


def test_a_bar_on_a_terminal_and_lines_elsewhere() -> None:
    terminal = Console(force_terminal=True, record=True, width=120)
    assert isinstance(progress_on(Console(force_terminal=False)), Lines)
    told = progress_on(terminal)
    assert isinstance(told, Bar)
    told.start(step=0, steps=10, epochs=2)
    told.step({"step": 1, "epoch": 1, "loss": 1.5, "lr": 1e-3, "images_per_second": 99.0})
    told.evaluating(3, 10)
    told.epoch({"epoch": 1, "train_loss": 1.0, "top1": 0.5, "lr": 1e-3, "images_per_second": 9.0, "seconds": 61.0})
    told.close()
    assert "epoch 1/2  loss 1.0000  top-1  50.00 %  lr 1.00e-03  9 images/s" in terminal.export_text()
    assert [seconds_spoken(s) for s in (5, 61, 7500, 100000)] == ["5 s", "1 min 1 s", "2 h 5 min", "1 d 3 h"]


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resume='yes' is none of"):
        Settings(output=tmp_path, resume="yes")
    with pytest.raises(ValueError, match="workers=-1 must be at least 0"):
        Settings(output=tmp_path, workers=-1)
    with pytest.raises(ValueError, match=r"device 'tpu' cannot be used .* here are cpu"):
        fit(small_job(), PLAIN, Settings(output=tmp_path, device="tpu"))
