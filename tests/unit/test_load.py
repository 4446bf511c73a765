"""Loading: strict and total, whatever a state dict comes in, and everything that was changed is said."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import mvitv2
from mvitv2.core.config import MViTConfig
from mvitv2.core.positions import sincos_positions
from mvitv2.core.pyramid import PyramidBackbone
from mvitv2.core.stages import detection, stages
from mvitv2.models import backbone
from mvitv2.weights.convert import State
from mvitv2.weights.load import load_into
from mvitv2.weights.peers.slowfast_settings import official_settings, slowfast_settings
from mvitv2.weights.rename import DialectError
from mvitv2.weights.save import save_weights, translated
from tests import tiny

CLASS_TOKEN = tiny.CLASS_TOKEN
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def image(**changes: Any) -> MViTConfig:
    """A small image model whose input is square, as the authors' code wants it."""
    return tiny.image(**{"input_size": (32, 32), **changes})


def detector() -> MViTConfig:
    """Four stages, which is what detectron2's code counts on."""
    blocks = detection(stages(depths=(1, 2, 1, 1), embed_dim=8), 8)
    return tiny.detector(blocks=blocks, output_norms=(0, 1, 2, 3))


def theirs(config: MViTConfig, dialect: str, model: Any = None) -> State:
    """A model's state dict as that codebase has it."""
    state = (model or tiny.model(config)).state_dict()
    return translated(dict(state), config, dialect, other_numbers=True)[0]


def loaded(source: Any, **options: Any) -> Any:
    return mvitv2.load_model(source, **options)


def said(model: Any) -> str:
    return "; ".join(backbone(model).card["loading"])


def same_weights(model: Any, state: Mapping[str, Tensor]) -> bool:
    mine = model.state_dict()
    return mine.keys() == state.keys() and all(torch.equal(mine[name], value) for name, value in state.items())


def test_everything_wrong_is_in_one_error() -> None:
    state = theirs(image(), "official")
    del state["norm.weight"], state["blocks.2.attn.rel_pos_w"]
    state["blocks.1.attn.extra.weight"] = torch.zeros(1)
    state["blocks.0.norm1.bias"] = torch.zeros(5)
    state["blocks.3.mlp.fc1.bias"] = state["blocks.3.mlp.fc1.bias"].long()
    with pytest.raises(DialectError) as caught:
        loaded(state)
    message = str(caught.value)
    assert "missing: blocks.2.attn.rel_pos_w" in message
    assert "superfluous: blocks.1.attn.extra.weight, norm.bias" in message
    assert "mis-shaped: blocks.0.norm1.bias is (5,), expected (8,)" in message
    assert "no real numbers: blocks.3.mlp.fc1.bias is torch.int64" in message


def test_names_that_fit_nothing_are_all_named(tmp_path: Path) -> None:
    state = {**theirs(image(), "timm"), "foo.weight": torch.zeros(1), "bar": torch.zeros(1)}
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(DialectError, match=r"^odd\.pth: 2 names are no timm MViT names: foo\.weight, bar$"):
        loaded(tmp_path / "odd.pth")


def test_a_batch_norms_counter_is_refused_where_there_is_no_batch_norm() -> None:
    state = {
        **theirs(image(), "official"),
        "blocks.0.norm1.num_batches_tracked": torch.zeros((), dtype=torch.long),
    }
    with pytest.raises(DialectError, match=r"superfluous: blocks\.0\.norm1\.num_batches_tracked"):
        loaded(state)
    model = loaded(state, ignore=["*.num_batches_tracked"])
    assert "ignored 1 superfluous tensors, first blocks.0.norm1.num_batches_tracked" in said(model)


