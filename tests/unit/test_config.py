"""Configurations: what is refused and with what words, the schedule, and the way through JSON."""

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from mvitv2.core.config import MViTConfig, describe, schedule
from mvitv2.core.stages import stages
from mvitv2.variants import VARIANTS
from tests import tiny

TWO, THREE = tiny.image(), tiny.clip()


def with_block(index: int, **changes: Any) -> dict[str, Any]:
    blocks = list(TWO.blocks)
    blocks[index] = replace(blocks[index], **changes)
    return {"blocks": tuple(blocks)}


def with_form(**changes: Any) -> MViTConfig:
    config = tiny.reversible()
    assert config.reversible is not None
    return replace(config, reversible=replace(config.reversible, **changes))


PROBLEMS: list[tuple[dict[str, Any], str]] = [
    ({"input_size": (224,)}, "input_size=(224,) needs 2 numbers (H, W) or 3 (T, H, W)"),
    ({"blocks": ()}, "blocks is empty; stages(...) in mvitv2.core.stages makes them"),
    ({"patch_kernel": (3, 7, 7)}, "patch_kernel=(3, 7, 7) needs 2 numbers, one per axis of input_size=(32, 48)"),
    ({"abs_pos_size": (4, 32, 48)}, "abs_pos_size=(4, 32, 48) needs 2 numbers"),
    (with_block(1, kv_stride=(1, 2, 2)), "blocks[1].kv_stride=(1, 2, 2) needs 2 numbers"),
    (with_block(0, table_rows=(3,)), "blocks[0].table_rows=(3,) needs 2 numbers"),
    ({"readout": "average"}, "readout='average' is none of 'class_token', 'norm_mean', 'mean_norm', 'tokens'"),
    ({"norm": "group"}, "norm='group' is none of 'layer', 'batch'"),
    ({"readout": "class_token"}, 'readout="class_token" needs class_token=True'),
    ({"pool_mode": "conv_unshared"}, 'pool_mode="conv_unshared" needs pool_first=True'),
    ({"abs_pos": "separable"}, 'abs_pos="separable" needs a time axis, input_size=(32, 48) has none'),
    ({"abs_pos_init": "sincos"}, 'abs_pos_init="sincos" needs abs_pos="joint" and a time axis'),
    ({"drop_path": 1.0}, "drop_path=1.0 must be at least 0 and below 1"),
    ({"dropout": -0.1}, "dropout=-0.1 must be at least 0 and below 1"),
    ({"pos_dropout": float("nan")}, "pos_dropout=nan must be"),
    ({"num_classes": -1}, "num_classes=-1 must be at least 0"),
    ({"in_channels": 0}, "in_channels=0 must be at least 1"),
    ({"mlp_ratio": 0.0}, "mlp_ratio=0.0 must be above 0"),
    ({"norm_eps": 0.0}, "norm_eps=0.0 must be above 0"),
    ({"input_size": (0, 48)}, "input_size=(0, 48) must be at least 1 along every axis"),
    ({"patch_stride": (4, 0)}, "patch_stride=(4, 0) must be at least 1"),
    ({"output_norms": (1, 7)}, "output_norms of stages [7]: there are 3 stages, from 0"),
    (with_block(0, stage=1), "stages of blocks [1, 1, 1, 2] must count up from 0"),
    (with_block(2, stage=0), "stages of blocks [0, 1, 0, 2] must count up from 0"),
    (with_block(1, num_heads=3), "blocks[1]: dim_attn=16 does not divide by num_heads=3"),
    (with_block(1, q_kernel=None), "blocks[1]: q_stride=(2, 2) needs a q_kernel"),
    (with_block(0, kv_kernel=None), "blocks[0]: kv_stride=(4, 4) needs a kv_kernel"),
    (with_block(1, q_kernel=(2, 2)), "blocks[1]: q_kernel=(2, 2) misses the shortcut's grid"),
    (with_block(0, q_kernel=(2, 3)), "blocks[0]: q_kernel=(2, 3) misses the shortcut's grid"),
    (with_block(0, window=6), "blocks[0]: window=6 does not divide by kv_stride=(4, 4)"),
    (with_block(0, window=4, kv_kernel=(4, 4)), "kv_kernel=(4, 4) must be odd, or windows of queries and keys fall"),
    (with_block(0, dim_out=24), "blocks[0].dim_out=24 is not blocks[1].dim_in=8"),
    (with_block(1, dim_attn=32), "blocks[1]: dim_attn=32 is neither dim_in=8 nor dim_out=16"),
    (with_block(2, dim_attn=32), "blocks[2]: dim_attn=32 is neither dim_in=16 nor dim_out=16"),
    ({"pool_first": True, **with_block(1, num_heads=16)}, "blocks[1].dim_in=8 does not divide by num_heads=16, which"),
]


@pytest.mark.parametrize(("changes", "message"), PROBLEMS, ids=[message[:60] for _, message in PROBLEMS])
def test_problems_are_named_with_their_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        replace(TWO, **changes)
    assert message in str(caught.value)


FORM_PROBLEMS: list[tuple[dict[str, Any], str]] = [
    ({"class_token": True}, "the reversible form has no class token"),
    ({"layer_scale": 0.1}, "the reversible form has no layer_scale"),
    ({"norm": "batch"}, 'norm="batch" would count every batch twice'),
    ({"output_norms": (0,)}, "output_norms are for backbones that are not reversible"),
]


