"""Windows by example; what holds for all grids is in the laws."""

import pytest
import torch
from torch import Tensor

from mvitv2.core.grid import Grid
from mvitv2.core.windows import MASKED, merge, num_windows, padding_terms, places, split, windowed


def numbered(grid: Grid) -> Tensor:
    return torch.arange(1.0, 1 + torch.Size(grid).numel())[None, None, :, None]


def test_cutting() -> None:
    cut, counts = split(numbered((2, 3)), (2, 3), (2, 2))
    assert counts == num_windows((2, 3), (2, 2)) == (1, 2)
    assert cut[:, 0, :, 0].tolist() == [[1, 2, 4, 5], [3, 0, 6, 0]]
    assert merge(cut, (2, 3), (2, 2), counts).flatten().tolist() == [1, 2, 3, 4, 5, 6]


def test_windows_follow_their_sample() -> None:
    x = torch.randn(3, 2, 20, 5)
    cut, counts = split(x, (4, 5), (2, 3))
    alone, _ = split(x[1:2], (4, 5), (2, 3))
    assert counts == (2, 2) and torch.equal(cut[4:8], alone)


def test_places_that_windows_cover() -> None:
    assert places(2, 3, device=torch.device("cpu")).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_mix_sees_each_window_and_its_grids() -> None:
    seen: list[tuple[tuple[int, ...], Grid, Grid]] = []

    def mix(q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, k_grid: Grid) -> Tensor:
        seen.append((tuple(k.shape), q_grid, k_grid))
        return q * 2 + v.sum()

    q, k = torch.ones(1, 1, 15, 4), torch.zeros(1, 1, 6, 4)
    out = windowed(mix, (2, 2), (1, 1))(q, k, k, (3, 5), (2, 3))
    assert seen == [((6, 1, 1, 4), (2, 2), (1, 1))]
    assert torch.equal(out, q * 2), "padding is cut away again"


def test_what_is_masked() -> None:
    terms = padding_terms((2, 3), (2, 2), like=torch.zeros(1))
    assert [t.flatten(1).tolist() for t in terms] == [[[0, 0], [0, 0]], [[0, 0], [0, MASKED]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_masked_key_gets_no_weight_in_any_precision(dtype: torch.dtype) -> None:
    masks = padding_terms((1, 1, 1), (1, 2, 2), like=torch.zeros(1, dtype=dtype))
    total = masks[0] + masks[1].transpose(2, 3) + masks[2]
    assert total.isfinite().all() and total.dtype == dtype
    assert total.float().flatten().softmax(0).tolist() == [1, 0, 0, 0]
