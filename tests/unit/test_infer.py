"""Configurations from nothing but names and shapes: every published variant, and what is not published."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from mvitv2.core.attend import reference
from mvitv2.core.config import BlockConfig, MViTConfig
from mvitv2.core.reversible import build
from mvitv2.core.stages import floor_tables, stages
from mvitv2.variants import VARIANTS
from mvitv2.weights import dialects
from mvitv2.weights.card import architecture, variant_of
from mvitv2.weights.convert import State
from mvitv2.weights.expressible import obstacles
from mvitv2.weights.infer import infer, stage_depths
from mvitv2.weights.opened import open_weights
from mvitv2.weights.save import translated
from tests import tiny

THEIRS = [name for name in dialects.DIALECTS if name != "mvitv2"]


def shapes_of(config: MViTConfig) -> State:
    """The state dict of a model, without memory."""
    with torch.device("meta"):
        return build(config, reference).state_dict()


def holders() -> Iterator[tuple[str, str]]:
    for name, config in VARIANTS.items():
        yield from ((name, dialect) for dialect in THEIRS if not obstacles(config, dialect)[0])


@pytest.mark.parametrize("name, dialect", list(holders()))
def test_every_variant_in_every_dialect(name: str, dialect: str) -> None:
    config = VARIANTS[name]
    theirs, _ = translated(shapes_of(config), config, dialect, other_numbers=True)
    found = open_weights(theirs)
    assert architecture(found.config) == architecture(config)
    assert found.config.input_size == config.input_size
    assert found.config.num_classes == config.num_classes
    assert variant_of(found.config) == name
    assert found.left_out == []


SIZES = {"official": 96, "timm": 64, "mmpretrain": 128, "slowfast": (8, 64, 64), "torchvision": (4, 96, 96)}


@pytest.mark.parametrize("dialect", SIZES)
def test_the_size_is_told_by_the_tables(dialect: str) -> None:
    size = SIZES[dialect]
    clip = isinstance(size, tuple)
    blocks = VARIANTS["mvitv2_s_16x4" if clip else "mvitv2_t"].blocks
    base = VARIANTS["mvitv2_s_16x4" if clip else "mvitv2_t"]
    config = replace(base, blocks=blocks, input_size=size if isinstance(size, tuple) else (size, size))
    theirs, _ = translated(shapes_of(config), config, dialect)
    assert open_weights(theirs).config.input_size == config.input_size


def inferred(config: MViTConfig, dialect: dialects.Dialect = dialects.OFFICIAL) -> MViTConfig:
    return infer(shapes_of(config), dialect).config


def test_heads_and_widths_of_any_kind() -> None:
    blocks = stages(depths=(1, 2, 1), embed_dim=(24, 48, 96), num_heads=(3, 6, 6))
    config = tiny.image(blocks=blocks, mlp_ratio=2.0, qkv_bias=False, in_channels=4, num_classes=0)
    found = inferred(config)
    assert found.blocks == config.blocks
    assert (found.mlp_ratio, found.qkv_bias, found.in_channels, found.num_classes) == (2.0, False, 4, 0)


def strided(q: dict[int, int], kv: dict[int, int], *, widen: bool) -> tuple[BlockConfig, ...]:
    """Six blocks with these strides; where the grid shrinks a stage begins, and channels double if asked to."""
    made: list[BlockConfig] = []
    stage, dim = 0, 8
    for i, block in enumerate(stages(depths=(6,), embed_dim=8)):
        shrinks = i > 0 and q.get(i, 1) > 1
        stage, dim_out = stage + shrinks, 2 * dim if shrinks and widen else dim
        sizes = {"stage": stage, "dim_in": dim, "dim_attn": dim_out, "dim_out": dim_out, "num_heads": dim_out // 8}
        made.append(replace(block, **sizes, q_stride=(q.get(i, 1),) * 2, kv_stride=(kv.get(i, 1),) * 2))
        dim = dim_out
    return tuple(made)


STRIDES = {
    "grid shrinks where no width changes": ({2: 2, 4: 2}, {0: 4, 1: 4, 2: 2, 3: 2}, False),
    "keys are never pooled": ({1: 2, 3: 2}, {}, True),
    "keys stay at stride 1 after the first stage": ({1: 2, 4: 2}, {0: 4}, True),
    "keys are pooled again": ({1: 2, 2: 2}, {0: 2, 1: 2, 2: 2, 3: 2}, True),
    "nothing shrinks": ({}, {}, False),
}


@pytest.mark.parametrize("q, kv, widen", STRIDES.values(), ids=STRIDES)
def test_strides_that_only_tables_tell(q: dict[int, int], kv: dict[int, int], widen: bool) -> None:
    """The grids that enter blocks are right whatever the rule was; key strides only as far as tables depend on them."""
    config = floor_tables(tiny.image(blocks=strided(q, kv, widen=widen), input_size=(64, 96)))
    found = inferred(config)
    assert [b.q_stride for b in found.blocks] == [b.q_stride for b in config.blocks]
    assert [b.stage for b in found.blocks] == [b.stage for b in config.blocks]
    assert found.input_size == (64, 96)


def test_pooling_in_time() -> None:
    made = stages(depths=(1, 2, 1), embed_dim=8, kernel=(3, 3, 3), q_stride=(2, 2, 2), kv_stride=(1, 4, 4))
    made = tuple(replace(b, kv_stride=(1, *b.kv_stride[1:])) for b in made)
    config = floor_tables(tiny.clip(blocks=made, input_size=(16, 64, 64)))
    found = infer(shapes_of(config), dialects.SLOWFAST)
    assert [b.q_stride[0] for b in found.config.blocks][:3] == [1, 2, 1]
    assert any("keys are not strided in time" in text for text in found.assumed)


@pytest.mark.parametrize("pool_mode", ["conv", "conv_unshared"])
def test_pooling_before_projection(pool_mode: str) -> None:
    config = tiny.image(pool_first=True, pool_mode=pool_mode)
    found = inferred(config)
    assert (found.pool_first, found.pool_mode, found.separate_qkv) == (True, pool_mode, False)
    assert found.blocks == config.blocks


def test_three_projections() -> None:
    found = inferred(tiny.clip(separate_qkv=True), dialects.SLOWFAST)
    assert (found.separate_qkv, found.pool_first) == (True, False)


def test_dense_pooling_batch_norm_and_no_biases() -> None:
    config = tiny.clip(
        abs_pos="separable",
        rel_pos_spatial=False,
        rel_pos_temporal=False,
        pool_mode="conv_dense",
        norm="batch",
        linear_bias=False,
        residual_pooling="none",
    )
    found = inferred(config, dialects.PYTORCHVIDEO)
    assert (found.pool_mode, found.norm, found.linear_bias) == ("conv_dense", "batch", False)


@pytest.mark.parametrize("fusion", ["avg", "concat_linear_2", "ln+concat_linear_0.5"])
def test_reversible_forms(fusion: str) -> None:
    config = tiny.reversible(pre_q_fusion=fusion)
    found = inferred(config, dialects.SLOWFAST)
    assert found.reversible == config.reversible
    assert found.blocks == config.blocks


def test_layer_scale_and_stem_norm() -> None:
    found = inferred(tiny.clip(layer_scale=0.1, norm_stem=True), dialects.SLOWFAST)
    assert found.layer_scale is not None and found.norm_stem


def test_positions_of_pretraining() -> None:
    """detectron2 keeps a table of another size, with the class token's row in front."""
    config = tiny.detector(abs_pos="joint", abs_pos_size=(96, 96))
    state = shapes_of(config)
    state["pos_embed"] = torch.empty(1, 24 * 24 + 1, 8, device="meta")
    found = infer(state, dialects.DETECTRON2).config
    assert (found.abs_pos_size, found.input_size) == ((96, 96), (64, 64))


