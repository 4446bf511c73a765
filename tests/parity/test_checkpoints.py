"""Checkpoint files of every peer: told apart, loaded, written for every codebase that can hold them, loaded again.

And, for every small fixture: our names of its tensors and back give the peer's own names, shapes and values.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mvitv2
from mvitv2.core.attend import reference
from mvitv2.core.pyramid import PyramidBackbone
from mvitv2.core.reversible import build
from mvitv2.models import backbone
from mvitv2.tasks.actions import RoIClassifier
from mvitv2.weights import dialects, files
from mvitv2.weights.convert import State
from mvitv2.weights.load import load_into
from mvitv2.weights.peers.detectron2 import detectron2_config
from mvitv2.weights.save import NotExpressible, translated

from . import fixtures
from . import parity_weights as pw
from .build import Case, load, peer_config
from .run import arrays, numpy_arrays

ROOT = fixtures.HERE / "checkpoints"
FILES: list[dict[str, Any]] = json.loads((ROOT / "index.json").read_text())["files"]
THEIRS = [name for name in dialects.DIALECTS if name != "mvitv2"]
TASKS = {
    "detectron2": "detection backbone",
    "timm": "image classification",
    "official": "image classification",
    "mmpretrain": "image classification",
    "torchvision": "video classification",
    "mmaction2": "video classification",
    "pytorchvideo": "video classification",
    "slowfast": "video classification",
}


def fixture_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    return pw.load(str(fixtures.path(f"{entry['fixture']}.json")))


def options(fixture: Mapping[str, Any]) -> dict[str, Any]:
    """detectron2's windows leave no trace in names and shapes."""
    if fixture["peer"]["name"] != "detectron2":
        return {}
    return {"config": detectron2_config(fixture["peer_config"]["MViT"])}


def file_id(entry: Mapping[str, Any]) -> str:
    return entry["file"]


@pytest.mark.parametrize("entry", FILES, ids=file_id)
def test_inspect_needs_no_hint(entry: dict[str, Any]) -> None:
    fixture, found = fixture_of(entry), mvitv2.inspect_weights(ROOT / entry["file"])
    peer, detects = fixture["peer"]["name"], "boxes" in fixture["inputs"]
    size = next(iter(fixture["inputs"].values()))["shape"][2:]
    assert found.dialect == entry["peer"] == peer
    assert found.task == ("action detection" if detects else TASKS[peer])
    assert found.input_size == tuple(size if peer != "detectron2" else (64, 64))
    assert found.num_classes == (0 if peer == "detectron2" else 10)
    assert found.parameters == unique_numbers(fixture)
    assert (found.missing, found.left_out) == ([], [])
    assert found.container == ("raw pickle" if entry["file"].endswith(".pkl") else found.container)
    assert found.preprocessing["num_frames"] == (size[0] if len(size) == 3 else None)


def unique_numbers(fixture: Mapping[str, Any]) -> int:
    return sum(int(np.prod(shape)) for _, shape, kind, _ in fixture["tensors"] if not kind.startswith("alias:"))


def loaded(source: Any, fixture: Mapping[str, Any], **fields: Any) -> Case:
    """A file or a state dict as a case of the parity tests, through the public interface."""
    model: nn.Module = mvitv2.load_model(source, **fields).double()
    detection = fixture["peer_config"].get("DETECTION", {})
    if detection.get("ENABLE"):
        scale, resolution = 1 / detection["SPATIAL_SCALE_FACTOR"], detection["ROI_XFORM_RESOLUTION"]
        model = RoIClassifier(backbone(model), scale=scale, resolution=resolution, aligned=detection["ALIGNED"])
    return Case(dict(fixture), fixture["peer"]["name"], backbone(model).config, model)


@pytest.mark.parametrize("entry", FILES, ids=file_id)
def test_load(entry: dict[str, Any]) -> None:
    fixture = fixture_of(entry)
    case = loaded(ROOT / entry["file"], fixture, **options(fixture))
    pw.assert_match(case.fixture, numpy_arrays(arrays(case)), precision="float64", strict=True)


