"""What a file is, said without building its model or giving up at the first thing that is wrong."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import mvitv2
from mvitv2.core.attend import reference
from mvitv2.core.pyramid import PyramidBackbone
from mvitv2.core.reversible import build
from mvitv2.core.stages import detection, stages
from mvitv2.variants import VARIANTS
from mvitv2.weights.card import variant_of
from mvitv2.weights.convert import State
from mvitv2.weights.inspect import inspect_weights
from mvitv2.weights.rename import DialectError
from mvitv2.weights.save import save_weights, translated
from tests import tiny


def state_of(name: str, dialect: str) -> State:
    """A published model's state dict without memory."""
    with torch.device("meta"):
        state = build(VARIANTS[name], reference).state_dict()
    return translated(state, VARIANTS[name], dialect, other_numbers=True)[0]


@pytest.mark.parametrize(
    "name, dialect, task, preset",
    [
        ("mvitv2_t", "official", "image classification", {"resize": 256, "interpolation": "bicubic"}),
        ("mvitv2_b_cls_21k", "timm", "image classification", {"resize": 248, "interpolation": "bicubic"}),
        ("mvitv2_s_16x4", "torchvision", "video classification", {"num_frames": 16, "sampling_rate": 4}),
        ("mvitv2_b_32x3", "slowfast", "video classification", {"num_frames": 32, "sampling_rate": 3}),
        ("mvitv2_l_40x3", "mmaction2", "video classification", {"num_frames": 40, "mean": [0.485, 0.456, 0.406]}),
        ("mvitv1_b_16x4", "pytorchvideo", "video classification", {"num_frames": 16, "mean": [0.45, 0.45, 0.45]}),
        ("rev_mvit_b", "slowfast", "image classification", {"num_frames": None}),
        ("mvitv2_s_det", "detectron2", "detection backbone", {"resize": 800, "longest": 1333, "size": None}),
    ],
)
def test_published_models(name: str, dialect: str, task: str, preset: dict[str, Any]) -> None:
    found = inspect_weights(state_of(name, dialect))
    assert (found.dialect, found.variant, found.task) == (dialect, name, task)
    assert found.input_size == VARIANTS[name].input_size
    assert found.num_classes == VARIANTS[name].num_classes
    assert {key: found.preprocessing[key] for key in preset} == preset
    assert (found.missing, found.superfluous, found.left_out) == ([], [], [])


def test_parameters_are_counted_once() -> None:
    config = tiny.clip(abs_pos="separable", rel_pos_spatial=False, rel_pos_temporal=False, residual_pooling="none")
    model = tiny.model(config)
    state = translated(dict(model.state_dict()), config, "pytorchvideo")[0]
    assert inspect_weights(state).parameters == sum(p.numel() for p in model.parameters())


def test_what_is_missing_and_what_is_too_much() -> None:
    state = state_of("mvitv2_t", "timm")
    del state["norm.bias"], state["stages.2.blocks.1.attn.rel_pos_h"]
    state["stages.1.blocks.0.attn.extra"] = torch.zeros(1)
    found = inspect_weights(state)
    assert found.missing == ["blocks.4.attn.rel_pos_h", "norm.bias"]
    assert found.superfluous == ["blocks.1.attn.extra"]
    assert found.variant == "mvitv2_t"


def test_what_is_left_out_is_named() -> None:
    state = {**state_of("mvitv2_t_det", "detectron2"), "roi_heads.mask_head.predictor.weight": torch.zeros(1)}
    assert inspect_weights(state).left_out == ["roi_heads.mask_head.predictor.weight"]


def test_a_detector_with_its_pyramid(tmp_path: Path) -> None:
    config = tiny.detector(blocks=detection(stages(depths=(1, 2, 1, 1), embed_dim=8), 8), output_norms=(0, 1, 2, 3))
    pyramid = PyramidBackbone(tiny.model(config), 4)
    found = inspect_weights(save_weights(pyramid, tmp_path / "model.pkl", dialect="detectron2"))
    assert found.parameters == sum(p.numel() for p in pyramid.parameters())
    assert (found.task, found.missing, found.superfluous) == ("detection backbone", [], [])


def test_our_own_files_tell_their_classes(tmp_path: Path) -> None:
    model = tiny.model(tiny.image())
    model.card = {"classes": list("abcde"), "preprocessing": mvitv2.preprocessing.DIGITS.to_dict()}
    found = inspect_weights(save_weights(model, tmp_path / "model.safetensors"))
    assert (found.dialect, found.classes, found.container) == ("mvitv2", list("abcde"), "safetensors")
    assert found.preprocessing == model.card["preprocessing"]
    assert found.assumed == []


def test_conventions_are_what_differs_from_the_default() -> None:
    conventions = inspect_weights(state_of("mvitv2_b_cls", "timm")).conventions
    assert conventions["residual_pooling"] == "all"
    assert conventions["readout"] == "class_token"
    assert "mlp_ratio" not in conventions and "blocks" not in conventions


def test_an_inspection_is_plain_data() -> None:
    text = json.dumps(asdict(inspect_weights(state_of("rev_mvit_b", "slowfast"))))
    assert json.loads(text)["variant"] == "rev_mvit_b"


def test_features_without_a_classifier() -> None:
    state = {name: value for name, value in state_of("mvitv2_t", "timm").items() if not name.startswith("head.")}
    found = inspect_weights(state)
    assert (found.task, found.num_classes, found.variant) == ("image features", 0, "mvitv2_t")


def test_no_weights_of_an_mvit() -> None:
    with pytest.raises(DialectError, match="none of 1 names is an MViT's"):
        inspect_weights({"layer4.0.conv1.weight": torch.zeros(1)})


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_named_by_their_architecture(name: str) -> None:
    assert variant_of(VARIANTS[name]) == name
