"""Jobs of clips: where they start, what they are given, and recipes as data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="clips are read by PyAV: the extra video")

import mvitv2
from mvitv2.core.masked import pretraining
from mvitv2.core.model import MViT
from mvitv2.data.samples import Batch, SampleKey
from mvitv2.preprocessing import IMAGENET, KINETICS, KINETICS_32X3, KINETICS_L, SSV2_B, SSV2_L, SSV2_S
from mvitv2.train.clip_recipes import CLIP_RECIPES
from mvitv2.train.jobs import job_for, train
from mvitv2.train.mixing import Mixing
from mvitv2.train.progress import Together, silent
from mvitv2.train.recipe import Recipe, overridden
from mvitv2.train.recipes import recipe
from mvitv2.train.settings import Settings
from mvitv2.train.start import named_config, started
from mvitv2.train.video import clip_preprocessing, train_clip
from mvitv2.weights.save import save_weights
from tests import films, tiny
from tests.e2e.test_video import TINY
from tests.unit.test_trackers import Killed, Killer


def small(**changes: Any) -> Recipe:
    return overridden(recipe("clips_small"), {**TINY, **changes})


@pytest.mark.parametrize("made", CLIP_RECIPES, ids=lambda made: made.name)
def test_every_recipe_makes_a_model(made: Recipe) -> None:
    """Sizes agree, augmentation is known, and it survives JSON."""
    config, record = named_config(made), clip_preprocessing(made)
    assert record.num_frames is not None
    assert record.size == (made.img_size, made.img_size)
    assert config.input_size[-2:] == record.size or made.name == "clips_small"
    if made.task != "actions":
        train_clip(made, record)
    if made.task == "maskfeat":
        pretraining(config)
    assert Recipe.from_dict(made.to_dict()) == made
    assert made.source


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("k400_s", KINETICS),
        ("k400_b", KINETICS_32X3),
        ("k400_l", KINETICS_L),
        ("ssv2_s", SSV2_S),
        ("ssv2_b", SSV2_B),
        ("ssv2_l", SSV2_L),
    ],
)
def test_clips_are_prepared_as_published(name: str, record: Any) -> None:
    assert clip_preprocessing(recipe(name)) == record


def test_numbers_of_the_peers() -> None:
    """Kinetics S: 1.6e-3 for 256 files with two clips each; Something-Something by SGD; MaskFeat's clipping."""
    k400 = recipe("k400_s")
    assert k400.lr / k400.lr_batch * 256 == pytest.approx(1.6e-3)
    assert (k400.epochs, k400.warmup_epochs, k400.augmentation["repeats"]) == (200, 30, 2)
    assert (recipe("ssv2_l").lr, recipe("ssv2_l").clip_norm, recipe("ssv2_l").mixup) == (1.25e-3, 2.0, 0)
    assert (recipe("maskfeat_l").clip_norm, recipe("maskfeat_l_ft").layer_decay) == (0.02, 0.875)


@pytest.mark.parametrize("how", ["centre", "mean", "repeat"])
def test_weights_of_images_are_inflated(tmp_path: Path, how: str) -> None:
    fields = {**TINY["stages"], "kernel": (3, 3), "q_stride": (2, 2), "kv_stride": (2, 2)}
    blocks = mvitv2.core.stages.stages(**fields)
    config = tiny.image(blocks=blocks, input_size=(24, 24), num_classes=7)
    image = tiny.model(config)
    path = save_weights(image, tmp_path / "image.safetensors")
    made = small(weights=str(path), inflation=how)
    model, card = started(made, num_classes=2, channels=3, num_frames=4)
    name = "blocks.0.attn.pool_k.weight"
    before, after = image.state_dict()[name], model.state_dict()[name]
    expected = {"centre": torch.zeros_like(before), "mean": before / 3, "repeat": before}[how]
    torch.testing.assert_close(after[:, :, 0], expected)
    torch.testing.assert_close(after[:, :, 1], before if how != "mean" else before / 3)
    assert not model.state_dict()["blocks.0.attn.rel_pos_t"].any()
    assert f"image kernels inflated in time by {how!r}" in card["loading"]
    assert clip_preprocessing(made).mean == IMAGENET.mean
    assert clip_preprocessing(made).num_frames == 4