@pytest.mark.parametrize("dialect", THEIRS)
@pytest.mark.parametrize("entry", FILES, ids=file_id)
def test_write_for_everybody_and_load_again(entry: dict[str, Any], dialect: str, tmp_path: Path) -> None:
    fixture = fixture_of(entry)
    model = mvitv2.load_model(ROOT / entry["file"], **options(fixture))
    path = tmp_path / "model"
    holders = HOLDERS[entry["fixture"]]
    if dialect not in holders:
        with pytest.raises(NotExpressible, match=rf"^{dialect} (cannot hold|would compute something else with)"):
            mvitv2.save_weights(model, path, dialect=dialect)
        assert not list(tmp_path.iterdir())
        return
    mvitv2.save_weights(model, path, dialect=dialect)
    if dialect == entry["peer"]:
        assert_same_tensors(files.read(path).tensors, peer_tensors(fixture))
    assert mvitv2.inspect_weights(path).dialect == dialect
    again = mvitv2.load_model(path, head_activation=backbone(model).config.head_activation)
    equal_outputs(model, again, fixture)


IMAGES, CLIPS, CLIPS_V1 = (
    {"official", "slowfast", "timm", "mmpretrain"},
    {"slowfast", "torchvision", "mmaction2"},
    {"slowfast", "torchvision", "pytorchvideo"},
)
HOLDERS = {
    "official/tiny_v2": IMAGES,
    "official/tiny_cls_abs_pos": {"official", "slowfast"},
    "slowfast/tiny_v2": CLIPS,
    "slowfast/tiny_v1_sep_pos": CLIPS_V1,
    "slowfast/rev_tiny": {"slowfast"},
    "slowfast/tiny_ava_roi_aligned": CLIPS,
    "detectron2/tiny_dim8_fpn": {"detectron2"},
    "timm/tiny_cls": {"timm"},
    "timm/tiny_v2": {"timm"},
    "torchvision/tiny_v2": CLIPS,
    "torchvision/tiny_v1": CLIPS_V1,
    "mmpretrain/tiny": IMAGES,
    "mmaction2/tiny": CLIPS,
    "pytorchvideo/tiny": CLIPS_V1,
}
"""Who can hold a fixture's model, by the rules of their own code."""


def peer_tensors(fixture: Mapping[str, Any]) -> State:
    """The peer's own state dict, drawn by the recipe."""
    return {name: torch.from_numpy(values) for name, values in pw.state_arrays(dict(fixture))}


def assert_same_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys() or {f"backbone.{n}" for n in expected} == found.keys()
    prefix = "" if found.keys() == expected.keys() else "backbone."
    for name, value in expected.items():
        mine = found[prefix + name]
        assert mine.shape == value.shape and mine.dtype == value.dtype, name
        assert mine.numpy().tobytes() == value.numpy().tobytes(), name


def equal_outputs(model: nn.Module, again: nn.Module, fixture: Mapping[str, Any]) -> None:
    pixels = torch.from_numpy(next(iter(pw.inputs(dict(fixture)).values())))
    with torch.no_grad():
        torch.testing.assert_close(again(pixels), model(pixels), rtol=1e-5, atol=1e-6)


SMALL = [name for name in fixtures.names(large=False) if not name.startswith("convert/")]
"""Fixtures of ``convert/`` hold another configuration's tensors."""
UNTOLD: dict[str, dict[str, Any]] = {
    "mmaction2/tiny_nocls": {"class_token": False, "readout": "norm_mean"},
    "official/tiny_cls_abs_pos_norel": {"residual_pooling": "grid"},
    "official/tiny_cls_no_residual_pooling": {"residual_pooling": "none"},
    "official/tiny_mlp_ratio_sigmoid": {"head_activation": "sigmoid"},
    "official/tiny_no_residual_pooling": {"residual_pooling": "none"},
    "official/tiny_norel": {"residual_pooling": "grid"},
    "pytorchvideo/tiny_dim_mul_in_att_residual": {"residual_pooling": "all"},
    "quirks/official_built96_run64": {"table_resampling": "first_rows"},
    "quirks/official_built96_run64x96": {"table_resampling": "first_rows"},
    "quirks/timm_built96_run64": {"table_resampling": "first_rows"},
    "slowfast/tiny_ava_roi_aligned": {"head_activation": "sigmoid"},
    "slowfast/tiny_ava_roi_legacy": {"head_activation": "sigmoid"},
    "slowfast/tiny_mean_pooling": {"readout": "mean_norm"},
    "slowfast/tiny_mean_pooling_nocls": {"readout": "mean_norm"},
    "timm/tiny_cls_avg_pool": {"readout": "norm_mean"},
    "timm/tiny_no_residual_pooling": {"residual_pooling": "none"},
    "torchvision/tiny_v2_residual_with_cls": {"residual_pooling": "all"},
}
"""Conventions that no tensor shows and that differ from what published models have, to be given with a word."""
NEEDS_CONFIGURATION = (
    "detectron2/",  # windows
    "_avg",
    "_max",
    "official/tiny_float32_index_156",  # the last block could halve the grid
    "pytorchvideo/tiny_nocls_joint_pos",  # 1024 positions are many clips
    "pytorchvideo/tiny_pool_first",  # the same shapes as pooling last
    "slowfast/rev_tiny_fuse",  # how two streams become one
    "slowfast/rev_tiny_concat_mean_pooling",
    "slowfast/tiny_fixed_sincos",  # recipe values stand where sines would
    "slowfast/tiny_temporal_pooling",  # strides of keys in time
)
"""Parts of the names of fixtures whose architecture does not follow from names and shapes."""
TOLD = [n for n in SMALL if not any(part in n.replace("cls_avg_pool", "") for part in NEEDS_CONFIGURATION)]


