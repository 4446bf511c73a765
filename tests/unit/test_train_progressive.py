"""Progressive resolution and few batches: what each epoch is given, and that a run through it all goes on exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mvitv2.data.samples import SampleKey
from mvitv2.train.classification import classification_job
from mvitv2.train.loop import fit
from mvitv2.train.objective import Loss
from mvitv2.train.overfit import Part
from mvitv2.train.progressive import Phase, phases
from mvitv2.train.recipe import Recipe, overridden
from mvitv2.train.settings import Settings

from ..e2e.training_job import RECIPE, Patterns, small_job

SMALL = Recipe(
    stages={"depths": (1, 1), "embed_dim": 8, "kv_stride": (2, 2)},
    img_size=32,
    augmentation={"kind": "shift", "shift": 1},
    epochs=3,
    batch_size=2,
    accumulation=4,
    lr=0.02,
    lr_batch=8,
    warmup_epochs=0.0,
    mixup=0.0,
    cutmix=0.0,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, ten training and four validation images each."""
    for split, count in (("train", 10), ("val", 4)):
        for label, name in enumerate(("dark", "light")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                shade = 40 + 150 * label + 5 * i
                Image.new("RGB", (40, 36), (shade, shade, 60)).save(tmp_path / "data" / split / name / f"{i}.png")
    return tmp_path / "data"


def test_the_phases_of_a_run() -> None:
    assert phases(SMALL) == [Phase(0, 3, 32, 2, 4)]
    two = overridden(SMALL, {"progressive": {"1": 16, "3": 24}})
    assert phases(two) == [Phase(0, 2, 16, 2, 4), Phase(2, 3, 24, 2, 4)]
    assert phases(overridden(SMALL, {"progressive.2": 16})) == [Phase(0, 1, 32, 2, 4), Phase(1, 3, 16, 2, 4)]


@pytest.mark.parametrize(("size", "passes"), [(32, (2, 4)), (24, (2, 4)), (22, (4, 2)), (16, (8, 1)), (8, (8, 1))])
def test_forward_passes_grow_where_pictures_shrink_and_the_global_batch_stays(size: int, passes: tuple) -> None:
    phase = phases(overridden(SMALL, {"progressive.1": size, "progressive_batch": True}))[0]
    assert (phase.batch_size, phase.accumulation) == passes
    assert phase.batch_size * phase.accumulation == 8


def test_the_model_sees_the_sizes_and_a_resumed_run_does_too(folder: Path, tmp_path: Path) -> None:
    recipe = overridden(SMALL, {"progressive": {"1": 16, "2": 24, "3": 32}, "progressive_batch": True})

    def run(name: str) -> Any:
        job, seen = classification_job(folder, recipe, Settings(output=tmp_path / name)), []
        inner = job.objective

        def watched(model: torch.nn.Module, batch: Any, place: int) -> Loss:
            seen.append(tuple(batch.images.shape))
            return inner(model, batch, place)

        object.__setattr__(job, "objective", watched)
        return fit(job, recipe, Settings(output=tmp_path / name, save_steps=5)), seen

    outcome, seen = run("whole")
    assert seen == [(8, 3, 16, 16)] * 2 + [(2, 3, 24, 24)] * 8 + [(2, 3, 32, 32)] * 8
    run("cut")
    (tmp_path / "cut" / "previous.pt").replace(tmp_path / "cut" / "last.pt")
    again, rest = run("cut")
    assert rest == [(2, 3, 32, 32)] * 4
    ours, theirs = load_file(outcome.weights), load_file(again.weights)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_task_with_one_size_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="task 'classify' has one size only"):
        fit(small_job(), overridden(RECIPE, {"progressive.1": 8}), Settings(output=tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"progressive": {"0": 128}}, "progressive: '0' must be an epoch from 1 to 300"),
        ({"progressive": {"301": 128}}, "must be an epoch from 1 to 300"),
        ({"progressive": {"1": "big"}}, "'big' from epoch 1 must be a size in pixels"),
    ],
)
def test_offences(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overridden(Recipe(), changes)


def test_a_part_of_a_data_set() -> None:
    whole: Any = Patterns()
    whole.classes = whole.class_names
    part = Part(whole, [5, 3, 8])
    assert (len(part), part.labels.tolist()) == (3, [whole.labels[i] for i in (5, 3, 8)])
    assert torch.equal(part[SampleKey(1, 7)][0], whole[SampleKey(3, 7)][0])
    assert torch.equal(part[2][0], whole[8][0])


def test_few_batches_are_trained_and_measured_on(folder: Path, tmp_path: Path) -> None:
    recipe = overridden(SMALL, {"overfit_batches": 1, "augmentation": {"kind": "none"}, "epochs": 8})
    job = classification_job(folder, recipe, Settings(output=tmp_path))
    assert (len(job.dataset), job.data["train_images"], job.data["val_images"]) == (8, 8, 8)
    outcome = fit(job, recipe, Settings(output=tmp_path))
    assert outcome.steps == 8
    assert outcome.history[-1]["train_loss"] < outcome.history[0]["train_loss"]
    balanced = classification_job(folder, overridden(recipe, {"sampling": "balanced"}), Settings(output=tmp_path))
    assert np.bincount(balanced.dataset.labels).tolist() == [4, 4]