def test_weights_of_clips_bring_their_architecture(tmp_path: Path) -> None:
    path = save_weights(tiny.model(tiny.clip()), tmp_path / "clips.safetensors")
    plain = overridden(Recipe(task="video", model="mvitv2_s_16x4"), {"weights": str(path), "img_size": 32})
    model, _ = started(plain, num_classes=3, channels=3, num_frames=6)
    assert (model.config.embed_dim, model.config.num_classes, model.config.input_size) == (8, 3, (6, 32, 32))
    with pytest.raises(ValueError, match="bring their own architecture; leave out stages"):
        started(small(weights=str(path)), num_classes=3, channels=3, num_frames=6)
    with pytest.raises(ValueError, match="mvitv2_t is a model for images; num_frames=4 needs one for clips"):
        started(Recipe(task="video"), num_classes=3, channels=3, num_frames=4)


def test_a_job_of_clips(tmp_path: Path) -> None:
    data = films.two_classes(tmp_path, [("train", 2), ("val", 1)])
    made = small(augmentation={"kind": "published", "policy": None, "flip": 0.0, "repeats": 3})
    job = job_for(data, made, Settings(output=tmp_path / "run"))
    assert (job.data["train_images"], job.data["classes"], job.labels.tolist()) == (4, 2, [0, 0, 1, 1])
    batch, again = (job.collate([job.dataset[SampleKey(i, i)] for i in (0, 2)]) for _ in range(2))
    assert isinstance(batch, Batch)
    assert isinstance(again, Batch)
    assert batch.images.shape == (6, 3, 4, 24, 24)
    assert batch.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(batch.images, again.images)
    loss = job.objective(job.model, batch, 0)
    assert (loss.count, bool(loss.total.isfinite())) == (6, True)
    assert set(job.measure(job.model, lambda done, total: None)) == {"val_loss", "top1", "top5", "mean_class"}


def test_kinds_of_augmentation() -> None:
    record = clip_preprocessing(small())
    with pytest.raises(ValueError, match="'shift' is of pictures; of clips use one of published, device, none"):
        train_clip(small(augmentation={"kind": "shift"}), record)
    with pytest.raises(ValueError, match="augmentation of clips has no such field"):
        train_clip(small(augmentation={"kind": "published", "colour": 1}), record)
    plain, repeats = train_clip(small(augmentation={"kind": "none"}), record)
    assert repeats == 1
    assert plain(torch.zeros(4, 3, 30, 40, dtype=torch.uint8)).shape == (3, 4, 24, 24)


def on_device(**changes: Any) -> Recipe:
    fields = {"kind": "device", "policy": "rand-m7-n2", "erase_probability": 0.5, "flip": 0.0, "repeats": 2}
    return small(augmentation=fields, batch_size=2, epochs=2, **changes)


