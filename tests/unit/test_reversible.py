"""The reversible form: its backward pass is autograd's, with less kept; fusions, transitions, random numbers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mvitv2.core import reversible as module
from mvitv2.core.config import Reversible
from mvitv2.core.model import MViT
from mvitv2.core.reversible import ReversibleBlock, ReversibleMViT, TransitionBlock, TwoStreamFusion, reversible_form
from mvitv2.core.stages import stages
from tests import tiny


def trained(model: MViT, x: Tensor, *, kept: bool, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The output and all gradients of a training step."""
    if kept:
        original = module.reversible_segment
        monkeypatch.setattr(
            module, "reversible_segment", lambda blocks, streams, grid, **_: original(blocks, streams, grid, keep=True)
        )
    torch.manual_seed(7)
    x = x.detach().requires_grad_()
    model.zero_grad()
    out = model(x)
    out.square().sum().backward()
    monkeypatch.undo()
    assert x.grad is not None
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"output": out.detach(), "input": x.grad, **gradients}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"drop_path": 0.5},
        {"dropout": 0.3, "drop_path": 0.3, "pos_dropout": 0.1},
        {"pre_q_fusion": "avg", "path_fusion": "max", "separate_qkv": True, "qkv_bias": False},
        {"pre_q_fusion": "ln+concat_linear_2", "path_fusion": "add"},
        {"pool_first": True, "pool_mode": "conv", "pre_q_fusion": "add"},
    ],
    ids=str,
)
def test_backward_is_that_of_autograd(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny.reversible(**changes)
    model, x = tiny.model(config, dtype=torch.float64).train(), tiny.pixels(config, 3, dtype=torch.float64)
    for parameter in model.parameters():
        parameter.data *= 0.3
    expected = trained(model, x, kept=True, monkeypatch=monkeypatch)
    found = trained(model, x, kept=False, monkeypatch=monkeypatch)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_random_numbers_go_on_as_if_nothing_was_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny.reversible(drop_path=0.5)
    model, x = tiny.model(config, dtype=torch.float64).train(), tiny.pixels(config, dtype=torch.float64)
    trained(model, x, kept=True, monkeypatch=monkeypatch)
    expected = torch.rand(3)
    trained(model, x, kept=False, monkeypatch=monkeypatch)
    assert torch.equal(torch.rand(3), expected)


def test_a_weight_of_both_branches_gets_both_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny.reversible()
    model, x = tiny.model(config, dtype=torch.float64).train(), tiny.pixels(config, dtype=torch.float64)
    block = model.get_submodule("rev_backbone.layers.1")
    assert isinstance(block, ReversibleBlock)
    block.G.norm = block.F.norm
    expected = trained(model, x, kept=True, monkeypatch=monkeypatch)
    found = trained(model, x, kept=False, monkeypatch=monkeypatch)
    name = "rev_backbone.layers.1.F.norm.weight"
    torch.testing.assert_close(found[name], expected[name], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("inside", [True, False])
def test_automatic_precision(inside: bool) -> None:
    """What is computed again is computed in the precision of the forward pass, wherever backward is called."""
    config = tiny.reversible(drop_path=0.2)
    model, x = tiny.model(config).train(), tiny.pixels(config)
    for parameter in model.parameters():
        parameter.data *= 0.3
    gradients: list[dict[str, Tensor]] = []
    for again in (False, inside):
        model.zero_grad()
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(x).float().square().sum()
            if again:
                loss.backward()
        if not again:
            loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() == {name for name, _ in model.named_parameters()}
    for name, gradient in gradients[0].items():
        assert torch.equal(gradients[1][name], gradient), name
    assert all(gradient.isfinite().all() for gradient in gradients[0].values())


def test_frozen_parameters_get_no_gradient() -> None:
    config = tiny.reversible()
    model, x = tiny.model(config).train(), tiny.pixels(config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.1.F.attn" not in name)
    model(x).sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {name for name, _ in model.named_parameters() if "layers.1.F.attn" in name}


def saved(model: MViT, x: Tensor) -> int:
    count = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal count
        count += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held = model(x)
    del held
    return count


def test_activations_of_reversible_blocks_are_not_kept() -> None:
    """Twice the blocks, the same memory; in eval mode, where autograd keeps them, memory grows."""
    config, models = tiny.reversible(), []
    for depth in (2, 8):
        blocks = (*stages(depths=(depth,), embed_dim=8), *config.blocks[3:])
        models.append(tiny.model(replace(config, blocks=blocks, reversible=Reversible(transitions=(depth,)))))
    x = tiny.pixels(config)
    assert saved(models[0].train(), x) == saved(models[1].train(), x)
    assert saved(models[1].eval(), x) > 2 * saved(models[0].eval(), x)


def test_two_transitions_in_a_row() -> None:
    config = tiny.reversible()
    *before, second, last = config.blocks
    blocks = (*before, replace(second, q_stride=(2, 2), stage=2), replace(last, stage=2))
    form = Reversible(transitions=(3, 4), pre_q_fusion="avg")
    model = tiny.model(replace(config, blocks=blocks, reversible=form)).train()
    x = tiny.pixels(config)
    assert [grid for _, grid in model.trunk(x)] == [(8, 12), (4, 6), (2, 3)]
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_blocks_that_change_the_grid_must_be_transitions() -> None:
    config = tiny.reversible()
    with pytest.raises(ValueError, match="block 3 changes width or grid; it must be one of the reversible form's"):
        tiny.model(replace(config, reversible=Reversible(transitions=(2,))))


def test_streams() -> None:
    model = tiny.model(tiny.reversible(path_fusion="concat"))
    assert isinstance(model, ReversibleMViT)
    x = tiny.pixels(model.config)
    (first, grid), _ = model.streams(x)
    assert grid == (8, 12) and first[0].shape == first[1].shape == (2, 96, 8)
    assert torch.equal(model.trunk(x)[0][0], torch.cat(first, dim=-1))
    assert model.num_features == 32 and model(x).shape == (2, 5)


def test_a_block_is_undone_by_its_outputs() -> None:
    model = tiny.model(tiny.reversible(), dtype=torch.float64)
    block = model.get_submodule("rev_backbone.layers.1")
    assert isinstance(block, ReversibleBlock)
    x1, x2 = torch.randn(2, 96, 8, dtype=torch.float64), torch.randn(2, 96, 8, dtype=torch.float64)
    y1, y2 = block(x1, x2, (8, 12))
    back2 = y2 - block.transform(y1)
    back1 = y1 - block.attend(back2, (8, 12))
    torch.testing.assert_close((back1, back2), (x1, x2), rtol=1e-12, atol=1e-12)


def test_stochastic_depth_of_a_transition_drops_the_whole_stream() -> None:
    """SlowFast ``reversible_mvit.py:403-407``."""
    model = tiny.model(tiny.reversible(drop_path=0.9)).train()
    transition = model.get_submodule("rev_backbone.layers.3")
    assert isinstance(transition, TransitionBlock)
    streams = torch.randn(40, 96, 8), torch.randn(40, 96, 8)
    out, grid = transition(streams, (8, 12))
    dropped = out.flatten(1).eq(0).all(1)
    assert grid == (4, 6) and 0 < dropped.sum() < 40


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("add", [4.0, 6]), ("avg", [2.0, 3]), ("max", [3.0, 5]), ("min", [1.0, 1]), ("concat", [1.0, 5, 3, 1])],
)
def test_fusions(mode: str, expected: list[float]) -> None:
    fused = TwoStreamFusion(mode, 2)(torch.tensor([[[1.0, 5]]]), torch.tensor([[[3.0, 1]]]))
    assert fused.flatten().tolist() == expected
    assert not list(TwoStreamFusion(mode, 2).parameters())


@pytest.mark.parametrize(
    ("mode", "hidden", "first"),
    [("concat_linear", 4, "fc1"), ("concat_linear_2", 8, "fc1"), ("ln+concat_linear_0.5", 2, "0")],
)
def test_learned_fusions(mode: str, hidden: int, first: str) -> None:
    fusion = TwoStreamFusion(mode, 4)
    names = [name for name, _ in fusion.fuse_fn.named_children()]
    assert names[0] == first
    assert hidden in {p.shape[0] for p in fusion.parameters()}
    a, b = torch.randn(1, 3, 2), torch.randn(1, 3, 2)
    both = torch.cat((a, b), -1)
    torch.testing.assert_close(fusion(a, b), both + fusion.fuse_fn(both))


def test_unknown_fusion() -> None:
    with pytest.raises(ValueError, match="fusion 'mean' is none of add, avg"):
        TwoStreamFusion("mean", 4)


def test_no_form() -> None:
    with pytest.raises(ValueError, match=r"config.reversible is None: this is a config of MViT, not of ReversibleMViT"):
        reversible_form(tiny.image())


def test_training_on_the_meta_device() -> None:
    model = tiny.model(tiny.reversible(drop_path=0.1)).to("meta").train()
    model(torch.empty(2, 3, 32, 48, device="meta")).sum().backward()
