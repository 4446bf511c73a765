"""Sizes: what is computed beforehand is what the layers really leave, for every size, kernel and stride."""

import itertools

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from mvitv2.core.attend import reference
from mvitv2.core.config import schedule
from mvitv2.core.grid import num_prefix, over_grid, pooled
from mvitv2.core.layers import skip_pool
from mvitv2.core.reversible import build
from mvitv2.core.stages import stages
from tests import tiny

SIZES = range(1, 41)
STRIDES = (1, 2, 3, 4, 8)


@pytest.mark.parametrize(("kernel", "stride"), list(itertools.product((1, 2, 3, 4, 5, 7, 9), STRIDES)))
def test_pooled_is_what_layers_leave(kernel: int, stride: int) -> None:
    padding = kernel // 2
    layers = (
        nn.Conv1d(1, 1, kernel, stride, padding),
        nn.AvgPool1d(kernel, stride, padding),
        nn.MaxPool1d(kernel, stride, padding),
    )
    for size, layer in itertools.product(SIZES, layers):
        assert pooled((size,), (kernel,), (stride,)) == tuple(layer(torch.zeros(1, 1, size)).shape[2:])


@pytest.mark.parametrize("stride", (2, 4, 8))
@pytest.mark.parametrize("kernel", (1, 3, 5, 7))
def test_shortcut_lands_on_the_grid_of_the_queries(kernel: int, stride: int) -> None:
    skip = skip_pool((stride, 1))
    assert skip is not None
    for size in SIZES:
        left = tuple(skip(torch.zeros(1, 1, size, 3)).shape[2:])
        assert left == pooled((size, 3), (kernel, 1), (stride, 1))


def test_no_shortcut_pooling_where_nothing_is_strided() -> None:
    assert skip_pool((1, 1, 1)) is None


@pytest.mark.parametrize("stride", (2, 3, 4, 5))
def test_kernels_one_wider_than_the_stride_always_land_together(stride: int) -> None:
    (_, opening) = stages(depths=(1, 1), embed_dim=8, kernel=None, q_stride=(stride, stride))
    skip = skip_pool(opening.q_stride)
    assert skip is not None and opening.q_kernel == (stride + 1,) * 2
    for size in SIZES:
        assert tuple(skip(torch.zeros(1, 1, size, size)).shape[2:]) == pooled(
            (size,) * 2, opening.q_kernel, (stride,) * 2
        )


@pytest.mark.parametrize("form", tiny.FORMS)
def test_schedule_is_what_a_model_does(form: str) -> None:
    config = tiny.FORMS[form]()
    model = build(config, reference).eval()
    x = torch.randn(1, 3, *config.input_size)
    levels = [grid for _, grid in model.trunk(x)]
    leaving = {spec.stage: spec.q_grid for spec in schedule(config)}
    assert levels == list(leaving.values())


@hypothesis.given(st.lists(st.integers(1, 5), min_size=2, max_size=3), st.booleans(), st.integers(1, 3))
def test_class_token_goes_around_a_layer_untouched(grid: list[int], has_token: bool, stride: int) -> None:
    x = torch.randn(2, has_token + torch.Size(grid).numel(), 3)
    pool = (nn.MaxPool2d if len(grid) == 2 else nn.MaxPool3d)(3, stride, 1)
    y, left = over_grid(x, tuple(grid), pool)
    assert left == pooled(tuple(grid), (3,) * len(grid), (stride,) * len(grid))
    assert num_prefix(y, left) == has_token or torch.Size(left).numel() == 1
    assert torch.equal(y[:, :has_token], x[:, :has_token])
    lattice = x[:, has_token:].transpose(1, 2).reshape(2, 3, *grid)
    assert torch.equal(y[:, has_token:], pool(lattice).flatten(2).transpose(1, 2))