def test_clips_are_augmented_where_the_model_is(tmp_path: Path) -> None:
    """Loading crops, the objective does the rest to the batch; a run that was stopped goes on exactly."""
    pytest.importorskip("torchvision", reason="its RandAugment works on tensors: the extra train")
    data = films.two_classes(tmp_path / "data", [("train", 3), ("val", 1)])
    job = job_for(data, on_device(), Settings(output=tmp_path / "run"))
    batch = job.collate([job.dataset[SampleKey(i, i)] for i in (0, 4)])
    assert isinstance(batch, Batch)
    assert (batch.images.dtype, tuple(batch.images.shape)) == (torch.uint8, (4, 3, 4, 24, 24))
    assert batch.labels.tolist() == [0, 0, 1, 1]
    losses = [float(job.objective(job.model.eval(), batch, place).total.detach()) for place in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    whole = train(data, on_device(), Settings(output=tmp_path / "whole"))
    with pytest.raises(Killed):
        train(data, on_device(), Settings(output=tmp_path / "cut", save_steps=1), Together(silent(), Killer(4)))
    again = train(data, on_device(), Settings(output=tmp_path / "cut"))
    first, second = (torch.load(folder.folder / "last.pt")["model"] for folder in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_pretraining_has_its_clips_normalised_where_the_model_is(tmp_path: Path) -> None:
    """With nothing to draw but crops, the loss is that of clips prepared by loading processes, up to whole levels."""
    data = films.two_classes(tmp_path / "data", [("train", 1), ("val", 1)])
    fields = {"policy": None, "erase_probability": 0.0, "flip": 0.0, "scale": (0.9, 1.0)}
    stages = {**TINY["stages"], "depths": (1, 1, 1), "expand_in": "mlp"}
    shape = {"stages": stages, "img_size": 32, "preprocessing": {**TINY["preprocessing"], "size": (32, 32)}}
    found = []
    for kind in ("published", "device"):
        made = overridden(recipe("maskfeat_s"), {**TINY, **shape, "augmentation": {"kind": kind, **fields}})
        job = job_for(data, made, Settings(output=tmp_path / "run"))
        batch = job.collate([job.dataset[SampleKey(i, i)] for i in (0, 1)])
        found.append(float(job.objective(job.model.eval(), batch, 0).total.detach()))
    assert found[0] == pytest.approx(found[1], rel=0.02)


def test_what_is_not_done_where_the_model_is(tmp_path: Path) -> None:
    data = films.two_classes(tmp_path / "data", [("train", 1), ("val", 1)])
    for fields, part in (({"policy": "augmix-m5"}, "not done on the device"), ({"neighbours": 2}, "no such field")):
        with pytest.raises(ValueError, match=part):
            job_for(data, small(augmentation={"kind": "device", **fields}), Settings(output=tmp_path / "run"))


def test_a_few_clips_are_learnt_by_heart(tmp_path: Path) -> None:
    data = films.two_classes(tmp_path / "data", [("train", 4), ("val", 1)])
    made = small(overfit_batches=1, batch_size=3, augmentation={"kind": "none"})
    job = job_for(data, made, Settings(output=tmp_path / "run"))
    assert len(job.dataset) == 3
    told: list[tuple[int, int]] = []
    assert "top1" in job.measure(job.model, lambda done, total: told.append((done, total)))
    assert told[-1] == (3, 3)
    stages = {**TINY["stages"], "depths": (1, 1, 1), "expand_in": "mlp"}
    pre = overridden(recipe("maskfeat_s"), {**TINY, "stages": stages, "overfit_batches": 1, "batch_size": 3})
    assert len(job_for(data, pre, Settings(output=tmp_path / "run")).dataset) == 3


def test_a_few_keyframes_are_learnt_by_heart(tmp_path: Path) -> None:
    from tests.unit.test_ava import ava

    made = overridden(recipe("ava"), {**TINY, "overfit_batches": 1, "batch_size": 1})
    job = job_for(ava(tmp_path), made, Settings(output=tmp_path / "run"))
    assert (job.data["train_images"], job.data["val_images"]) == (1, 1)
    told: list[int] = []
    assert set(job.measure(job.model, lambda done, total: told.append(total))) == {"map"}
    assert set(told) == {1}


@pytest.mark.parametrize("fields", [{"mixup": 0.8, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
def test_clips_are_mixed_alike_in_every_frame(fields: dict[str, float]) -> None:
    pytest.importorskip("timm", reason="mixup and cutmix are timm's: the extra train")
    still = torch.randn(5, 3, 1, 8, 8).expand(-1, -1, 4, -1, -1)
    mixing = Mixing(Recipe(**fields), 3)  # type: ignore[arg-type]
    mixed, targets = mixing(still, torch.tensor([0, 1, 2, 0, 1]), 7)
    assert mixed.shape == still.shape
    assert torch.equal(mixed, mixed[:, :, :1].expand_as(mixed))
    assert not torch.equal(mixed[:4], still[:4])
    image, soft = mixing(still[:, :, 0], torch.tensor([0, 1, 2, 0, 1]), 7)
    assert torch.equal(image, mixed[:, :, 0])
    assert torch.equal(soft, targets)


def test_recipes_are_found_by_what_is_typed(tmp_path: Path) -> None:
    from mvitv2.cli.chosen import chosen_recipe
    from mvitv2.cli.train import Options

    def found(**words: Any) -> tuple[str, str, str]:
        made = chosen_recipe(Options(data="clips", **words))
        return made.name, made.task, made.model

    assert found(model="mvitv2_s_16x4") == ("k400_s", "video", "mvitv2_s_16x4")
    assert found(model="mvit_v2_s") == ("k400_s", "video", "mvit_v2_s")
    assert found(model="mvitv2_b_32x3", pretrained=True) == ("clips_fine_tune", "video", "mvitv2_b_32x3")
    assert found(task="maskfeat", model="maskfeat_l_16x4") == ("maskfeat_l", "maskfeat", "maskfeat_l_16x4")
    assert found(task="actions") == ("ava", "actions", "mvitv2_s_16x4")
    assert found(model="mvitv2_t") == ("imagenet_t", "classify", "mvitv2_t")
    path = save_weights(tiny.model(tiny.clip()), tmp_path / "own.safetensors")
    assert found(weights=str(path))[:2] == ("clips_fine_tune", "video")
    image = save_weights(tiny.model(tiny.image()), tmp_path / "image.safetensors")
    assert found(weights=str(image))[:2] == ("fine_tune", "classify")
    small = chosen_recipe(Options(data="clips", recipe="clips_small", set=("augmentation.kind=device",)))
    assert small.augmentation == {**recipe("clips_small").augmentation, "kind": "device"}  # flips stay off
    heart = chosen_recipe(Options(data="clips", recipe="clips_small", overfit_batches=2))
    assert (heart.augmentation, heart.overfit_batches) == ({"kind": "none"}, 2)
    boxes = chosen_recipe(Options(data="ava", task="actions", overfit_batches=2))
    assert boxes.augmentation == {"kind": "published", "flip": 0.0}
    made = chosen_recipe(Options(data="clips", model="mvitv2_s_16x4", num_frames=8, sampling_rate=2))
    assert (clip_preprocessing(made).num_frames, clip_preprocessing(made).sampling_rate) == (8, 2)


def test_an_encoder_is_fine_tuned_at_its_own_size(tmp_path: Path) -> None:
    """MaskFeat's files lack the last norm: they are carried over into the recipe's model."""
    from mvitv2.core.masked import MaskedMViT
    from mvitv2.weights.masked import save_masked

    stages = {**TINY["stages"], "depths": (1, 2), "expand_in": "mlp"}
    fields = {"class_token": True, "readout": "mean_norm", "head_dropout": 0.0}
    made = small(stages=stages, model_fields=fields, model="maskfeat_s_16x4", img_size=32)
    masked = MaskedMViT(pretraining(named_config(made, img_size=32, num_frames=4)), 12)
    path = save_masked(masked, tmp_path / "pre.pyth", dialect="slowfast")
    model, _ = started(overridden(made, {"weights": str(path)}), num_classes=2, channels=3, num_frames=4)
    assert isinstance(model, MViT)
    assert (model.config.final_norm, model.config.num_classes) == (True, 2)
    np.testing.assert_array_equal(
        model.state_dict()["patch_embed.proj.weight"].numpy(), masked.state_dict()["patch_embed.proj.weight"].numpy()
    )
