"""Weights carried over: laws that hold for every size, and one example of every kind of change."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mvitv2.core.config import MViTConfig
from mvitv2.core.model import MViT
from mvitv2.core.relpos import displacement, table_rows
from mvitv2.core.stages import stages
from mvitv2.weights.adapt import Adaptation, Inflation, adapted, inflated, stretched
from mvitv2.weights.convert import State
from tests import tiny

IMAGE = tiny.image()
CLIP_BLOCKS = stages(depths=(1, 2, 1), embed_dim=8, kernel=(3, 3, 3), q_stride=(1, 2, 2), kv_stride=(1, 4, 4))
CLIP = tiny.clip(blocks=CLIP_BLOCKS, input_size=(8, 32, 48), class_token=False, readout="norm_mean")
CLOSE: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}


def state_of(model: MViT) -> State:
    return dict(model.state_dict())


def drawn(config: MViTConfig) -> Any:
    """A model in float64."""
    return tiny.model(config, dtype=torch.float64)


def carried(model: MViT, target: MViTConfig, how: Adaptation | None = None) -> tuple[Any, list[str]]:
    """A model of another configuration with these weights, and what was said."""
    state, notes = adapted(state_of(model), model.config, target, how or Adaptation())
    other = drawn(target)
    other.load_state_dict(state)
    return other, notes


def still(config: MViTConfig, picture: Tensor) -> Tensor:
    """A clip that shows one picture all the time."""
    return picture[:, :, None].expand(-1, -1, config.input_size[0], -1, -1)


@pytest.mark.parametrize("resampling", ["linear", "anchored"])
@pytest.mark.parametrize("form", tiny.FORMS)
def test_to_the_same_configuration_is_the_identity(form: str, resampling: Any) -> None:
    config = tiny.FORMS[form]()
    state = state_of(tiny.model(config))
    same, notes = adapted(state, config, config, Adaptation(resampling=resampling))
    assert notes == []
    assert same.keys() == state.keys()
    assert all(same[name] is value for name, value in state.items())


@pytest.mark.parametrize("inflation, interior", [("centre", slice(None)), ("mean", slice(1, -1))])
def test_stem_sees_a_still_clip_as_the_image(inflation: Inflation, interior: slice) -> None:
    """The middle kernel always meets a frame; the mean meets zeros in the padding before and after the clip."""
    kernel, bias, picture = (
        torch.randn(4, 3, 7, 7).double(),
        torch.randn(4).double(),
        torch.randn(2, 3, 20, 24).double(),
    )
    expected = F.conv2d(picture, kernel, bias, stride=4, padding=3)
    clip = still(replace(CLIP, input_size=(9, 20, 24)), picture)
    found = F.conv3d(clip, inflated(kernel, 3, inflation), bias, stride=(2, 4, 4), padding=(1, 3, 3))
    for frame in found.unbind(2)[interior]:
        torch.testing.assert_close(frame, expected, **CLOSE)


def test_repeated_kernels_sum_their_frames() -> None:
    """SlowFast's own loader, which does not divide by the number of frames."""
    kernel, picture = torch.randn(4, 3, 7, 7).double(), torch.randn(2, 3, 20, 24).double()
    found = F.conv3d(still(CLIP, picture), inflated(kernel, 3, "repeat"), stride=(2, 4, 4), padding=(1, 3, 3))
    torch.testing.assert_close(found[:, :, 1], 3 * F.conv2d(picture, kernel, stride=4, padding=3), **CLOSE)


def test_a_centred_model_sees_a_still_clip_as_the_image() -> None:
    """Every frame asks the same and finds the same keys, T times each: softmax does not see how often."""
    image = drawn(IMAGE)
    clip, notes = carried(image, CLIP)
    picture = tiny.pixels(IMAGE, dtype=torch.float64)
    torch.testing.assert_close(clip(still(CLIP, picture)), image(picture), **CLOSE)
    assert any("inflated in time by 'centre'" in note for note in notes)
    assert all(not v.any() for n, v in clip.state_dict().items() if n.endswith("rel_pos_t"))