@pytest.mark.parametrize(("changes", "message"), FORM_PROBLEMS, ids=[message for _, message in FORM_PROBLEMS])
def test_what_the_reversible_form_has_not(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        tiny.reversible(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path_fusion": "mean"}, "path_fusion='mean' is none of add, avg, max, min, concat"),
        ({"pre_q_fusion": "concat_linear_x"}, "pre_q_fusion='concat_linear_x' is none of"),
        ({"transitions": (3, 9)}, "transitions [9] are none of the 6 blocks"),
    ],
)
def test_names_and_places_of_the_reversible_form(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        with_form(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize("fusion", ["add", "concat", "concat_linear", "concat_linear_2", "ln+concat_linear_0.5"])
def test_fusions(fusion: str) -> None:
    assert with_form(pre_q_fusion=fusion).reversible is not None


def test_windows_have_no_class_token() -> None:
    with pytest.raises(ValueError, match="windows need a model without class token that is not reversible"):
        tiny.detector(class_token=True)


def test_all_problems_come_at_once() -> None:
    with pytest.raises(ValueError) as caught:
        replace(TWO, drop_path=2.0, num_classes=-5, norm="group", **with_block(1, num_heads=3))
    text = str(caught.value)
    assert all(part in text for part in ("drop_path=2.0", "num_classes=-5", "norm='group'", "num_heads=3"))
    assert "\n" not in text


def test_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        TWO.drop_path = 0.5  # type: ignore[misc]
    assert len({TWO, tiny.image(), THREE}) == 2, "equal configurations are one key"


def test_numbers_that_follow() -> None:
    config = VARIANTS["mvitv2_t"]
    assert (config.rank, config.embed_dim, config.num_features, config.num_stages) == (2, 96, 768, 4)
    assert config.patch_grid == (56, 56) and config.position_axes == "hw"
    assert VARIANTS["mvitv2_s_16x4"].patch_grid == (8, 56, 56) and VARIANTS["mvitv2_s_16x4"].position_axes == "thw"
    assert replace(THREE, rel_pos_spatial=False).position_axes == "t"
    assert VARIANTS["rev_mvit_b"].num_features == 2 * 768, "both streams are kept"
    assert tiny.reversible(path_fusion="add").num_features == 16
    assert replace(TWO, abs_pos_size=(64, 64)).abs_pos_grid == (16, 16) != TWO.patch_grid


def test_stochastic_depth_grows_linearly() -> None:
    rates = [spec.drop_path for spec in schedule(tiny.image(drop_path=0.3))]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    one = MViTConfig(blocks=stages(depths=(1,), embed_dim=8), drop_path=0.3)
    assert [spec.drop_path for spec in schedule(one)] == [0]


def test_schedule_of_the_smallest_model() -> None:
    specs = schedule(VARIANTS["mvitv2_t"])
    assert [s.q_grid[0] for s in specs] == [56, 28, 28, 14, 14, 14, 14, 14, 7, 7]
    # a block that opens a stage pools keys before the grid shrinks, so its key grid is the larger one
    assert [s.kv_grid[0] for s in specs] == [14, 28, 14, 28, 14, 14, 14, 14, 14, 7]
    assert [s.head_dim for s in specs] == [96] * 10 and [s.num_heads for s in specs] == [1, 2, 2, *[4] * 5, 8, 8]
    assert specs[0].windows is None


def test_window_of_queries_and_of_keys() -> None:
    opening = schedule(tiny.detector())[2]
    assert opening.window == 4 and opening.windows == ((2, 2), (4, 4))


@pytest.mark.parametrize("config", [TWO, THREE, tiny.detector(), tiny.reversible()], ids=tiny.FORMS)
def test_through_json_and_back(config: MViTConfig) -> None:
    assert MViTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_fields_of_another_version() -> None:
    values = TWO.to_dict()
    with pytest.raises(ValueError, match=r"\['colour', 'zoom'\] are no fields of MViTConfig; .* another version"):
        MViTConfig.from_dict({**values, "zoom": 1, "colour": 2})
    with pytest.raises(ValueError, match=r"\['blocks'\] of MViTConfig are missing"):
        MViTConfig.from_dict({k: v for k, v in values.items() if k != "blocks"})
    block = {k: v for k, v in values["blocks"][0].items() if k not in ("stage", "dim_in")}
    with pytest.raises(
        ValueError, match=r"\['x'\] are no fields of BlockConfig and \['stage', 'dim_in'\] of BlockConf"
    ):
        MViTConfig.from_dict({**values, "blocks": [{**block, "x": 1}]})
    with pytest.raises(ValueError, match=r"\['transitions'\] of Reversible are missing"):
        MViTConfig.from_dict({**values, "reversible": {}})


def test_description() -> None:
    lines = describe(tiny.detector()).splitlines()
    assert lines[0].split() == ["block", "stage", "dim", "heads", "q", "grid", "kv", "grid", "window"]
    assert lines[1].split() == ["0", "0", "8>8>8", "1", "16x16", "8x8", "4"]
    assert lines[-1].split() == ["4", "1", "16>16>16", "2", "8x8", "8x8", "-"]
    assert len({len(line) for line in lines}) == 1