@pytest.mark.parametrize("name", TOLD)
def test_names_and_shapes_are_enough(name: str) -> None:
    fixture = pw.load(str(fixtures.path(name)))
    case = loaded(peer_tensors(fixture), fixture, **UNTOLD.get(name.removesuffix(".json"), {}))
    pw.assert_match(fixture, numpy_arrays(arrays(case)), precision="float64", strict=True)


NOT_LOSSLESS = {
    # detectron2 keeps the class token's row of a pre-trained table and never looks at it; it is dropped when read
    "detectron2/tiny_abs_pos_cls_pretrain.json": {"pos_embed"},
    # mmaction2 has the parameter also where it is not used; it is written as zeros
    "mmaction2/tiny_nocls.json": {"backbone.cls_token"},
}


def written(model: nn.Module, case: Case) -> State:
    """The model under the names of the fixture's peer, with the fixture's prefix."""
    prefix = "backbone." if case.fixture["tensors"][0][0].startswith("backbone.") else ""
    config = backbone(model).config
    return translated(dict(model.state_dict()), config, case.peer, prefix=prefix, other_numbers=True)[0]


@pytest.mark.parametrize("name", SMALL)
def test_names_there_and_back(name: str) -> None:
    case = load(fixtures.path(name))
    theirs = written(case.model if isinstance(case.model, PyramidBackbone) else case.backbone, case)
    expected = peer_tensors(case.fixture)
    assert theirs.keys() == expected.keys()
    for key, value in expected.items():
        if key not in NOT_LOSSLESS.get(name, ()):
            assert theirs[key].shape == value.shape, key
            assert torch.equal(theirs[key], value), key


@pytest.mark.parametrize("name", SMALL)
def test_unseen_values_with_the_configuration(name: str) -> None:
    """The peer's names and configuration with other numbers, as in a file nobody here has seen."""
    case = load(fixtures.path(name))
    theirs = {n: v + 0.01 if v.is_floating_point() else v for n, v in peer_tensors(case.fixture).items()}
    found = written(mvitv2.load_model(theirs, config=case.config), case)
    for key, value in theirs.items():
        if key not in NOT_LOSSLESS.get(name, ()):
            assert torch.equal(found[key], value), key


CONVERSIONS = [name for name in fixtures.names(large=False) if name.startswith("convert/")]


@pytest.mark.parametrize("name", CONVERSIONS)
def test_conversions_of_the_peers_own_loaders(name: str) -> None:
    """Their weights in a model of another configuration, through the public interface."""
    fixture = pw.load(str(fixtures.path(name)))
    peer = fixture["peer"]["name"]
    source = peer_config(fixture["source_build"]["peer"], fixture["source_peer_config"])
    target = build(peer_config(peer, fixture["peer_config"]), reference)
    load_into(target, peer_tensors(fixture), config=source, inflation="repeat")
    case = Case(fixture, peer, target.config, target.double().eval())
    pw.assert_match(fixture, numpy_arrays(arrays(case)), precision="float64", strict=True)


def test_what_everybody_writes_is_described(tmp_path: Path) -> None:
    """Conventions, classes and preprocessing travel in every container that has room for them."""
    model = backbone(mvitv2.load_model(ROOT / "official" / "checkpoint_epoch_00005.pyth", num_classes=2))
    model.card["classes"] = ["cat", "dog"]
    for dialect in ("official", "slowfast", "timm", "mmpretrain"):
        path = mvitv2.save_weights(model, tmp_path / dialect, dialect=dialect)
        again = backbone(mvitv2.load_model(path))
        assert again.config == model.config
        assert again.card["classes"] == ["cat", "dog"]
        assert again.card["preprocessing"] == model.card["preprocessing"]
