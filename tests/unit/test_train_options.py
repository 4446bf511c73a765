"""Ending early, freezing, class weights and losses: each does what it says, also after a stop."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from mvitv2.core.layers import DropPath
from mvitv2.core.model import MViT
from mvitv2.train.checkpoint import read
from mvitv2.train.freezing import freeze, train_mode, trained_of
from mvitv2.train.loop import fit
from mvitv2.train.objective import Classification, class_weights
from mvitv2.train.optim import optimizer_of
from mvitv2.train.patience import epochs_waited, exhausted
from mvitv2.train.progress import Lines
from mvitv2.train.recipe import Recipe, overridden
from mvitv2.train.settings import Settings

from ..e2e.training_job import RECIPE, Patterns, small_job, small_model


def figures(*values: float) -> list[dict[str, Any]]:
    return [{"epoch": i + 1, "top1": value} for i, value in enumerate(values)]


def test_epochs_waited_since_the_first_best() -> None:
    assert [epochs_waited(figures(*v), "top1") for v in ((), (0.1,), (0.1, 0.2), (0.2, 0.1, 0.2))] == [0, 0, 0, 2]
    assert exhausted(figures(0.2, 0.1, 0.2), "top1", 2)
    assert not exhausted(figures(0.2, 0.1, 0.2), "top1", 3)
    assert not exhausted(figures(0.2, 0.1, 0.2), "top1", None)


def test_a_run_without_progress_ends_early_and_stays_ended(tmp_path: Path) -> None:
    measured: list[int] = []

    def measure(model: MViT, told: Any) -> dict[str, float]:
        measured.append(1)
        return {"top1": [0.1, 0.5, 0.4, 0.5, 0.9, 0.9][len(measured) - 1]}

    recipe = overridden(RECIPE, {"patience": 2, "ema_decay": None})
    console = Console(record=True, width=200)
    outcome = fit(small_job(measure=measure), recipe, Settings(output=tmp_path), Lines(console))
    assert (len(outcome.history), outcome.best["epoch"]) == (4, 2)
    assert "ended early: top1 has not been better than in epoch 2 for 2 epochs" in console.export_text()
    assert (tmp_path / "summary.json").exists()
    again = fit(small_job(measure=measure), recipe, Settings(output=tmp_path))
    assert (len(again.history), len(measured)) == (4, 4)


def test_what_is_frozen_by_each_word() -> None:
    def frozen(*parts: str) -> set[str]:
        model = small_model()
        freeze(model, parts)
        return {name for name, p in model.named_parameters() if not p.requires_grad}

    names = {name for name, _ in small_model().named_parameters()}
    stem = {name for name in names if name.startswith("patch_embed")}
    assert frozen("stem") == stem
    assert frozen("1") == stem | {name for name in names if name.startswith("blocks.0.")}
    assert frozen("backbone") == {name for name in names if not name.startswith("head.")}
    assert frozen("blocks.*.mlp.*", "norm.*") == {n for n in names if ".mlp." in n or n.startswith("norm.")}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("blocks.7.*", "matches no parameter; expected 'stem', a number of blocks, 'backbone', or a pattern"),
        ("5", "the model has 2 blocks; all of it but the head is 'backbone'"),
        ("*", "leaves nothing to train"),
    ],
)
def test_what_cannot_be_frozen(part: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        freeze(small_model(), [part])


def test_frozen_parts_keep_their_weights_drop_nothing_and_cost_no_state(tmp_path: Path) -> None:
    recipe = overridden(RECIPE, {"freeze": "1", "epochs": 2})
    before = small_model().state_dict()
    job, console = small_job(), Console(record=True, width=200)
    outcome = fit(job, recipe, Settings(output=tmp_path), Lines(console))
    after = load_file(outcome.weights)
    still = {name for name in before if name.startswith(("patch_embed.", "blocks.0."))}
    assert {name for name in before if torch.equal(before[name], after[name])} == still
    trained, every = trained_of(job.model)
    assert 0 < trained < every and f"{trained:,} of {every:,} parameters are trained" in console.export_text()
    held = sum(p.numel() for group in optimizer_of(job.model, recipe).param_groups for p in group["params"])
    assert held == trained
    train_mode(job.model)
    assert [m.training for m in job.model.modules() if isinstance(m, DropPath)] == [False, True]
    assert job.model.training and job.model.blocks[1].training and not job.model.patch_embed.training


def test_a_half_frozen_block_still_drops() -> None:
    model = small_model()
    freeze(model, ["blocks.*.attn.*"])
    train_mode(model)
    block: Any = model.blocks[1]
    assert (block.drop_path.training, block.mlp.training, block.attn.training) == (True, True, False)


@pytest.mark.parametrize(
    "changes",
    [
        {"freeze": "backbone"},
        {"sampling": "balanced", "class_weights": "balanced"},
        {"repeats": 2},
    ],
)
def test_resuming_is_exact_with(tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = overridden(RECIPE, {**changes, "epochs": 2})
    labels = Patterns().labels

    def job() -> Any:
        return small_job(labels=labels, objective=Classification(recipe, 3, labels))

    whole = fit(job(), recipe, Settings(output=tmp_path / "whole"))

    class Enough(Exception):
        """The run is cut off here."""

    class Cut(Lines):
        def step(self, values: Any) -> None:
            if values["step"] == 7:
                raise Enough

    with pytest.raises(Enough):
        fit(job(), recipe, Settings(output=tmp_path / "cut", save_steps=2), Cut(Console(quiet=True)))
    assert read(tmp_path / "cut" / "last.pt")["step"] == 6
    cut = fit(job(), recipe, Settings(output=tmp_path / "cut"))
    ours, theirs = load_file(whole.weights), load_file(cut.weights)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_balanced_weights_are_one_in_the_mean() -> None:
    labels = [0] * 6 + [1] * 2 + [3]
    weights = class_weights(Recipe(class_weights="balanced"), 4, labels)
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([0.5, 1.5, 0.0, 3.0]))
    assert float(weights[labels].mean()) == pytest.approx(1.0)
    assert class_weights(Recipe(), 4, labels) is None
    with pytest.raises(ValueError, match="class_weights has 2 numbers for 4 classes"):
        class_weights(Recipe(class_weights=(1.0, 2.0)), 4, labels)


class Logits(torch.nn.Module):
    """A model that says what it was told."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits


