"""Absolute positions: one table, or one for space and one for time; resampled, or fixed waves."""

import math

import pytest
import torch

from mvitv2.core.positions import joint_positions, resample_grid, separable_positions, sincos_positions
from tests import tiny


@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 3, 4)])
def test_same_size_is_the_same_table(grid: tuple[int, ...]) -> None:
    table = torch.randn(1, torch.Size(grid).numel(), 6)
    assert resample_grid(table, grid, grid) is table
    larger = tuple(2 * n for n in grid)
    assert resample_grid(table, grid, larger).shape == (1, torch.Size(larger).numel(), 6)


def test_axes_are_not_mixed_up() -> None:
    """A ramp along one axis stays one along that axis."""
    ramp = torch.arange(4.0)[:, None].expand(4, 6).reshape(1, 24, 1)
    resampled = resample_grid(ramp, (4, 6), (8, 3)).reshape(8, 3)
    assert torch.allclose(resampled, resampled[:, :1].expand(8, 3), atol=1e-5)
    assert (resampled[1:] > resampled[:-1]).all()


def test_class_token_has_the_first_row_whatever_the_size() -> None:
    table = torch.randn(1, 13, 5)
    assert torch.equal(joint_positions(table, (3, 4), (3, 4), 1), table)
    resampled = joint_positions(table, (3, 4), (6, 6), 1)
    assert resampled.shape == (1, 37, 5) and torch.equal(resampled[:, 0], table[:, 0])
    assert torch.equal(resampled[:, 1:], joint_positions(table[:, 1:], (3, 4), (6, 6), 0))


def test_separable_positions_are_sums() -> None:
    space, time = torch.randn(1, 6, 5), torch.randn(1, 4, 5)
    table = separable_positions(space, time, (4, 2, 3), (4, 2, 3))
    for t in range(4):
        for y in range(2):
            for x in range(3):
                expected = time[0, t] + space[0, 3 * y + x]
                assert torch.equal(table[0, 6 * t + 3 * y + x], expected)


def test_separable_positions_of_another_size() -> None:
    space, time = torch.randn(1, 6, 5), torch.randn(1, 4, 5)
    table = separable_positions(space, time, (4, 2, 3), (8, 2, 3))
    assert table.shape == (1, 48, 5)
    difference = table.unflatten(1, (8, 6)) - space
    assert torch.allclose(difference, difference[:, :, :1].expand_as(difference), atol=1e-6)


def test_waves() -> None:
    """SlowFast's table, one number at a time: a quarter time, then width, then height."""
    dim, grid = 32, (2, 3, 4)
    table = sincos_positions(dim, grid).reshape(*grid, dim)
    place = (1, 2, 3)
    expected: list[float] = []
    for position, channels in ((place[0], 8), (place[2], 12), (place[1], 12)):
        angles = [position / 10000 ** (2 * i / channels) for i in range(channels // 2)]
        expected += [*map(math.sin, angles), *map(math.cos, angles)]
    torch.testing.assert_close(table[place], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("dim", "grid"), [(24, (2, 3, 4)), (32, (3, 4))])
def test_waves_need_pairs_of_channels_and_time(dim: int, grid: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"channels in multiples of 16, got .* and {dim}"):
        sincos_positions(dim, grid)


def test_fixed_positions_are_not_trained() -> None:
    model = tiny.model(tiny.clip(abs_pos="joint", abs_pos_init="sincos", blocks=tiny.wide(tiny.clip().blocks)))
    assert not model.pos_embed.requires_grad


def test_table_made_for_another_size_than_the_model() -> None:
    """Detection: absolute positions of the pre-training, at whatever size comes."""
    model = tiny.model(tiny.image(abs_pos="joint", abs_pos_size=(64, 64)))
    assert model.pos_embed.shape == (1, 256, 8)
    x = torch.randn(1, 3, 32, 48)
    expected = resample_grid(model.pos_embed, (16, 16), (8, 12))
    torch.testing.assert_close(model.embed(x)[0], model.patch_embed(x)[0] + expected)


def test_resampling_in_float32_only_where_a_peer_does() -> None:
    exact, rounded = (
        tiny.model(tiny.image(abs_pos="joint", abs_pos_float32=f), dtype=torch.float64) for f in (False, True)
    )
    rounded.load_state_dict(exact.state_dict())
    there = exact.positions((5, 7))
    assert torch.allclose(rounded.positions((5, 7)), there, atol=1e-6)
    assert not torch.equal(rounded.positions((5, 7)), there) and rounded.positions((5, 7)).dtype == torch.float64
