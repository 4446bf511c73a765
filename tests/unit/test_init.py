"""Initial weights per task: what is drawn, what is constant, and that a seed tells all."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mvitv2.core.attend import reference
from mvitv2.core.init import init_weights
from mvitv2.core.positions import sincos_positions
from mvitv2.core.reversible import build
from tests import tiny


def initial(config: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build(config, reference).state_dict()


def large(**changes: Any) -> dict[str, Tensor]:
    """A model wide enough that statistics mean something."""
    base = tiny.clip()
    return initial(tiny.clip(blocks=tiny.wide(base.blocks, 16), abs_pos="separable", **changes))


IMAGE, VIDEO = large(init="image"), large(init="video")


def kind(name: str) -> str:
    """What a parameter is, by its name."""
    if name.startswith("cls_token") or "pos_embed" in name or "rel_pos" in name:
        return "position"
    if "norm" in name:
        return "norm " + name.rpartition(".")[2]
    layer = "convolution" if "pool_" in name or name.startswith("patch_embed") else "linear"
    return f"{layer} {name.rpartition('.')[2]}"


@pytest.mark.parametrize("kind_drawn", ["linear weight", "position"])
@pytest.mark.parametrize("state", [IMAGE, VIDEO], ids=["image", "video"])
def test_drawn_with_a_deviation_of_a_fiftieth(state: dict[str, Tensor], kind_drawn: str) -> None:
    for name, value in state.items():
        if kind(name) == kind_drawn:
            bound = 5 * 0.02 / math.sqrt(value.numel())
            assert value.std().item() == pytest.approx(0.02, abs=bound), name
            assert value.mean().item() == pytest.approx(0, abs=bound), name


@pytest.mark.parametrize(("state", "bias"), [(IMAGE, 0.0), (VIDEO, 0.02)], ids=["image", "video"])
def test_constants(state: dict[str, Tensor], bias: float) -> None:
    """SlowFast starts biases of linear layers and of layer norms at 0.02, facebookresearch/mvit at 0."""
    expected = {"linear bias": bias, "norm bias": bias, "norm weight": 1.0}
    seen = set()
    for name, value in state.items():
        if kind(name) in expected:
            seen.add(kind(name))
            assert value.unique().tolist() == pytest.approx([expected[kind(name)]]), name
    assert seen == expected.keys()


def test_convolutions() -> None:
    """torch's default for images: uniform within the root of the fan; 0.02 for video."""
    for name, value in VIDEO.items():
        if kind(name) == "convolution weight":
            assert value.std().item() == pytest.approx(0.02, rel=0.15), name
    for name, value in IMAGE.items():
        if kind(name) == "convolution weight":
            limit = 1 / math.sqrt(value[0].numel())
            assert value.abs().max().item() == pytest.approx(limit, rel=0.1) and value.abs().max() <= limit, name


def test_tables_of_zeros() -> None:
    state = initial(tiny.image(rel_pos_zero_init=True, abs_pos="joint"))
    assert not any(v.any() for n, v in state.items() if "rel_pos" in n) and state["pos_embed"].all()


def test_fixed_positions() -> None:
    config = tiny.clip(blocks=tiny.wide(tiny.clip().blocks), abs_pos="joint", abs_pos_init="sincos")
    table = initial(config)["pos_embed"]
    assert not table[:, 0].any(), "the class token has no place"
    torch.testing.assert_close(table[0, 1:], sincos_positions(32, (2, 8, 8)).float())


def test_small_first_logits() -> None:
    full, scaled = initial(tiny.clip(init="video")), initial(tiny.clip(init="video", head_init_scale=0.001))
    for name, value in full.items():
        factor = 0.001 if name.startswith("head.") else 1.0
        torch.testing.assert_close(scaled[name], value * factor)


def test_layer_scale_starts_at_its_value() -> None:
    state = initial(tiny.image(layer_scale=1e-5))
    gammas = [value for name, value in state.items() if "gamma" in name]
    assert len(gammas) == 8 and all(g.unique().tolist() == pytest.approx([1e-5]) for g in gammas)


@pytest.mark.parametrize("form", tiny.FORMS)
def test_a_seed_tells_all(form: str) -> None:
    config = tiny.FORMS[form](init="video")
    first, again = initial(config), initial(config)
    assert all(torch.equal(again[name], value) for name, value in first.items())
    torch.manual_seed(1)
    other = build(config, reference).state_dict()
    assert any(not torch.equal(other[name], value) for name, value in first.items())


def test_a_part_may_be_drawn_again() -> None:
    model = tiny.model(tiny.image())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    init_weights(model.blocks[1], model.config)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("blocks.1.") for name in changed)


def test_batch_norms_forget() -> None:
    model = tiny.model(tiny.image(norm="batch", final_norm=False)).train()
    model(tiny.pixels(model.config))
    init_weights(model, model.config)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None and not norm.running_mean.any()
            assert norm.weight.unique().tolist() == [1]
