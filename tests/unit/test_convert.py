"""State dicts of other codebases as ours and back: prefixes, second names, axes of length 1, tables of positions."""

import pytest
import torch

from mvitv2.core.config import MViTConfig, schedule
from mvitv2.core.relpos import table_rows
from mvitv2.weights import dialects
from mvitv2.weights.convert import (
    State,
    depths_of,
    fitted,
    image_kernels,
    joined_positions,
    prefix_of,
    to_ours,
    to_theirs,
    with_tables_of,
)
from mvitv2.weights.dialects import DIALECTS
from mvitv2.weights.rename import DialectError
from tests import tiny

V1 = tiny.clip(abs_pos="separable", rel_pos_spatial=False, rel_pos_temporal=False)


def theirs(config: MViTConfig, dialect: str) -> State:
    return to_theirs(tiny.model(config).state_dict(), DIALECTS[dialect], config)


def test_openmmlab_prefixes_the_backbone_only() -> None:
    names = set(theirs(tiny.clip(), "mmaction2"))
    assert {n.split(".")[0] for n in names} == {"backbone", "cls_head"}
    assert "cls_head.fc_cls.weight" in names
    assert "backbone.norm1.weight" in names  # the norm of the last of two scales is the model's


def test_names_with_and_without_prefix() -> None:
    state = theirs(tiny.image(), "mmpretrain")
    bare = {name.removeprefix("backbone."): value for name, value in state.items()}
    assert prefix_of(state, dialects.MMPRETRAIN) == "backbone."
    assert prefix_of(bare, dialects.MMPRETRAIN) == ""
    depths = depths_of(tiny.image())
    assert (
        to_ours(bare, dialects.MMPRETRAIN, depths).state.keys()
        == to_ours(state, dialects.MMPRETRAIN, depths).state.keys()
    )


def test_torchvision_has_flat_positions() -> None:
    state = theirs(V1, "torchvision")
    shapes = {name: tuple(value.shape) for name, value in state.items() if name.startswith("pos_encoding")}
    assert shapes == {
        "pos_encoding.class_token": (8,),
        "pos_encoding.class_pos": (8,),
        "pos_encoding.spatial_pos": (64, 8),
        "pos_encoding.temporal_pos": (2, 8),
    }
    ours = to_ours(state, dialects.TORCHVISION, depths_of(V1)).state
    assert ours["cls_token"].shape == (1, 1, 8)
    assert ours["pos_embed_spatial"].shape == (1, 64, 8)


def test_pytorchvideo_names_poolings_twice() -> None:
    state = theirs(V1, "pytorchvideo")
    second = [name for name in state if "_attention_pool_" in name]
    assert len(second) == sum(".pool_" in n or ".attn.norm_" in n for n in state if n not in second)
    without = {name: value for name, value in state.items() if name not in second}
    assert (
        to_ours(without, dialects.PYTORCHVIDEO, ()).state.keys()
        == to_ours(state, dialects.PYTORCHVIDEO, ()).state.keys()
    )


def test_second_names_must_agree() -> None:
    state = theirs(V1, "pytorchvideo")
    wrong = [name for name in state if "_attention_pool_k.pool" in name]
    for name in wrong:
        state[name] = state[name] + 1
    with pytest.raises(DialectError, match=rf"{len(wrong)} second names differ.*_attention_pool_k\.pool\.weight"):
        to_ours(state, dialects.PYTORCHVIDEO, ())


def test_parts_beside_the_backbone_are_left_out() -> None:
    state = theirs(tiny.clip(), "slowfast")
    beside = {"mask_token": 1, "pred_head.transforms.0.0.weight": 1, "hogs.0.weight_x": 1}
    state |= {name: torch.zeros(n) for name, n in beside.items()}
    assert list(to_ours(state, dialects.SLOWFAST, ()).beside) == sorted(beside)


def test_depths() -> None:
    assert depths_of(tiny.image()) == (1, 2, 1)


def test_tables_of_other_lengths_are_declared() -> None:
    config = tiny.image()
    state = dict(tiny.model(config).state_dict())
    assert with_tables_of(config, state) == config
    state["blocks.1.attn.rel_pos_h"] = torch.zeros(99, 8)
    rows = [block.table_rows for block in with_tables_of(config, state).blocks]
    spec = schedule(config)[1]
    assert rows == [None, (99, table_rows(spec.q_grid[1], spec.kv_grid[1])), None, None]


@pytest.mark.parametrize("frames", [1, 3])
def test_kernels_of_images_lose_their_time(frames: int) -> None:
    kernel = torch.randn(8, 1, frames, 3, 3)
    state = {"blocks.0.attn.pool_q.weight": kernel, "patch_embed.proj.weight": torch.zeros(8, 3, 1, 7, 7)}
    squeezed = image_kernels(state)
    torch.testing.assert_close(squeezed["blocks.0.attn.pool_q.weight"], kernel[:, :, frames // 2])
    assert squeezed["patch_embed.proj.weight"].ndim == 5


def test_fitted_moves_axes_of_length_one_only() -> None:
    shapes = {"cls_token": torch.Size((1, 1, 8)), "norm.weight": torch.Size((8,)), "head": torch.Size((2, 4))}
    state = {
        "cls_token": torch.zeros(8),
        "norm.weight": torch.zeros(1, 8),
        "head": torch.zeros(4, 2),
        "more": torch.zeros(3),
    }
    found = {name: tuple(value.shape) for name, value in fitted(state, shapes).items()}
    assert found == {"cls_token": (1, 1, 8), "norm.weight": (8,), "head": (4, 2), "more": (3,)}


def test_positions_of_one_frame() -> None:
    spatial, temporal, cls = torch.randn(1, 6, 8), torch.randn(1, 1, 8), torch.randn(1, 1, 8)
    table = joined_positions({"pos_embed_spatial": spatial, "pos_embed_temporal": temporal, "pos_embed_class": cls})
    assert table.keys() == {"pos_embed"}
    expected = torch.cat((cls.double(), spatial.double() + temporal.double()), dim=1)
    assert torch.equal(table["pos_embed"], expected)
