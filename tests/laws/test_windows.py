"""Windows: cutting and joining undo each other, and masked padding is as if there were no padding at all."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from mvitv2.core.attend import reference
from mvitv2.core.attention import MultiScaleAttention
from mvitv2.core.config import MViTConfig, schedule
from mvitv2.core.grid import Grid
from mvitv2.core.stages import stages
from mvitv2.core.windows import MASKED, merge, padding_terms, split
from tests import tiny

sides = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5)), min_size=2, max_size=3)


@hypothesis.given(sides)
def test_merge_undoes_split(axes: Sequence[tuple[int, int]]) -> None:
    grid, window = (tuple(numbers) for numbers in zip(*axes, strict=True))
    x = torch.randn(2, 3, torch.Size(grid).numel(), 4)
    cut, counts = split(x, grid, window)
    assert counts == tuple(-(-n // w) for n, w in axes)
    assert cut.shape == (2 * torch.Size(counts).numel(), 3, torch.Size(window).numel(), 4)
    assert torch.equal(merge(cut, grid, window, counts), x)
    assert cut.sum().item() == pytest.approx(x.sum().item(), abs=1e-3), "what fills up the windows is zeros"


@hypothesis.given(sides)
def test_padding_terms_hide_what_is_no_key(axes: Sequence[tuple[int, int]]) -> None:
    grid, window = (tuple(numbers) for numbers in zip(*axes, strict=True))
    real, counts = split(torch.ones(1, 1, torch.Size(grid).numel(), 1), grid, window)
    terms = padding_terms(grid, window, like=real)
    total = torch.zeros(torch.Size(counts).numel(), *window)
    for axis, term in enumerate(terms):
        assert term.shape == (len(total), 1, 1, window[axis])
        total += term.reshape(-1, *(n if a == axis else 1 for a, n in enumerate(window)))
    assert torch.equal(total.flatten(1) == 0, real[:, 0, :, 0] == 1)
    assert (total.flatten(1)[real[:, 0, :, 0] == 0] <= MASKED).all()


def window_by_window(attn: MultiScaleAttention, q: Tensor, k: Tensor, v: Tensor, grids: tuple[Grid, Grid]) -> Tensor:
    """What masked windows compute, from the definition: one query at a time, only keys that exist."""
    (q_grid, k_grid), (q_window, k_window) = grids, attn.spec.windows or ((), ())
    q, k, v = q.unflatten(2, q_grid), k.unflatten(2, k_grid), v.unflatten(2, k_grid)
    out = torch.zeros_like(q)
    tables = [attn.rows(axis, q_window, k_window) for axis in attn.axes]
    for i in itertools.product(*map(range, q_grid)):
        here = [n // w for n, w in zip(i, q_window, strict=True)]
        keys = itertools.product(
            *(range(c * w, min(c * w + w, n)) for c, w, n in zip(here, k_window, k_grid, strict=True))
        )
        query, logits, values = q[(..., *i, slice(None))], [], []
        for j in keys:
            row = torch.zeros_like(query[0, 0])
            for table, a, b, qw, kw in zip(tables, i, j, q_window, k_window, strict=True):
                row = row + table[a % qw, b % kw]
            logits.append((query * (k[(..., *j, slice(None))] * query.shape[-1] ** -0.5 + row)).sum(-1))
            values.append(v[(..., *j, slice(None))])
        weights = torch.stack(logits, -1).softmax(-1)
        out[(..., *i, slice(None))] = torch.einsum("bhk,bhkd->bhd", weights, torch.stack(values, 2))
    return out.flatten(2, -2)


def windowed_attention(rank: int, *, padding: Literal["attended", "masked"]) -> MultiScaleAttention:
    """A block whose queries are pooled by 1 and keys by 2, in windows of 4."""
    still, twice = (1,) * rank, (1, 2, 2)[-rank:]
    blocks = stages(depths=(1,), embed_dim=8, num_heads=2, kernel=(3,) * rank, q_stride=(still,), kv_stride=(twice,))
    numbers: dict[str, Any] = {
        "blocks": tuple(replace(block, window=4) for block in blocks),
        "input_size": (4,) * rank,
        "patch_kernel": still,
        "patch_stride": still,
        "patch_padding": (0,) * rank,
    }
    config = MViTConfig(**numbers, num_classes=0, window_padding=padding)
    attn = MultiScaleAttention(config, schedule(config)[0], reference).double()
    for parameter in attn.parameters():
        torch.nn.init.normal_(parameter)
    return attn


@pytest.mark.parametrize("grid", [(4, 8), (5, 7), (1, 1), (3, 6), (5, 3, 6), (2, 4, 5)], ids=str)
def test_masked_padding_is_no_padding(grid: Grid) -> None:
    attn = windowed_attention(len(grid), padding="masked")
    k_grid = tuple(-(-n // s) for n, s in zip(grid, attn.spec.kv_stride, strict=True))
    q = torch.randn(2, 2, torch.Size(grid).numel(), 4, dtype=torch.float64)
    k, v = (torch.randn(2, 2, torch.Size(k_grid).numel(), 4, dtype=torch.float64) for _ in "kv")
    expected = window_by_window(attn, q, k, v, (grid, k_grid))
    torch.testing.assert_close(attn.mix_grids(q, k, v, grid, k_grid), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("grid", [(4, 8), (8, 4)], ids=str)
def test_full_windows_need_no_convention(grid: Grid) -> None:
    attended, masked = (windowed_attention(2, padding=padding) for padding in ("attended", "masked"))
    masked.load_state_dict(attended.state_dict())
    x = torch.randn(2, 32, 8, dtype=torch.float64)
    assert torch.equal(attended(x, grid)[0], masked(x, grid)[0])


def test_padding_that_is_attended_to_takes_weight() -> None:
    """detectron2's convention, for a grid that does not divide: zero keys, zero values, position logits."""
    attended, masked = (windowed_attention(2, padding=padding) for padding in ("attended", "masked"))
    masked.load_state_dict(attended.state_dict())
    x = torch.randn(1, 15, 8, dtype=torch.float64)
    assert not torch.allclose(attended(x, (3, 5))[0], masked(x, (3, 5))[0])


def test_masked_padding_works_without_tables_too() -> None:
    config = tiny.detector(rel_pos_spatial=False, window_padding="masked")
    model, x = tiny.model(config), torch.randn(1, 3, 40, 56)
    small = [level for level, _ in model.trunk(x)]
    assert all(level.isfinite().all() for level in small)


def test_one_window_is_global_attention() -> None:
    """A window that holds all of the grid changes nothing."""
    attn = windowed_attention(2, padding="masked")
    x = torch.randn(2, 16, 8, dtype=torch.float64)
    windowed, grid = attn(x, (4, 4))
    attn.spec = replace(attn.spec, window=None)
    everywhere, _ = attn(x, (4, 4))
    torch.testing.assert_close(windowed, everywhere, rtol=1e-12, atol=1e-12)
    assert grid == (4, 4)