def test_ignored_names_keep_their_initial_values() -> None:
    state = theirs(image(), "official")
    del state["blocks.2.norm2.bias"]
    with pytest.raises(DialectError, match=r"missing: blocks\.2\.norm2\.bias"):
        loaded(state)
    model = loaded(state, ignore=["blocks.2.*"])
    assert "kept 1 tensors as they were, first blocks.2.norm2.bias" in said(model)
    assert not any(p.is_meta for p in model.parameters())
    assert not model.blocks[2].norm2.bias.any()


def test_another_architecture_is_told_in_a_sentence() -> None:
    with pytest.raises(DialectError, match=r"with 4 blocks.*with 3 blocks"):
        load_into(tiny.model(tiny.clip()), theirs(image(), "official"))


@pytest.mark.parametrize("classes", [0, 5, 9])
def test_the_classifier_goes_only_with_another_number(classes: int) -> None:
    state = theirs(image(), "timm")
    model = loaded(state, num_classes=classes)
    expected = {5: "", 0: "classifier of 5 classes dropped", 9: "classifier of 5 classes replaced by a new one of 9"}
    assert expected[classes] in said(model)
    assert ("classifier" in said(model)) == (classes != 5)
    assert model.config.num_classes == classes
    kept = classes and torch.equal(model.head.projection.weight, state["head.fc.weight"][:classes])
    assert bool(kept) == (classes == 5)
    pixels = tiny.pixels(model.config)
    assert model(pixels).shape == (2, classes or 32)


def test_a_file_without_classifier() -> None:
    state = {name: value for name, value in theirs(image(), "timm").items() if not name.startswith("head")}
    assert loaded(state).config.num_classes == 0
    assert "classifier of 0 classes replaced by a new one of 3" in said(loaded(state, num_classes=3))


def test_names_of_classes_stay_with_their_number(tmp_path: Path) -> None:
    model = tiny.model(image())
    model.card["classes"] = list("abcde")
    path = save_weights(model, tmp_path / "model.safetensors")
    assert loaded(path).card["classes"] == list("abcde")
    assert loaded(path, num_classes=2).card["classes"] == []


@pytest.mark.parametrize("channels", [1, 4, 5])
def test_other_channels(channels: int) -> None:
    model = loaded(theirs(image(), "official"), in_chans=channels)
    assert model(tiny.pixels(model.config)).isfinite().all()
    assert f"stem adapted from 3 to {channels} input channels" in said(model)
    assert model.card["preprocessing"]["channels"] == ("gray" if channels == 1 else "rgb")


@pytest.mark.parametrize("size", [64, 24, (96, 40)])
def test_another_size_is_what_every_size_gives_at_run_time(size: Any) -> None:
    state = theirs(image(), "official")
    there, here = loaded(state, img_size=size), loaded(state)
    pixels = tiny.pixels(there.config)
    torch.testing.assert_close(there(pixels), here(pixels), **CLOSE)
    assert "relative position tables resampled (linear)" in said(there)
    assert tuple(there.card["preprocessing"]["size"]) == there.config.input_size


def test_anchored_sizes() -> None:
    state = theirs(image(), "official")
    anchored = {"img_size": 64, "resampling": "anchored"}
    there, here = loaded(state, **anchored), loaded(state, table_resampling="anchored")
    pixels = tiny.pixels(there.config)
    torch.testing.assert_close(there(pixels), here(pixels), **CLOSE)


def test_other_frames() -> None:
    model = loaded(theirs(tiny.clip(), "slowfast"), num_frames=8, img_size=64)
    assert model.config.input_size == (8, 64, 64)
    assert model.card["preprocessing"]["num_frames"] == 8
    assert model(tiny.pixels(model.config)).isfinite().all()
    with pytest.raises(ValueError, match="num_frames=8 for a model of images"):
        loaded(theirs(image(), "official"), num_frames=8)


def test_fields_that_there_are_not() -> None:
    with pytest.raises(TypeError, match=r"\['drop', 'nonsense'\] are neither arguments of load_model nor fields"):
        loaded(theirs(image(), "official"), nonsense=1, drop=2)


