"""Relative positions: every pair of a query and a key has a row, and the logit depends on their displacement only."""

import itertools
from fractions import Fraction

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from mvitv2.core.relpos import RESAMPLING, anchored, axis_term, displacement, linear, steps, table_rows

ORDERS = ("authors", "torchvision")
SIZES = range(1, 41)
size = st.integers(1, 24)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("q_size", SIZES)
def test_every_displacement_has_a_row(q_size: int, order: str) -> None:
    for k_size in SIZES:
        rows = displacement(q_size, k_size, order=order)
        assert rows.shape == (q_size, k_size) and rows.dtype == torch.int64
        assert rows.min() >= 0 and rows.max() < table_rows(q_size, k_size)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("q_size", SIZES)
def test_rows_are_exact_displacements_cut_off(q_size: int, order: str) -> None:
    """Float32 may put a pair one row below exact arithmetic, never elsewhere."""
    for k_size in SIZES:
        q_step, k_step = max(Fraction(k_size, q_size), Fraction(1)), max(Fraction(q_size, k_size), Fraction(1))
        rows = displacement(q_size, k_size, order=order)
        for i, j in {(0, 0), (q_size - 1, 0), (0, k_size - 1), (q_size // 2, k_size // 3)}:
            exact = int(i * q_step + (k_size - 1 - j) * k_step)
            assert rows[i, j] in (exact, exact - 1)


@pytest.mark.parametrize(("coarse", "ratio"), list(itertools.product(range(1, 14), (1, 2, 3, 4, 8))))
def test_logits_depend_on_displacement_only(coarse: int, ratio: int) -> None:
    """Moving a query and a key together leaves their logit as it is: the shift invariance that the paper is about."""
    for q_size, k_size in ((coarse * ratio, coarse), (coarse, coarse * ratio)):
        table = torch.randn(table_rows(q_size, k_size), 4)
        q = torch.randn(4).expand(1, 1, q_size, 4)
        logits = axis_term(q, table[displacement(q_size, k_size)], 0, (q_size,))[0, 0]
        q_shift, k_shift = (ratio, 1) if q_size >= k_size else (1, ratio)
        torch.testing.assert_close(logits[q_shift:, k_shift:], logits[:-q_shift, :-k_shift], rtol=0, atol=0)


def test_another_displacement_has_another_row() -> None:
    rows = displacement(7, 7)
    assert torch.equal(rows, torch.arange(7)[:, None] - torch.arange(7) + 6)
    assert len(rows.unique()) == table_rows(7, 7) == 13


@pytest.mark.parametrize("rule", RESAMPLING)
@hypothesis.given(size, size)
def test_every_rule_is_the_identity_at_its_own_size(rule: str, q_size: int, k_size: int) -> None:
    table = torch.randn(table_rows(q_size, k_size), 3)
    assert torch.equal(RESAMPLING[rule](table, q_size, k_size, steps(q_size, k_size)[1]), table)


@pytest.mark.parametrize("rule", ("linear", "anchored"))
@hypothesis.given(size, size, size, size)
def test_resampled_tables_have_the_rows_that_are_needed(rule: str, q: int, k: int, new_q: int, new_k: int) -> None:
    table = torch.randn(table_rows(q, k), 3)
    rows = RESAMPLING[rule](table, new_q, new_k, steps(q, k)[1])
    assert rows.shape == (table_rows(new_q, new_k), 3)
    assert rows.min() >= table.min() - 1e-5 and rows.max() <= table.max() + 1e-5


@hypothesis.given(st.integers(1, 16), st.sampled_from((1, 2, 4)), st.integers(1, 16), st.sampled_from((1, 2, 4)))
def test_anchored_keeps_the_row_of_displacement_zero(k: int, ratio: int, new_k: int, new_ratio: int) -> None:
    table = torch.randn(table_rows(k * ratio, k), 3)
    rows = anchored(table, new_k * new_ratio, new_k, float(ratio))
    assert torch.equal(rows[(new_k - 1) * new_ratio], table[(k - 1) * ratio])


def test_linear_moves_the_row_of_displacement_zero() -> None:
    """Why there is a rule of our own: keys at a quarter of 56 queries, run at 128 (no peer says so)."""
    table = torch.arange(111.0, dtype=torch.float64)[:, None]
    zero = (14 - 1) * 4
    at_128 = (32 - 1) * 4
    assert abs(linear(table, 128, 32, 4.0)[at_128].item() - zero) > 1.5
    assert anchored(table, 128, 32, 4.0)[at_128].item() == zero


@hypothesis.given(size, size, size)
def test_anchored_is_antisymmetric_for_antisymmetric_tables(k: int, new_k: int, dim: int) -> None:
    """Queries as fine as keys: an odd function of the displacement stays one."""
    half = torch.randn(k - 1, dim, dtype=torch.float64)
    table = torch.cat((-half.flip(0), torch.zeros(1, dim, dtype=torch.float64), half))
    rows = anchored(table, new_k, new_k, 1.0)
    torch.testing.assert_close(rows, -rows.flip(0), rtol=0, atol=1e-5)