def test_levels_without_windows() -> None:
    """OpenMMLab gives levels of a model that has no windows, also without the last one."""
    config = tiny.image(output_norms=(0, 1), final_norm=False, num_classes=0, feed_output_norms=True)
    found = inferred(config, dialects.MMPRETRAIN)
    assert found.output_norms == (0, 1)
    assert not any(block.window for block in found.blocks)


def test_clip_of_joint_positions() -> None:
    config = tiny.clip(abs_pos="joint", rel_pos_spatial=False, rel_pos_temporal=False, input_size=(16, 224, 224))
    assert inferred(config, dialects.SLOWFAST).input_size == (16, 224, 224)
    with pytest.raises(ValueError, match="13 absolute positions are no clip of squares; give the configuration"):
        infer({**shapes_of(config), "pos_embed": torch.empty(1, 14, 8, device="meta")}, dialects.SLOWFAST)


def test_what_is_assumed_is_said() -> None:
    v1 = tiny.clip(abs_pos="separable", rel_pos_spatial=False, rel_pos_temporal=False, input_size=(16, 64, 64))
    said = infer(shapes_of(v1), dialects.SLOWFAST).assumed
    assert any("patch stride" in text for text in said)
    assert any("key stride" in text for text in said)
    assert any("no residual pooling" in text for text in said)
    plain = tiny.image(rel_pos_spatial=False)
    assert any("224 x 224" in text for text in infer(shapes_of(plain), dialects.OFFICIAL).assumed)


def test_tables_that_fit_no_strides() -> None:
    state = shapes_of(tiny.image())
    state["blocks.1.attn.rel_pos_h"] = torch.empty(5, 8, device="meta")
    found = infer(state, dialects.OFFICIAL)
    assert found.config.blocks == tiny.image().blocks
    assert any("do not fit" in text for text in found.assumed)


def test_stage_depths() -> None:
    assert stage_depths(shapes_of(tiny.image())) == (1, 2, 1)


def without(state: State, *parts: str) -> State:
    return {name: value for name, value in state.items() if not any(part in name for part in parts)}


def test_what_makes_no_model_is_refused() -> None:
    state = shapes_of(tiny.image())
    broken = {
        "blocks 0 to 3 are missing": without(state, "blocks.1."),
        "patch_embed.proj.weight or some": without(state, "patch_embed"),
        "lacks its attention or its MLP": without(state, "blocks.2.mlp.fc2"),
        "pools without weights": without(state, "pool_"),
        "empty or no matrices": {**state, "blocks.0.attn.proj.weight": torch.empty(8, 0, device="meta")},
        "is no kernel over 2 axes": {**state, "blocks.0.attn.pool_k.weight": torch.empty(8, device="meta")},
        "4 are an image model's": {**state, "patch_embed.proj.weight": torch.empty(8, 3, device="meta")},
        "no square grid": {**state, "pos_embed": torch.empty(1, 7, 8, device="meta")},
        "do not divide into heads of 3": {**state, "blocks.0.attn.rel_pos_h": torch.empty(15, 3, device="meta")},
    }
    for message, wrong in broken.items():
        with pytest.raises(ValueError, match=message):
            infer(wrong, dialects.OFFICIAL)


def test_depth_has_a_limit() -> None:
    """Names that announce thousands of blocks cost no time."""
    state = shapes_of(tiny.image())
    state |= {f"blocks.{i}.norm1.weight": state["norm.weight"] for i in range(5000)}
    with pytest.raises(ValueError, match="5000 blocks are more than the 512"):
        infer(state, dialects.OFFICIAL)