@pytest.mark.parametrize("inflation", ["centre", "mean"])
def test_image_to_clip_and_back_is_the_identity(inflation: Inflation) -> None:
    image = drawn(IMAGE)
    clip, _ = carried(image, CLIP, Adaptation(inflation=inflation))
    back, notes = carried(clip, IMAGE)
    for name, value in image.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, **CLOSE)
    assert any("summed over time" in note for note in notes)


@pytest.mark.parametrize("inflation", ["centre", "mean", "repeat"])
def test_reversible_models_are_inflated_too(inflation: Inflation) -> None:
    image = drawn(tiny.reversible())
    blocks = tuple(
        replace(b, q_stride=(1, *b.q_stride), kv_stride=(1, *b.kv_stride), q_kernel=(3, 3, 3), kv_kernel=(3, 3, 3))
        for b in image.config.blocks
    )
    patches = {"patch_kernel": (3, 7, 7), "patch_stride": (2, 4, 4), "patch_padding": (1, 3, 3)}
    target = replace(image.config, blocks=blocks, input_size=(4, 32, 48), **patches)
    clip, _ = carried(image, target, Adaptation(inflation=inflation))
    assert clip(tiny.pixels(target, dtype=torch.float64)).isfinite().all()


def zero_row(q_size: int, k_size: int) -> int:
    """Where a table has the row of displacement 0."""
    return int(displacement(q_size, k_size)[0, 0])


@pytest.mark.parametrize("sizes", [((32, 48), (64, 96)), ((64, 96), (32, 32)), ((32, 32), (160, 96))])
def test_anchored_tables_keep_the_row_of_no_displacement(sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    source, target = (tiny.image(input_size=size) for size in sizes)
    model = drawn(source)
    other, notes = carried(model, target, Adaptation(resampling="anchored"))
    assert any("resampled (anchored)" in note for note in notes)
    for old, new in zip(model.blocks, other.blocks, strict=True):
        for place, axis in enumerate("hw"):
            sizes_of = [(b.spec.q_grid[place], b.spec.kv_grid[place]) for b in (old, new)]
            before, after = (b.attn.get_parameter(f"rel_pos_{axis}") for b in (old, new))
            rows = [zero_row(*pair) for pair in sizes_of]
            assert torch.equal(after[rows[1]], before[rows[0]])
            assert after.shape[0] == table_rows(*sizes_of[1])


def test_linear_tables_are_the_peers() -> None:
    table = torch.randn(31, 8)
    for rows in (5, 31, 47, 111):
        expected = F.interpolate(table.T[None], size=rows, mode="linear")[0].T
        # where a row is sought is float32 in both, in another order of rounding
        torch.testing.assert_close(stretched(table, rows), expected, rtol=1e-5, atol=1e-5)


@given(st.integers(1, 60), st.integers(1, 60))
def test_stretched_tables_stay_between_their_rows(count: int, rows: int) -> None:
    table = torch.linspace(-1, 1, count, dtype=torch.float64)[:, None]
    found = stretched(table, rows)
    assert found.shape == (rows, 1)
    assert (found.diff(dim=0) >= -1e-12).all()
    assert found.min() >= table.min() - 1e-12 and found.max() <= table.max() + 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tables_keep_their_type(dtype: torch.dtype) -> None:
    table = torch.randn(15, 8).to(dtype)
    assert stretched(table, 31).dtype == dtype
    config = tiny.image(abs_pos="joint")
    state = {name: value.to(dtype) for name, value in state_of(tiny.model(config)).items()}
    changed, _ = adapted(state, config, replace(config, input_size=(64, 96)), Adaptation())
    assert {value.dtype for value in changed.values()} == {dtype}


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 7])
def test_other_channels_keep_the_sum(channels: int) -> None:
    """A gray picture in every channel looks as it did: what the channels add up to is the same, or all that it is."""
    model = drawn(IMAGE)
    other, notes = carried(model, replace(IMAGE, in_channels=channels))
    assert notes == [f"stem adapted from 3 to {channels} input channels"]
    old, new = (m.patch_embed.proj.weight for m in (model, other))
    if channels == 1:
        torch.testing.assert_close(new.sum(dim=1), old.sum(dim=1), **CLOSE)
    else:
        expected = torch.stack([old[:, i % 3] * 3 / channels for i in range(channels)], dim=1)
        torch.testing.assert_close(new, expected, **CLOSE)


