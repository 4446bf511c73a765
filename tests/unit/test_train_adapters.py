"""Adapters: start as the model was, train little, merge without a change of one bit, and lie in a small file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import mvitv2
from mvitv2.train.adapters import MARK, adapt, load_adapters, merged
from mvitv2.train.average import Average
from mvitv2.train.loop import fit
from mvitv2.train.optim import parameter_groups
from mvitv2.train.recipe import Recipe, overridden
from mvitv2.train.settings import Settings

from ..e2e.training_job import RECIPE, small_job, small_model

LORA = overridden(RECIPE, {"adapters.rank": 2, "adapters.targets": "qkv,mlp", "epochs": 2})


def adapted() -> Any:
    model = small_model().eval()
    adapt(model, rank=2, targets=("qkv", "proj", "mlp"))
    return model


def test_an_adapted_model_starts_as_it_was() -> None:
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(adapted()(x), small_model().eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("grad_checkpointing", [False, True])
def test_merged_is_unmerged_to_the_bit(grad_checkpointing: bool) -> None:
    model, plain = adapted(), small_model().eval()
    for name, parameter in model.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter)
    model.set_grad_checkpointing(grad_checkpointing)
    plain.load_state_dict(merged(model.state_dict()))
    x = torch.randn(2, 3, 16, 16)
    ours, theirs = model(x), plain(x)
    assert (ours - small_model().eval()(x)).abs().max() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_only_adapters_and_classifier_are_trained() -> None:
    names = {name for name, p in adapted().named_parameters() if p.requires_grad}
    assert all(MARK in name or name.startswith("head.") for name in names)
    assert {name.rpartition(".")[2] for name in names if MARK in name} == {"up", "down"}
    scale = {n: g.lr_scale for g in parameter_groups(adapted(), weight_decay=0.1, layer_decay=0.5) for n in g.names}
    assert scale["head.projection.bias"] == 1 and scale[f"blocks.0.attn.qkv{MARK}0.up"] == 0.25


def test_a_model_without_such_layers() -> None:
    model = small_model()
    for block in model.blocks:
        block.attn = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"the model has no linear layers named \.attn\.qkv"):
        adapt(model, rank=2)


def test_the_average_of_an_adapted_model() -> None:
    model = adapted()
    average = Average(model, 0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0) if parameter.requires_grad else None
    for _ in range(60):
        average.update(model)
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(average.model(x), model(x), rtol=1e-4, atol=1e-4)


def test_a_run_leaves_plain_weights_and_a_small_file_that_gives_them_back(tmp_path: Path) -> None:
    base = small_model()
    start = mvitv2.save_weights(base, tmp_path / "start.safetensors")
    outcome = fit(small_job(), LORA, Settings(output=tmp_path / "run"))
    state = load_file(outcome.weights)
    assert set(state) == set(base.state_dict())
    changed = {name for name, tensor in state.items() if not torch.equal(tensor, base.state_dict()[name])}
    ends = (".attn.qkv.weight", ".mlp.fc1.weight", ".mlp.fc2.weight")
    assert changed == {n for n in state if n.endswith(ends) or n.startswith("head.")}
    small = tmp_path / "run" / "adapters.safetensors"
    assert small.stat().st_size < outcome.weights.stat().st_size
    again, whole = load_adapters(tmp_path / "run", start), mvitv2.load_model(outcome.weights)
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(again.eval()(x), whole.eval()(x), rtol=0, atol=0)
    assert again.card["classes"] == ["top", "middle", "bottom"]
    with pytest.raises(ValueError, match="is no file of adapters"):
        load_adapters(outcome.weights, start)
    other = mvitv2.create_model("mvitv2_t", img_size=32, num_classes=3)
    with pytest.raises(ValueError, match="belongs to other weights"):
        load_adapters(small, mvitv2.save_weights(other, tmp_path / "other.safetensors"))


def test_a_run_with_adapters_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = fit(small_job(), LORA, Settings(output=tmp_path / "whole"))
    fit(small_job(), LORA, Settings(output=tmp_path / "cut"))
    (tmp_path / "cut" / "last.pt").unlink()
    (tmp_path / "cut" / "previous.pt").rename(tmp_path / "cut" / "last.pt")
    cut = fit(small_job(), LORA, Settings(output=tmp_path / "cut"))
    ours, theirs = load_file(whole.weights), load_file(cut.weights)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapters.alpha": 2}, r"adapters\.rank=None must be a whole number"),
        ({"adapters": {"rank": 2, "dropout": 0.1}}, "adapters has no dropout; it has rank, alpha, targets"),
        ({"adapters": {"rank": 2, "targets": ("head",)}}, r"must be some of qkv, proj, mlp"),
        ({"adapters": {"rank": 2, "alpha": 0}}, r"adapters\.alpha=0 must be above 0"),
        ({"adapters.rank": 2, "freeze": "stem"}, "exclude each other"),
    ],
)
def test_offences(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overridden(Recipe(), changes)