def losses(changes: dict[str, Any], logits: Tensor, labels: Any) -> Tensor:
    from mvitv2.data.samples import Batch

    recipe = overridden(RECIPE, {"mixup": 0, "cutmix": 0, "label_smoothing": 0.0, **changes})
    found = Classification(recipe, logits.shape[1], labels)(Logits(logits), Batch(logits, labels, ()), 0)
    return found.total / found.count


def test_losses_are_timms() -> None:
    timm = pytest.importorskip("timm.loss", reason="the extra train")
    torch.manual_seed(0)
    logits, labels = torch.randn(9, 5), torch.randint(0, 5, (9,))
    soft = torch.nn.functional.one_hot(labels, 5) * 0.8 + 0.04
    assert_close = torch.testing.assert_close
    assert_close(losses({"label_smoothing": 0.2}, logits, labels), timm.SoftTargetCrossEntropy()(logits, soft))
    assert_close(losses({"label_smoothing": 0.2}, logits, labels), timm.LabelSmoothingCrossEntropy(0.2)(logits, labels))
    bce = {"loss": "bce", "label_smoothing": 0.2}
    assert_close(losses(bce, logits, labels), timm.BinaryCrossEntropy(smoothing=0.2)(logits, labels))
    hard = timm.BinaryCrossEntropy(smoothing=0.2, target_threshold=0.1)(logits, labels)
    assert_close(losses({**bce, "target_threshold": 0.1}, logits, labels), hard)


def test_class_weights_are_torchs_and_count_images_alike_in_both_losses() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(9, 3), torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    weights = torch.tensor([1.0, 2.0, 0.5])
    expected = torch.nn.functional.cross_entropy(logits, labels, weights, reduction="sum") / 9
    torch.testing.assert_close(losses({"class_weights": (1, 2, 0.5)}, logits, labels), expected)
    each = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, torch.nn.functional.one_hot(labels, 3).float(), reduction="none"
    ).mean(dim=1)
    weighed = losses({"class_weights": (1, 2, 0.5), "loss": "bce"}, logits, labels)
    torch.testing.assert_close(weighed, (each * weights[labels]).mean())


def test_offences_of_the_new_fields() -> None:
    for changes, message in (
        ({"class_weights": "even"}, "class_weights='even' is none of 'none', 'balanced'"),
        ({"class_weights": "1,-2"}, "must be 0 or more"),
        ({"target_threshold": 0.2}, "target_threshold=0.2 is for loss='bce'"),
        ({"patience": 0}, "patience=0 must be at least 1, or none"),
        ({"sampling": "even"}, "sampling='even' is none of 'shuffle', 'balanced'"),
        ({"repeats": 0}, "repeats=0 must be at least 1"),
        ({"freeze": 1.5}, "freeze=1.5 must be words"),
    ):
        with pytest.raises(ValueError, match=message):
            overridden(Recipe(), changes)


def test_words_for_the_new_fields() -> None:
    one = overridden(Recipe(), {"freeze": "stem, blocks.0.*", "class_weights": "1,2.5", "patience": "5"})
    assert (one.freeze, one.class_weights, one.patience) == (("stem", "blocks.0.*"), (1.0, 2.5), 5)
    assert overridden(one, {"freeze": [4]}).freeze == ("4",)
    assert overridden(one, {"freeze": "none", "class_weights": "balanced"}).freeze == ()
    assert Recipe.from_dict(one.to_dict()) == one
