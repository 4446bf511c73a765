"""Writing for other codebases: only what they can hold, with what they would compute, and whole or not at all."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import mvitv2
from mvitv2.core.config import MViTConfig
from mvitv2.core.pyramid import Features, PyramidBackbone
from mvitv2.core.stages import detection, stages
from mvitv2.variants import VARIANTS
from mvitv2.weights import dialects, files
from mvitv2.weights.expressible import READ_BACK, obstacles
from mvitv2.weights.save import NotExpressible, save_weights
from tests import tiny

THEIRS = [name for name in dialects.DIALECTS if name != "mvitv2"]
CLASS_TOKEN = tiny.CLASS_TOKEN
V1: dict[str, Any] = {"rel_pos_spatial": False, "rel_pos_temporal": False, "residual_pooling": "none"}


def image(**changes: Any) -> MViTConfig:
    return tiny.image(**{"input_size": (32, 32), **changes})


def detector(**changes: Any) -> MViTConfig:
    blocks = detection(stages(depths=(1, 2, 1, 1), embed_dim=8), 8)
    return tiny.detector(**{"blocks": blocks, "output_norms": (0, 1, 2, 3), **changes})


IMAGE_HOLDERS = {"official", "slowfast", "timm", "mmpretrain"}
CLIP_HOLDERS = {"slowfast", "torchvision", "mmaction2"}
V1_HOLDERS = {"slowfast", "torchvision", "pytorchvideo"}
HOLDERS = {
    **{n: IMAGE_HOLDERS for n in ("mvitv2_t", "mvitv2_s", "mvitv2_b", "mvitv2_l")},
    **{n: {"official", "slowfast", "timm"} for n in VARIANTS if "_cls" in n},
    **{n: CLIP_HOLDERS for n in VARIANTS if n.endswith(("16x4", "32x3", "40x3"))},
    **{n: V1_HOLDERS for n in VARIANTS if n.startswith("mvitv1")},
    **{n: {"slowfast"} for n in VARIANTS if n.startswith("rev_")},
    **{n: {"detectron2"} for n in VARIANTS if n.endswith("_det")},
    "mvitv1_b": {"official", "slowfast", "pytorchvideo"},
}
"""Who has the parameters of each published model."""


@pytest.mark.parametrize("name", VARIANTS)
def test_who_can_hold_a_variant(name: str) -> None:
    assert {dialect for dialect in THEIRS if not obstacles(VARIANTS[name], dialect)[0]} == HOLDERS[name]


DIFFERENT_NUMBERS = {
    ("mvitv2_l_40x3", "torchvision"): "displacement_order",  # 39 queries on 10 keys, at 312 pixels
    **{(n, "timm"): "residual_pooling" for n in VARIANTS if "_cls" in n},
    **{(f"maskfeat_{size}_16x4", other): "readout" for size in "sl" for other in ("torchvision", "mmaction2")},
}
"""Pairs that would compute something else, and the convention they disagree on."""


@pytest.mark.parametrize("name", VARIANTS)
def test_who_would_compute_something_else(name: str) -> None:
    for dialect in HOLDERS[name]:
        numbers = obstacles(VARIANTS[name], dialect)[1]
        expected = DIFFERENT_NUMBERS.get((name, dialect))
        assert [text.split("=")[0] for text in numbers] == ([expected] if expected else [])


@pytest.mark.parametrize("name", VARIANTS)
def test_settings_read_back_give_the_same_blocks(name: str) -> None:
    for dialect in HOLDERS[name]:
        assert len(READ_BACK[dialect](VARIANTS[name]).blocks) == len(VARIANTS[name].blocks)


IN_STAGES = stages(depths=(1, 2, 1), embed_dim=8)
REFUSED: dict[str, tuple[str, MViTConfig, str]] = {
    "clips for images": ("timm", tiny.clip(), "it is for images, this model for clips"),
    "images for clips": ("torchvision", image(), "it is for clips, this model for images"),
    "a classifier": ("detectron2", image(), "a backbone without classifier; load into a detection variant"),
    "windows": ("official", detector(), r"blocks\[0\]\.window=8, there None"),
    "levels": ("timm", image(output_norms=(0,)), r"output_norms=\(0,\), there \(\)"),
    "reversible": ("timm", tiny.reversible(), "reversible="),
    "batch norm": ("slowfast", tiny.clip(norm="batch"), "norm='batch', there 'layer'"),
    "layer scale": ("slowfast", tiny.clip(layer_scale=0.1), r"layer_scale=0\.1, there None"),
    "stem norm": ("torchvision", tiny.clip(norm_stem=True), "norm_stem=True, there False"),
    "pool first": ("timm", image(pool_first=True), "pool_first=True"),
    "max pooling": ("mmpretrain", image(pool_mode="max"), "pool_mode='max', there 'conv'"),
    "no biases": ("official", image(linear_bias=False), "linear_bias=False, there True"),
    "no bias of queries": ("torchvision", tiny.clip(qkv_bias=False), "qkv_bias=False, there True"),
    "another MLP": ("torchvision", tiny.clip(mlp_ratio=2.0), r"mlp_ratio=2\.0, there 4\.0"),
    "four channels": ("torchvision", tiny.clip(in_channels=4), "in_channels=4, there 3"),
    "no class token": ("torchvision", tiny.clip(class_token=False, readout="norm_mean"), "class_token=False"),
    "a class token": ("mmpretrain", image(**CLASS_TOKEN), "class_token=True, there False"),
    "both positions": ("torchvision", tiny.clip(abs_pos="separable"), "abs_pos='separable', there 'none'"),
    "no positions": ("pytorchvideo", tiny.clip(**V1), "abs_pos='none', there 'joint'"),
    "relative positions": ("pytorchvideo", tiny.clip(abs_pos="separable"), "rel_pos_spatial=True, there False"),
    "one axis only": ("mmaction2", tiny.clip(rel_pos_temporal=False), "rel_pos_temporal=False, there True"),
    "selective queries": (
        "timm",
        image(blocks=stages(depths=(1, 2, 1), embed_dim=8, pool_every_query=False)),
        r"blocks\[0\]\.q_kernel=None, there \(3, 3\)",
    ),
    "uneven widths": (
        "mmpretrain",
        image(blocks=stages(depths=(1, 2, 1), embed_dim=(8, 24, 48), num_heads=(1, 2, 4))),
        r"blocks\[1\]\.dim_attn=24, there 16",
    ),
    "sizes no cfg can say": ("official", tiny.image(), r"input_size=\(32, 48\), there \(48, 48\)"),
    "square tables": ("torchvision", tiny.clip(input_size=(4, 32, 64)), "position tables of block 0 have"),
    "two stages": ("detectron2", tiny.detector(), r"blocks\[4\]\.kv_stride"),
}


@pytest.mark.parametrize("dialect, config, reason", REFUSED.values(), ids=REFUSED)
def test_refused_with_the_reason(dialect: str, config: MViTConfig, reason: str, tmp_path: Path) -> None:
    with pytest.raises(NotExpressible, match=rf"^{dialect} cannot hold this model: .*{reason}"):
        save_weights(tiny.model(config), tmp_path / "model", dialect=dialect)
    assert not list(tmp_path.iterdir())


def test_all_reasons_are_given() -> None:
    config = tiny.clip(qkv_bias=False, mlp_ratio=2.0, norm_stem=True)
    reasons, _ = obstacles(config, "torchvision")
    assert [text.split("=")[0] for text in reasons] == ["norm_stem", "qkv_bias", "mlp_ratio"]


CUBES: dict[str, Any] = {"kernel": (3, 3, 3), "q_stride": (1, 2, 2), "kv_stride": (1, 4, 4)}
OTHER_NUMBERS: dict[str, tuple[str, MViTConfig, str]] = {
    "class token": ("timm", image(**CLASS_TOKEN), "residual_pooling='grid', there 'all'"),
    "everybody": ("slowfast", tiny.clip(residual_pooling="all"), "residual_pooling='all', there 'grid'"),
    "paper": ("official", image(position_scale="paper"), "position_scale='paper', there 'code'"),
    "masked windows": ("detectron2", detector(window_padding="masked"), "window_padding='masked'"),
    "another norm": ("official", image(norm_eps=1e-5), "norm_eps=1e-05, there 1e-06"),
    "readout": ("torchvision", tiny.clip(readout="mean_norm"), "readout='mean_norm', there 'class_token'"),
    "norms beside": ("mmpretrain", image(output_norms=(1,)), "feed_output_norms=False, there True"),
    "order of sums": (
        "torchvision",
        tiny.clip(blocks=stages(depths=(1,), embed_dim=8, **CUBES), input_size=(2, 156, 156)),
        "displacement_order='authors', there 'torchvision', which differ for 39 queries on 10 keys",
    ),
}


@pytest.mark.parametrize("dialect, config, reason", OTHER_NUMBERS.values(), ids=OTHER_NUMBERS)
def test_other_numbers_are_refused_unless_asked_for(
    dialect: str, config: MViTConfig, reason: str, tmp_path: Path
) -> None:
    model, path = tiny.model(config), tmp_path / "model"
    with pytest.raises(NotExpressible, match=f"would compute something else with these weights: .*{reason}"):
        save_weights(model, path, dialect=dialect)
    assert save_weights(model, path, dialect=dialect, allow_other_numbers=True) == path


FILES: dict[str, tuple[MViTConfig, str, str]] = {
    "mvitv2": (image(), "safetensors", ""),
    "official": (image(), "torch zip", "model_state"),
    "slowfast": (tiny.clip(), "torch zip", "model_state"),
    "detectron2": (detector(), "raw pickle", "model"),
    "timm": (image(), "safetensors", ""),
    "torchvision": (tiny.clip(), "torch zip", ""),
    "mmpretrain": (image(), "torch zip", "state_dict"),
    "mmaction2": (tiny.clip(), "torch zip", "state_dict"),
    "pytorchvideo": (tiny.clip(**{**V1, "abs_pos": "separable"}), "torch zip", "model_state"),
}


@pytest.mark.parametrize("dialect", FILES)
def test_containers_are_the_codebases_own(dialect: str, tmp_path: Path) -> None:
    config, container, wrapper = FILES[dialect]
    path = save_weights(tiny.model(config), tmp_path / "model", dialect=dialect)
    stored = files.read(path)
    assert (stored.container, stored.wrapper, stored.left_out) == (container, wrapper, ())
    assert set(FILES) == set(dialects.DIALECTS)


@pytest.mark.parametrize("dialect", FILES)
def test_equal_models_give_equal_files(dialect: str, tmp_path: Path) -> None:
    model = tiny.model(FILES[dialect][0])
    first, second = (save_weights(model, tmp_path / name, dialect=dialect).read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("dialect", FILES)
def test_written_and_loaded_again(dialect: str, tmp_path: Path) -> None:
    model = tiny.model(FILES[dialect][0])
    model.card["classes"] = list("abcde")
    again: Any = mvitv2.load_model(save_weights(model, tmp_path / "model", dialect=dialect))
    pixels = tiny.pixels(model.config)
    torch.testing.assert_close(again(pixels), model(pixels), rtol=1e-5, atol=1e-5)
    told = [] if dialect == "torchvision" or not model.config.num_classes else list("abcde")
    assert again.card["classes"] == told


def test_the_authors_find_their_configuration(tmp_path: Path) -> None:
    config = tiny.clip(pool_mode="max", readout="mean_norm", head_activation="softmax")
    path = save_weights(tiny.model(config), tmp_path / "model.pyth", dialect="slowfast")
    cfg = yaml.safe_load(files.read(path).metadata["cfg"])
    assert (cfg["MVIT"]["MODE"], cfg["MVIT"]["USE_MEAN_POOLING"]) == ("max", True)
    assert (cfg["MVIT"]["DEPTH"], cfg["DATA"]["NUM_FRAMES"], cfg["MODEL"]["NUM_CLASSES"]) == (3, 4, 5)
    assert cfg["MODEL"]["HEAD_ACT"] == "softmax"


def test_positions_that_slowfast_adds_twice(tmp_path: Path) -> None:
    blocks = stages(depths=(1,), embed_dim=16, **CUBES)
    model = tiny.model(tiny.clip(blocks=blocks, abs_pos="joint", abs_pos_init="sincos"))
    path = save_weights(model, tmp_path / "model.pyth", dialect="slowfast")
    assert torch.equal(files.read(path).tensors["pos_embed"], model.pos_embed / 2)
    again: Any = mvitv2.load_model(path)
    assert torch.equal(again.pos_embed, model.pos_embed)


def test_three_projections_are_joined_for_those_with_one(tmp_path: Path) -> None:
    model = tiny.model(tiny.clip(separate_qkv=True))
    path = save_weights(model, tmp_path / "model.pth", dialect="mmaction2")
    assert "backbone.blocks.0.attn.qkv.weight" in files.read(path).tensors
    again, pixels = mvitv2.load_model(path), tiny.pixels(model.config)
    torch.testing.assert_close(again(pixels), model(pixels), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("dialect", ["pytorchvideo", "mmaction2"])
def test_parameters_that_are_added_have_the_models_type(dialect: str, dtype: torch.dtype, tmp_path: Path) -> None:
    added = {"mmaction2": tiny.clip(class_token=False, readout="norm_mean")}
    config = added.get(dialect, image(**{**V1, "abs_pos": "joint"}))
    path = save_weights(tiny.model(config).to(dtype), tmp_path / "model", dialect=dialect)
    assert {value.dtype for value in files.read(path).tensors.values()} == {dtype}


def test_prefixes_may_be_chosen(tmp_path: Path) -> None:
    model = tiny.model(detector())
    names = {
        prefix: set(files.read(save_weights(model, tmp_path / "x.pkl", dialect="detectron2", prefix=prefix)).tensors)
        for prefix in (None, "", "backbone.")
    }
    assert "backbone.bottom_up.scale2_norm.weight" in names[None]
    assert "scale2_norm.weight" in names[""]
    assert "backbone.scale2_norm.weight" in names["backbone."]


def test_a_pyramid_is_detectron2s_or_ours(tmp_path: Path) -> None:
    pyramid = PyramidBackbone(tiny.model(detector()), 4)
    path = save_weights(pyramid, tmp_path / "model.pkl", dialect="detectron2")
    names = set(files.read(path).tensors)
    assert len(names) == len(pyramid.state_dict())
    assert {"backbone.fpn_lateral2.weight", "backbone.bottom_up.blocks.0.attn.rel_pos_h"} <= names
    for dialect in ("official", "timm", "mmpretrain"):
        with pytest.raises(NotExpressible, match="it has no feature pyramid; save the pyramid's bottom_up"):
            save_weights(pyramid, tmp_path / "no", dialect=dialect)


def test_what_is_no_model_of_ours(tmp_path: Path) -> None:
    for stranger in (nn.Linear(1, 1), Features(tiny.model(image()))):
        with pytest.raises(
            ValueError, match=f"expected an MViT, a PyramidBackbone or a Detector, got {type(stranger).__name__}"
        ):
            save_weights(stranger, tmp_path / "model")
    with pytest.raises(ValueError, match="dialect 'keras' is none of mvitv2, official"):
        save_weights(tiny.model(image()), tmp_path / "model", dialect="keras")
    assert not list(tmp_path.iterdir())


def test_the_old_file_stays_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(tiny.model(image()), path, dialect="timm")
    before = path.read_bytes()
    with pytest.raises(NotExpressible):
        save_weights(tiny.model(tiny.clip()), path, dialect="timm")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
