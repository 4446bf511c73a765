"""Classifiers in transformers: the same logits through its Auto classes and pipelines, to it and back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mvitv2
from mvitv2.core.model import MViT
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.prediction import predict
from tests import tiny

hf: Any = pytest.importorskip("mvitv2.hf", reason="transformers comes with the extra `hf`", exc_type=ImportError)
transformers: Any = pytest.importorskip("transformers")
CLASSES = ["ant", "bee", "cat", "dog", "eel"]


@pytest.fixture
def model() -> MViT:
    made = tiny.model(tiny.image(), name="auto")
    made.card = {"classes": CLASSES, "preprocessing": Preprocessing(size=(32, 48), resize=(40, 60)).to_dict()}
    return made


@pytest.fixture
def folder(model: MViT, tmp_path: Path) -> str:
    return str(mvitv2.save_pretrained(model, tmp_path / "ours"))


def test_logits_are_the_models(model: MViT, folder: str, tmp_path: Path) -> None:
    theirs = transformers.AutoModelForImageClassification.from_pretrained(folder)
    pixels = tiny.pixels(model.config)
    found = theirs(pixels, labels=torch.tensor([0, 4]), output_hidden_states=True)
    torch.testing.assert_close(found.logits, model(pixels))
    torch.testing.assert_close(found.loss, torch.nn.functional.cross_entropy(model(pixels), torch.tensor([0, 4])))
    assert [tuple(m.shape) for m in found.hidden_states] == [tuple(m.shape) for m in model.maps(pixels, (0, 1, 2))]
    assert theirs.config.id2label[3] == "dog" and theirs.config.label2id["dog"] == 3
    assert torch.equal(theirs(pixels, return_dict=False)[0], theirs(pixels).logits)

    theirs.save_pretrained(tmp_path / "theirs")
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "theirs")
    assert torch.equal(again(pixels).logits, theirs(pixels).logits)
    back: Any = mvitv2.from_pretrained(tmp_path / "theirs")
    torch.testing.assert_close(back(pixels), model(pixels))
    assert back.card["classes"] == CLASSES and back.card["preprocessing"] == model.card["preprocessing"]


def test_a_pipeline_answers_as_we_do(model: MViT, folder: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    (ours,) = predict(model, picture)
    answers = transformers.pipeline("image-classification", model=folder)(picture)
    assert [answer["label"] for answer in answers] == list(ours.classes)
    np.testing.assert_allclose([answer["score"] for answer in answers], ours.scores, rtol=1e-4)


def test_pixels_are_ours(model: MViT, folder: str, tmp_path: Path) -> None:
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    expected = mvitv2.create_transform(model)(Image.fromarray(noise))
    for images in (Image.fromarray(noise), noise, [noise, noise]):
        found = processor(images, return_tensors="pt")["pixel_values"]
        assert all(torch.equal(one, expected) for one in found)
    processor.save_pretrained(tmp_path)
    assert hf.MViTv2ImageProcessor.from_pretrained(tmp_path).preprocessing == model.card["preprocessing"]
    with pytest.raises(ValueError, match="return_tensors='np'"):
        processor(noise, return_tensors="np")


def test_other_classes_and_training(model: MViT, folder: str) -> None:
    load = transformers.AutoModelForImageClassification.from_pretrained
    theirs = load(folder, id2label={0: "yes", 1: "no"}, label2id={"yes": 0, "no": 1}, ignore_mismatched_sizes=True)
    theirs.train()
    theirs.activation_checkpointing_enable()
    assert theirs.mvit.grad_checkpointing
    with pytest.raises(ValueError, match="every_n_layers=2"):
        theirs.activation_checkpointing_enable(every_n_layers=2)
    loss = theirs(tiny.pixels(model.config), labels=torch.tensor([0, 1])).loss
    loss.backward()
    assert all(parameter.grad is not None for parameter in theirs.parameters())
    torch.testing.assert_close(theirs.mvit.patch_embed.proj.weight, model.patch_embed.proj.weight)
    assert 0 < theirs.mvit.head.projection.weight.std() < 0.03


def test_the_same_folder_is_a_backbone(model: MViT, folder: str) -> None:
    theirs = hf.MViTv2Backbone.from_pretrained(folder, out_indices=[0, 2])  # AutoBackbone asks the hub about paths
    pixels = tiny.pixels(model.config)
    for found, expected in zip(theirs(pixels).feature_maps, model.maps(pixels, (0, 2)), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_model_at_hand_is_wrapped(model: MViT) -> None:
    theirs = hf.MViTv2ForImageClassification.of(model)
    pixels = tiny.pixels(model.config)
    assert theirs.mvit is model and torch.equal(theirs(pixels).logits, model(pixels))
    with pytest.raises(ValueError, match="takes clips"):
        hf.MViTv2ForImageClassification.of(tiny.model(tiny.clip()))
