"""Decomposed relative positions by example, the rule for smaller inputs, and the memory of row numbers."""

import itertools

import pytest
import torch
from torch import nn

from mvitv2.core.relpos import (
    anchored,
    cal_rel_pos_spatial,
    cal_rel_pos_temporal,
    displacement,
    first_rows,
    linear,
    position_rows,
    remembered_displacement,
    steps,
    table_rows,
)


def test_displacements_of_queries_twice_as_fine_as_keys() -> None:
    assert displacement(4, 2).tolist() == [[2, 0], [3, 1], [4, 2], [5, 3]]
    assert displacement(2, 4).tolist() == [[3, 2, 1, 0], [5, 4, 3, 2]]
    assert (table_rows(4, 2), table_rows(2, 4), steps(4, 2), steps(2, 4)) == (7, 7, (1.0, 2.0), (2.0, 1.0))


def test_the_two_orders_of_summing_differ_at_few_sizes() -> None:
    """The numbers of the released weights: float32, summed as the authors do."""
    different = {
        (q, k)
        for q, k in itertools.product(range(1, 60), repeat=2)
        if not torch.equal(displacement(q, k), displacement(q, k, order="torchvision"))
    }
    assert (39, 10) in different and (56, 14) not in different
    assert all(q % k and k % q for q, k in different), "never where one size divides the other"


def loops(q: torch.Tensor, rows: torch.Tensor, axis: int, grid: tuple[int, ...]) -> torch.Tensor:
    out = q.new_zeros(*q.shape[:3], rows.shape[1])
    for n, place in enumerate(itertools.product(*map(range, grid))):
        out[:, :, n] = q[:, :, n] @ rows[place[axis]].T
    return out


def test_terms_are_products_of_queries_and_rows() -> None:
    q, grid = torch.randn(2, 3, 24, 5), (2, 3, 4)
    time, height, width = (torch.randn(n, k, 5) for n, k in zip(grid, (2, 4, 1), strict=True))
    torch.testing.assert_close(cal_rel_pos_temporal(q, time, grid), loops(q, time, 0, grid))
    found = cal_rel_pos_spatial(q, [height, width], grid)
    torch.testing.assert_close(found[0], loops(q, height, 1, grid))
    torch.testing.assert_close(found[1], loops(q, width, 2, grid))
    image = cal_rel_pos_spatial(q[:, :, :12], [torch.randn(3, 2, 5), torch.randn(4, 2, 5)], (3, 4))
    assert [term.shape for term in image] == [(2, 3, 12, 2)] * 2


def test_first_rows_serve_smaller_inputs_only() -> None:
    table = torch.randn(13, 4)
    assert torch.equal(first_rows(table, 5, 3, 1.0), table[:9])
    with pytest.raises(ValueError, match=r'8 queries on 4 keys need 15 position rows, the table has 13; .*"anchored"'):
        first_rows(table, 8, 4, 1.0)


def test_linear_is_interpolation_over_the_whole_table() -> None:
    """detectron2's ``get_rel_pos``, on numbers one can check by hand."""
    table = torch.tensor([[0.0], [3.0], [6.0]])
    assert linear(table, 3, 2, 1.0).flatten().tolist() == pytest.approx([0.0, 1.2, 3.0, 4.8, 6.0])


def test_anchored_scales_displacements_around_zero() -> None:
    table = torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [2.0]])  # displacement itself, for 3 queries and keys
    assert anchored(table, 6, 6, 1.0).flatten().tolist() == pytest.approx(
        [-2, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2]
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_resampled_rows_keep_their_precision(dtype: torch.dtype) -> None:
    table = torch.randn(7, 4, dtype=dtype)
    assert anchored(table, 6, 6, 1.0).dtype == linear(table, 6, 6, 1.0).dtype == dtype


def test_gradient_of_a_resampled_table() -> None:
    table = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    for rule in (linear, anchored):
        assert torch.autograd.gradcheck(lambda t, rule=rule: rule(t, 7, 3, 1.0), table)


def rows(table: torch.Tensor) -> torch.Tensor:
    return position_rows(table, 4, 2, resampling=linear, stretch=2.0, order="authors")


def test_row_numbers_are_computed_once() -> None:
    remembered_displacement.cache_clear()
    table = nn.Parameter(torch.randn(7, 3))
    first = rows(table)
    assert torch.equal(first, table[displacement(4, 2)])
    with torch.profiler.profile() as profile:
        rows(table)
    assert not [event.key for event in profile.key_averages() if "arange" in event.key]
    assert remembered_displacement.cache_info().hits == 1


def test_memory_filled_in_inference_mode_serves_training() -> None:
    remembered_displacement.cache_clear()
    table = nn.Parameter(torch.randn(7, 3))
    with torch.inference_mode():
        rows(table)
    rows(table).sum().backward()
    assert table.grad is not None


def test_memory_filled_under_a_transform_serves_everyone() -> None:
    remembered_displacement.cache_clear()
    table = torch.randn(7, 3)
    transformed = torch.func.grad(lambda t: rows(t).square().sum())(table)
    plain = table.clone().requires_grad_()
    rows(plain).square().sum().backward()
    assert plain.grad is not None and torch.equal(transformed, plain.grad)


def test_memory_is_kept_apart_by_device() -> None:
    remembered_displacement.cache_clear()
    assert rows(torch.randn(7, 3, device="meta")).device.type == "meta"
    assert rows(torch.randn(7, 3)).device.type == "cpu"