def test_a_convention_set_otherwise_is_said() -> None:
    model = loaded(theirs(image(), "official"), residual_pooling="none")
    assert "residual_pooling='none', not 'grid'" in said(model)
    assert model.config.residual_pooling == "none"


def test_nothing_shares_memory_with_a_mapping() -> None:
    state = theirs(image(), "official")
    before = {name: value.clone() for name, value in state.items()}
    model = loaded(state)
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
    assert all(torch.equal(state[name], value) for name, value in before.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_of_any_precision(dtype: torch.dtype) -> None:
    state = {name: value.to(dtype) for name, value in theirs(image(), "official").items()}
    model = loaded(state, img_size=64)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert same_weights(loaded(state), {name: value.float() for name, value in state.items()})


STATE = theirs(image(), "official")
WRAPPINGS: dict[str, Any] = {
    "bare": STATE,
    "model_state": {"model_state": STATE, "epoch": 3, "optimizer_state": {"state": {}}},
    "ema": {"ema": STATE, "step": 7},
    "model_ema": {"model_ema": {f"module.{name}": value for name, value in STATE.items()}},
    "ddp": {f"module.{name}": value for name, value in STATE.items()},
    "compiled": {"state_dict": {f"_orig_mod.{name}": value for name, value in STATE.items()}},
    "both": {f"module._orig_mod.{name}": value for name, value in STATE.items()},
    "epoch beside": {**STATE, "epoch": 3},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wherever_the_state_dict_lies(wrapping: str, tmp_path: Path) -> None:
    source = WRAPPINGS[wrapping]
    torch.save(source, tmp_path / "model.pth")
    assert same_weights(loaded(source), STATE)
    assert same_weights(loaded(tmp_path / "model.pth"), STATE)


def test_arrays_of_numpy() -> None:
    """What unpickling detectron2's files gives."""
    config = detector()
    arrays = {name: value.numpy() for name, value in theirs(config, "detectron2").items()}
    model = loaded({"model": arrays, "__author__": "someone"}, config=config)
    assert isinstance(arrays["backbone.bottom_up.patch_embed.proj.weight"], np.ndarray)
    assert model(tiny.pixels(config)) is not None


@pytest.mark.parametrize("source", [{}, {"epoch": 3}, {"state_dict": {"a": 1}}], ids=str)
def test_a_mapping_without_tensors(source: dict[str, Any]) -> None:
    with pytest.raises(DialectError, match="expected names and tensors"):
        loaded(source)


def test_tensors_without_numbers() -> None:
    state = {**theirs(image(), "official"), "norm.bias": torch.zeros(0), "norm.weight": torch.zeros(0, 8)}
    with pytest.raises(DialectError, match=r"2 tensors hold no numbers: norm\.weight, norm\.bias"):
        loaded(state)


def test_tensors_of_another_model() -> None:
    with pytest.raises(DialectError, match="none of 1 names is an MViT's"):
        loaded({"conv1.weight": torch.zeros(1)})


def test_a_dialect_that_there_is_not() -> None:
    with pytest.raises(DialectError, match="dialect 'keras' is none of mvitv2, official"):
        loaded(STATE, dialect="keras")


def test_a_dialect_given() -> None:
    """An image model of SlowFast has the names of facebookresearch/mvit; its user may know better."""
    model = loaded(theirs(image(), "slowfast"), dialect="slowfast")
    assert model.card["provenance"]["dialect"] == "slowfast"
    assert model.config.init == "video"


def with_cfg(config: MViTConfig, settings: Mapping[str, Any], dialect: str) -> dict[str, Any]:
    return {"model_state": theirs(config, dialect), "cfg": yaml.safe_dump(dict(settings)), "epoch": 1}


def test_conventions_stored_in_the_file(tmp_path: Path) -> None:
    """No tensor tells these, the authors' configuration does; keys nobody knows are no hindrance."""
    config = tiny.clip(residual_pooling="none", readout="mean_norm", head_activation="sigmoid", drop_path=0.3)
    settings = slowfast_settings(config)
    settings["MVIT"] |= {"SOMETHING_NEW": 3, "NORM": "layernorm"}
    settings["TENSORBOARD"] = {"ENABLE": False}
    source = with_cfg(config, settings, "slowfast")
    torch.save(source, tmp_path / "model.pyth")
    for where in (source, tmp_path / "model.pyth"):
        model = loaded(where)
        found = model.config
        assert (found.residual_pooling, found.readout) == ("none", "mean_norm")
        assert (found.head_activation, found.drop_path) == ("sigmoid", 0.3)
        assert model.card["provenance"]["dialect"] == "slowfast"


@pytest.mark.parametrize("pool_mode", ["avg", "max"])
def test_poolings_without_weights_need_the_configuration(pool_mode: str) -> None:
    config = image(pool_mode=pool_mode)
    source = with_cfg(config, official_settings(config), "official")
    assert loaded(source).config.pool_mode == pool_mode
    with pytest.raises(DialectError, match=r"pools without weights.*give the configuration"):
        loaded(source["model_state"])
    assert loaded(source["model_state"], config=config).config == config


def test_tensors_outweigh_the_stored_configuration() -> None:
    """MaskFeat's pre-training has neither classifier nor last norm, whatever its configuration says."""
    config = tiny.clip()
    source = with_cfg(config, slowfast_settings(config), "slowfast")
    state = source["model_state"]
    for name in [n for n in state if n.startswith(("head.", "norm."))]:
        del state[name]
    beside = {"mask_token": (1, 1, 8), "pred_head.transforms.0.0.weight": (16,), "hogs.0.weight_x": (3, 1, 3, 3)}
    state |= {name: torch.zeros(size) for name, size in beside.items()}
    model = loaded(source)
    assert (model.config.num_classes, model.config.final_norm) == (0, False)
    assert "left out 3 tensors that are not the backbone's, first hogs.0.weight_x" in said(model)
    assert loaded({"model_state": state}).config.blocks == model.config.blocks


@pytest.mark.parametrize(
    "change, message",
    [
        ({"MVIT": {"DEPTH": 10}}, "of 10 blocks, its tensors are of 4"),
        ({"MVIT": {"DEPTH": 10**9}, "MODEL": {"NUM_CLASSES": "x"}}, r"MVIT\.DEPTH=1000000000, MODEL\.NUM_CLASSES=x"),
        ({"MVIT": {"EMBED_DIM": -1}}, "must be 1 or more|no model"),
        ({"DATA": {}}, "lacks something: KeyError"),
        ({"MVIT": {"POOL_Q_STRIDE": [3]}}, "lacks something"),
        ({"MVIT": {"POOL_Q_STRIDE": [[0, 1, 1], [1, 2]]}}, "needs 2 numbers"),
    ],
)
def test_stored_configurations_that_fit_nothing(change: dict[str, Any], message: str) -> None:
    config = image()
    settings = official_settings(config)
    for part, values in change.items():
        settings[part] = {**settings[part], **values} if values else {}
    with pytest.raises(DialectError, match=message):
        loaded(with_cfg(config, settings, "official"))


def test_a_stored_configuration_that_is_no_yaml() -> None:
    with pytest.raises(DialectError, match="is no YAML"):
        loaded({"model_state": STATE, "cfg": "MVIT: [1, 2"})
    with pytest.raises(DialectError, match="has 2000008 characters"):
        loaded({"model_state": STATE, "cfg": f"MVIT: '{'a' * 2_000_000}'"})


def test_a_stored_configuration_of_something_else() -> None:
    """Other models of SlowFast have an MVIT part too; text without one says nothing."""
    assert same_weights(loaded({"model_state": STATE, "cfg": "RESNET: {DEPTH: 50}"}), STATE)
    assert same_weights(loaded({"model_state": STATE, "cfg": "MVIT: 3"}), STATE)


def test_parts_of_openmmlabs_pretraining_are_left_out() -> None:
    state = theirs(tiny.clip(), "mmaction2")
    state |= {name: torch.zeros(2) for name in ("backbone.mask_token", "neck.decoder.weight", "data_preprocessor.mean")}
    assert "left out 3 tensors that are not the backbone's, first data_preprocessor.mean" in said(loaded(state))


def test_stages_that_are_not_whole() -> None:
    """A number of a billion stages costs no time."""
    state = theirs(image(), "timm")
    for name in ("stages.1000000000.blocks.0.norm1.weight", "stages.1.blocks.7.norm1.weight"):
        with pytest.raises(DialectError, match="stages or blocks are missing"):
            loaded({**state, name: torch.zeros(8)})


def test_heads_of_a_detector_are_left_out() -> None:
    config = detector()
    pyramid = PyramidBackbone(tiny.model(config), 4, norm="LN")
    state = translated(dict(pyramid.state_dict()), config, "detectron2")[0]
    state |= {name: torch.zeros(2) for name in ("roi_heads.box_head.fc1.weight", "proposal_generator.anchors.0")}
    model = loaded(state, config=config)
    assert isinstance(model, PyramidBackbone)
    assert "left out 2 tensors that are not the backbone's, first proposal_generator.anchors.0" in said(model)
    pixels = tiny.pixels(config)
    torch.testing.assert_close(model(pixels), pyramid.eval()(pixels), **CLOSE)


def test_a_backbone_under_a_detectors_names() -> None:
    config = detector()
    state = theirs(config, "detectron2")
    assert all(name.startswith("backbone.bottom_up.") for name in state)
    model = loaded(state, config=config)
    assert not isinstance(model, PyramidBackbone)
    assert model.config == config


def test_the_windows_of_a_detector_are_assumed() -> None:
    assert "assumed attention windows of 16 tokens" in said(loaded(theirs(detector(), "detectron2")))


def test_our_own_state_dict_of_a_detector() -> None:
    """Its levels have norms under names that nobody else has; windows are assumed as for detectron2's files."""
    pyramid = PyramidBackbone(tiny.model(detector()), 4).eval()
    for model in (pyramid.bottom_up, pyramid):
        again = loaded(model.state_dict(), config=detector())
        assert backbone(again).card["provenance"]["dialect"] == "mvitv2"
        pixels = tiny.pixels(detector())
        torch.testing.assert_close(again(pixels), model(pixels), **CLOSE)
    assert "assumed attention windows of 16 tokens" in said(loaded(pyramid.state_dict()))


def test_fixed_positions_are_told_by_their_values() -> None:
    """SlowFast adds its fixed table twice; a learned one of the same shape it adds once."""
    blocks = stages(depths=(1, 2), embed_dim=16, kernel=(3, 3, 3), q_stride=(1, 2, 2), kv_stride=(1, 4, 4))
    config = tiny.clip(blocks=blocks, abs_pos="joint")
    state = theirs(config, "slowfast")
    assert loaded(state).config.abs_pos_init == "learned"
    state["pos_embed"] = torch.cat((torch.zeros(1, 16), sincos_positions(16, (2, 8, 8)).float()))[None]
    model = loaded(state)
    assert model.config.abs_pos_init == "sincos"
    assert torch.equal(model.pos_embed, 2 * state["pos_embed"])


def test_classifier_to_detector() -> None:
    """As detectron2's large models start: a classifier with class token becomes a backbone with windows."""
    blocks = stages(depths=(2, 3), embed_dim=8, kv_stride=(2, 2))
    source = image(blocks=blocks, **CLASS_TOKEN)
    target = tiny.detector(blocks=detection(blocks, 4))
    model = load_into(tiny.model(target), theirs(source, "official"))
    text = said(model)
    assert "class token dropped" in text
    assert "classifier of 5 classes dropped" in text
    assert "the norm before the classifier dropped" in text
    assert "4 parameters of output norms start fresh" in text
    assert "relative position tables resampled" in text
    assert model(tiny.pixels(target)).isfinite().all()


def test_image_file_with_an_axis_of_time_becomes_a_clip() -> None:
    """The released image files hold pooling kernels (C, 1, 1, kh, kw)."""
    blocks = stages(depths=(1, 2, 1), embed_dim=8, kernel=(3, 3, 3), q_stride=(1, 2, 2), kv_stride=(1, 4, 4))
    target = tiny.clip(blocks=blocks, input_size=(8, 32, 32), class_token=False, readout="norm_mean")
    model = tiny.model(image())
    state = theirs(model.config, "slowfast", model)
    assert state["blocks.0.attn.pool_q.weight"].ndim == 5
    clip = load_into(tiny.model(target), state)
    picture = tiny.pixels(model.config)
    torch.testing.assert_close(clip(picture[:, :, None].expand(-1, -1, 8, -1, -1)), model(picture), **CLOSE)


def test_load_into_keeps_the_models_conventions_and_says_so() -> None:
    """timm adds the pooled query to the class token, the authors do not: the same weights, other numbers."""
    config = image(**CLASS_TOKEN)
    model = load_into(tiny.model(config), theirs(config, "timm"))
    assert model.config == config
    assert "the model differs from the one these weights are of: residual_pooling='grid', not 'all'" in said(model)


def test_load_into_half_precision() -> None:
    model = load_into(tiny.model(image()).half(), STATE)
    assert {p.dtype for p in model.parameters()} == {torch.float16}


def test_our_own_file_keeps_everything(tmp_path: Path) -> None:
    for form, make in tiny.FORMS.items():
        model = tiny.model(make())
        path = save_weights(model, tmp_path / f"{form}.safetensors")
        again = loaded(path)
        assert again.config == model.config
        assert same_weights(again, model.state_dict())
        assert not again.training


@pytest.mark.parametrize("fuse", ["sum", "avg"])
def test_our_own_file_keeps_the_pyramid(fuse: str, tmp_path: Path) -> None:
    config = detector()
    pyramid = PyramidBackbone(tiny.model(config), 4, fuse=fuse, stages=[1]).eval()
    again = loaded(save_weights(pyramid, tmp_path / "model.safetensors"))
    pixels = tiny.pixels(config)
    torch.testing.assert_close(again(pixels), pyramid(pixels), **CLOSE)
    assert (again.fuse_scale, again.stages) == (pyramid.fuse_scale, pyramid.stages)


def test_a_description_of_ours_that_was_edited() -> None:
    for text in ("{", "[]", '{"config": {"blocks": []}, "card": {}}', '{"config": {"nonsense": 1}, "card": {}}'):
        with pytest.raises(DialectError, match="mvitv2_description"):
            loaded({"model_state": STATE, "mvitv2_description": text})


def test_provenance(tmp_path: Path) -> None:
    path = save_weights(tiny.model(image()), tmp_path / "mine.pth", dialect="official")
    model = loaded(path)
    assert model.card["provenance"] == {"file": "mine.pth", "dialect": "official", "variant": None}
    assert loaded(STATE).card["provenance"]["file"] is None


def test_sources_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        loaded(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(mvitv2.weights.files.WeightsFileError, match=r"text\.pth"):
        loaded(tmp_path / "text.pth")


def test_position_tables_of_another_origin_still_run() -> None:
    """Tables longer than the grids need are resampled at run time, as every peer that resizes does."""
    state = theirs(image(), "official")
    for name in [n for n in state if "blocks.2.attn.rel_pos" in n]:
        state[name] = torch.randn(41, 8)
    model = loaded(state)
    assert model.config.blocks[2].table_rows == (41, 41)
    assert model(tiny.pixels(image())).isfinite().all()
