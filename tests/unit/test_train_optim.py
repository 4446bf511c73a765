"""Every parameter is in one group, with the decay and the part of the rate that its place asks for."""

from dataclasses import replace

import pytest
import torch

import mvitv2
from mvitv2.core.model import MViT
from mvitv2.core.stages import stages
from mvitv2.train.optim import clip, depths, optimizer_of, parameter_groups, set_rate
from mvitv2.train.recipe import Recipe


@pytest.fixture
def model() -> MViT:
    blocks = stages(depths=(1, 2), embed_dim=8, kv_stride=(2, 2))
    changes = {"class_token": True, "readout": "class_token", "abs_pos": "joint"}
    made = mvitv2.create_model("mvitv2_t", blocks=blocks, img_size=16, num_classes=3, **changes)
    assert isinstance(made, MViT)
    return made


def test_every_parameter_once(model: MViT) -> None:
    groups = parameter_groups(model, weight_decay=0.05, layer_decay=0.5)
    names = [name for group in groups for name in group.names]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


def test_what_does_not_decay(model: MViT) -> None:
    still = {n for g in parameter_groups(model, weight_decay=0.05) if g.weight_decay == 0 for n in g.names}
    for name, parameter in model.named_parameters():
        no_matrix = parameter.ndim <= 1 or "rel_pos" in name or name in ("cls_token", "pos_embed")
        assert (name in still) == no_matrix, name


def test_layer_decay_is_per_block_and_position_tables_follow_their_block(model: MViT) -> None:
    scale = {n: g.lr_scale for g in parameter_groups(model, weight_decay=0.05, layer_decay=0.5) for n in g.names}
    assert scale["head.projection.weight"] == scale["head.projection.bias"] == 1.0
    assert scale["norm.weight"] == scale["blocks.2.attn.qkv.weight"] == scale["blocks.2.attn.rel_pos_h"] == 0.5
    assert scale["blocks.1.proj.weight"] == scale["blocks.1.attn.rel_pos_w"] == 0.25
    assert scale["blocks.0.norm1.bias"] == 0.125
    assert scale["patch_embed.proj.weight"] == scale["cls_token"] == scale["pos_embed"] == 0.0625


def test_parameters_that_are_not_trained_are_in_no_group(model: MViT) -> None:
    model.patch_embed.requires_grad_(False)
    names = {n for g in parameter_groups(model, weight_decay=0.1, layer_decay=0.9) for n in g.names}
    assert not any(name.startswith("patch_embed") for name in names)


def test_what_is_frozen_changes_no_rate_of_the_rest(model: MViT) -> None:
    model.requires_grad_(False).blocks[1].requires_grad_(True)
    groups = parameter_groups(model, weight_decay=0.1, layer_decay=0.5)
    assert {group.lr_scale for group in groups} == {0.25}


def test_unknown_depths_are_an_error_not_a_guess() -> None:
    with pytest.raises(ValueError, match="no parameter matches the blocks"):
        depths(["rev_backbone.layers.0.F.attn.qkv.weight"], {"stem": "^patch", "blocks": [(r"^blocks\.(\d+)", None)]})


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_rates_are_parts_of_the_rate(model: MViT, optimizer: str) -> None:
    made = optimizer_of(model, replace(Recipe(), optimizer=optimizer, layer_decay=0.5))
    set_rate(made, 0.1)
    assert {group["lr"] for group in made.param_groups} == {0.1 * 0.5**i for i in range(5)}


def test_clipping(model: MViT) -> None:
    def gradients() -> torch.Tensor:
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    for recipe, most in ((Recipe(clip_norm=0.5), None), (Recipe(clip_norm=None, clip_value=0.01), 0.01)):
        model.zero_grad()
        (100 * model(torch.randn(2, 3, 16, 16)).square().sum()).backward()
        before = gradients().norm()
        assert before > 0.5
        torch.testing.assert_close(clip(model, recipe), before)
        if most is None:
            torch.testing.assert_close(gradients().norm(), torch.tensor(0.5))
        else:
            assert gradients().abs().max() <= most