def test_channels_back_from_five() -> None:
    five = tiny.image(in_channels=5)
    other, _ = carried(drawn(five), IMAGE)
    assert other.patch_embed.proj.weight.shape[1] == 3


@pytest.mark.parametrize("form", ["image", "clip"])
def test_one_projection_or_three(form: str) -> None:
    config = tiny.FORMS[form]()
    model = drawn(config)
    three, notes = carried(model, replace(config, separate_qkv=True))
    assert notes == ["query, key and value projections split"]
    pixels = tiny.pixels(config, dtype=torch.float64)
    torch.testing.assert_close(three(pixels), model(pixels), **CLOSE)
    one, notes = carried(three, config)
    assert notes == ["query, key and value projections joined"]
    assert all(torch.equal(one.state_dict()[name], value) for name, value in model.state_dict().items())


def test_absolute_positions_of_another_size() -> None:
    config = tiny.image(abs_pos="joint", class_token=True, readout="class_token")
    model = drawn(config)
    other, notes = carried(model, replace(config, input_size=(64, 96)))
    assert "absolute positions resampled from (8, 12) to (16, 24) tokens" in notes
    assert torch.equal(other.pos_embed[:, :1], model.pos_embed[:, :1])
    pixels = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    resampled = model.positions((16, 24))
    torch.testing.assert_close(other.pos_embed, resampled, **CLOSE)
    assert other(pixels).isfinite().all()


SEPARABLE: dict[str, Any] = {"abs_pos": "separable", "rel_pos_spatial": False, "rel_pos_temporal": False}


def test_positions_of_images_in_clips_and_back() -> None:
    flat = {"abs_pos": "joint", "rel_pos_spatial": False}
    image = replace(IMAGE, **flat, class_token=True, readout="class_token")
    clip = replace(CLIP, **SEPARABLE, class_token=True, readout="class_token", input_size=(8, 64, 96))
    model = drawn(image)
    there, notes = carried(model, clip)
    assert "image positions became spatial positions; temporal ones start at zero" in notes
    assert not there.pos_embed_temporal.any()
    assert torch.equal(there.pos_embed_class, model.pos_embed[:, :1])
    back, notes = carried(there, image)
    assert "clip positions became image positions at the mean over time" in notes
    assert back.pos_embed.shape == model.pos_embed.shape


def test_separable_positions_of_another_size() -> None:
    config = tiny.clip(**SEPARABLE)
    model = drawn(config)
    other, _ = carried(model, replace(config, input_size=(8, 64, 32)))
    torch.testing.assert_close(other.positions((4, 16, 8)), model.positions((4, 16, 8)), **CLOSE)


def test_positions_that_cannot_become_each_other() -> None:
    joint = tiny.clip(abs_pos="joint")
    with pytest.raises(ValueError, match="joint positions over 3 axes cannot become separable positions over 3"):
        adapted(state_of(tiny.model(joint)), joint, tiny.clip(abs_pos="separable"), Adaptation())


def test_a_class_token_without_use() -> None:
    """Detection backbones start from classifiers with a class token; it goes, and so does its position."""
    config = tiny.image(abs_pos="joint", class_token=True, readout="class_token")
    target = tiny.image(abs_pos="joint")
    model = drawn(config)
    other, notes = carried(model, target)
    assert notes == ["class token dropped"]
    assert torch.equal(other.pos_embed, model.pos_embed[:, 1:])


def test_tables_of_an_axis_that_is_new() -> None:
    plain, relative = tiny.clip(rel_pos_temporal=False), tiny.clip()
    other, notes = carried(drawn(plain), relative)
    assert "relative tables for axes hw became thw" in notes
    assert not other.blocks[0].attn.rel_pos_t.any()
    back, notes = carried(other, plain)
    assert "relative tables for axes thw became hw" in notes
    assert back.config == plain
