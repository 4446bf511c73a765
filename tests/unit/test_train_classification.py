"""From words to a job: which data, which model, which transforms; and what does not go together."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import mvitv2
from mvitv2.core.model import MViT
from mvitv2.data.augment import ShiftTransform
from mvitv2.data.folder import DataError
from mvitv2.data.transforms import EvalTransform
from mvitv2.preprocessing import IMAGENET, Preprocessing
from mvitv2.tasks.classify import predict
from mvitv2.train.classification import (
    classification_job,
    fingerprint,
    preprocessing_for,
    start_model,
    train_transform,
)
from mvitv2.train.jobs import train
from mvitv2.train.recipe import Recipe, overridden
from mvitv2.train.recipes import recipe
from mvitv2.train.settings import Settings

SMALL = Recipe(
    stages={"depths": (1, 1), "embed_dim": 8, "kv_stride": (2, 2)},
    model_fields={"drop_path": 0.1},
    img_size=16,
    augmentation={"kind": "shift", "shift": 1},
    epochs=2,
    batch_size=4,
    lr=0.02,
    lr_batch=4,
    warmup_epochs=0.0,
    mixup=0.0,
    cutmix=0.0,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, eight training and four validation images each, and two files that are none."""
    for split, count in (("train", 8), ("val", 4)):
        for label, name in enumerate(("dark", "light")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                shade = 40 + 150 * label + 5 * i
                Image.new("RGB", (20, 18), (shade, shade, 60)).save(tmp_path / "data" / split / name / f"{i}.png")
    (tmp_path / "data" / "train" / "dark" / "bad.jpg").write_bytes(b"")
    (tmp_path / "data" / "val" / "light" / "bad.png").write_text("no picture")
    return tmp_path / "data"


def test_a_folder_is_trained_on_and_its_weights_predict(folder: Path, tmp_path: Path) -> None:
    outcome = train(folder, SMALL, Settings(output=tmp_path / "run"))
    assert outcome.best["value"] == 1.0
    assert outcome.history[0]["val_unreadable"] == 1
    assert [Path(path).name for path in outcome.unreadable] == ["bad.jpg"]
    model = mvitv2.load_model(outcome.weights)
    assert isinstance(model, MViT)
    assert model.card["classes"] == ["dark", "light"]
    assert model.config.drop_path == 0.1
    answers = list(predict(model, folder / "val"))
    assert sum(a.error is None for a in answers) == 8
    assert all(a.error or Path(a.file).parent.name == a.classes[0] for a in answers)


@pytest.mark.parametrize("dialect", ["mvitv2", "timm"])
def test_fine_tuning_from_a_file_of_another_size_and_other_classes(folder: Path, tmp_path: Path, dialect: str) -> None:
    made: Any = mvitv2.create_model(
        "mvitv2_t",
        blocks=mvitv2.core.stages.stages(depths=(1, 1), embed_dim=8, kv_stride=(2, 2)),
        img_size=32,
        num_classes=7,
        residual_pooling="all",
    )
    made.card = {"preprocessing": Preprocessing(size=(32, 32), resize=32, mean=(0.1,) * 3, std=(0.9,) * 3).to_dict()}
    path = mvitv2.save_weights(made, tmp_path / "start.safetensors", dialect=dialect)
    changes = {"weights": str(path), "stages": {}, "model_fields": {}, "drop_path": 0.2, "layer_decay": 0.7}
    job = classification_job(folder, overridden(SMALL, changes), Settings(output=tmp_path / "run"))
    assert (job.model.config.num_classes, job.model.config.input_size, job.model.config.drop_path) == (2, (16, 16), 0.2)
    assert torch.equal(
        job.model.state_dict()["blocks.1.attn.qkv.weight"], made.state_dict()["blocks.1.attn.qkv.weight"]
    )
    if dialect == "mvitv2":
        assert job.card["preprocessing"]["mean"] == [0.1] * 3
        assert job.card["preprocessing"]["resize"] == 16
    outcome = train(folder, overridden(SMALL, changes), Settings(output=tmp_path / "run"))
    assert outcome.best["value"] > 0.6


def test_weights_bring_their_own_architecture(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"bring their own architecture; leave out stages="):
        classification_job(folder, overridden(SMALL, {"weights": "x.pth"}), Settings(output=tmp_path / "run"))


def test_the_seed_alone_decides_the_first_weights(folder: Path, tmp_path: Path) -> None:
    def first(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)  # whatever was drawn before
        job = classification_job(folder, overridden(SMALL, {"seed": seed // 2}), Settings(output=tmp_path / "run"))
        return job.model.state_dict()["blocks.1.mlp.fc1.weight"]

    assert torch.equal(first(0), first(1))
    assert not torch.equal(first(0), first(2))


def test_what_a_recipe_builds() -> None:
    model = start_model(SMALL, num_classes=3, channels=1)
    assert (len(model.blocks), model.config.in_channels, model.config.num_classes) == (2, 1, 3)
    assert (model.config.input_size, model.config.drop_path) == ((16, 16), 0.1)


def test_data_that_cannot_be_used_is_told_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="looked for"):
        train(tmp_path / "data", SMALL, Settings(output=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_preprocessing_follows_the_weights_the_size_and_the_recipe() -> None:
    assert preprocessing_for(Recipe(), {}) == IMAGENET
    assert preprocessing_for(Recipe(img_size=384), {}).resize == 438
    only = preprocessing_for(overridden(Recipe(img_size=64), {"preprocessing.resize": 72}), {})
    assert (only.size, only.resize) == ((64, 64), 72)
    whole = preprocessing_for(overridden(recipe("digits"), {"img_size": 64}), {})
    assert (whole.size, whole.resize, whole.channels) == ((64, 64), 64, "gray")
    card = {"preprocessing": Preprocessing(size=(100, 100), resize=120, mean=(0.5,) * 3).to_dict()}
    assert preprocessing_for(Recipe(img_size=50), card) == Preprocessing(size=(50, 50), resize=60, mean=(0.5,) * 3)


def test_transforms_by_kind() -> None:
    small = Preprocessing(size=(16, 16), resize=16)
    assert train_transform(SMALL, small) == ShiftTransform(small, shift=1)
    assert train_transform(overridden(SMALL, {"augmentation": {"kind": "none"}}), small) == EvalTransform(small)
    with pytest.raises(ValueError, match=r"augmentation of kind 'shift' has no such field: .*'policy'"):
        train_transform(overridden(SMALL, {"augmentation.policy": "rand-m9"}), small)


def test_the_published_transforms_are_timms() -> None:
    pytest.importorskip("timm", reason="the published augmentation is timm's: the extra train")
    chosen = overridden(SMALL, {"augmentation": {"kind": "published", "scale": [0.5, 1.0], "policy": None}})
    transform = train_transform(chosen, Preprocessing(size=(16, 16), resize=16))
    assert transform(Image.new("RGB", (30, 20))).shape == (3, 16, 16)


def test_fingerprints_tell_data_apart() -> None:
    import numpy as np

    same = fingerprint(["a", "b"], np.array([0, 1, 1]))
    assert same == fingerprint(["a", "b"], np.array([0, 1, 1], dtype=np.int32))
    assert same != fingerprint(["a", "b"], np.array([0, 0, 1]))
    assert same != fingerprint(["a", "c"], np.array([0, 1, 1]))
