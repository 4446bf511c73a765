"""Max-pooling of shortcuts by C++: PyTorch's numbers and gradients, ties and NaN included."""

import pytest
import torch
from torch import nn

from mvitv2.core.grid import Grid, over_grid
from mvitv2.kernels import cpp, use
from mvitv2.kernels.pooling import MaxPool2d, MaxPool3d, suits
from mvitv2.models import create_model

pytestmark = pytest.mark.skipif(not cpp.available(), reason=str(cpp.missing()))


def pair(grid: Grid, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    kinds = (nn.MaxPool2d, MaxPool2d) if len(grid) == 2 else (nn.MaxPool3d, MaxPool3d)
    plain, fast = (kind(kernel, stride, kernel // 2) for kind in kinds)
    return plain, fast


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grid, kernel, stride", [((7, 9), 3, 2), ((4, 4), 3, 1), ((2, 8, 7), 3, 2), ((1, 2), 3, 2)])
@pytest.mark.parametrize("prefix, channels", [(0, 40), (1, 7)])
def test_numbers_and_gradients(grid: Grid, kernel: int, stride: int, prefix: int, channels: int, dtype) -> None:
    plain, fast = pair(grid, kernel, stride)
    x = torch.randint(-3, 3, (2, prefix + torch.Size(grid).numel(), channels)).to(dtype).requires_grad_()  # with ties
    wanted, wanted_grid = over_grid(x, grid, plain)
    found, found_grid = over_grid(x, grid, fast)
    assert found_grid == wanted_grid and torch.equal(found, wanted)
    upstream = torch.randint(-3, 3, wanted.shape).to(dtype)
    ours, theirs = (torch.autograd.grad(y, x, upstream)[0] for y in (found, wanted))
    assert torch.equal(ours, theirs)


def test_a_nan_is_the_largest() -> None:
    plain, fast = pair((4, 4), 3, 2)
    x = torch.randn(1, 16, 20)
    x[0, 5, 3] = torch.nan
    for pool in (plain, fast):
        assert over_grid(x, (4, 4), pool)[0][0, :, 3].isnan().any()
    torch.testing.assert_close(over_grid(x, (4, 4), fast)[0], over_grid(x, (4, 4), plain)[0], equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_nan_and_of_infinities_go_where_pytorch_sends_them(dtype: torch.dtype) -> None:
    plain, fast = pair((6, 6), 3, 2)
    x = torch.randn(2, 36, 21).to(dtype)
    x[0, [7, 8], 3], x[0, :, 4], x[1, 7:20, 5] = torch.nan, -torch.inf, torch.inf
    upstream = torch.randint(-3, 3, (2, 9, 21)).to(dtype)
    ours, theirs = (
        torch.autograd.grad(over_grid(given, (6, 6), pool)[0], given, upstream)[0]
        for pool in (fast, plain)
        for given in (x.clone().requires_grad_(),)
    )
    assert torch.equal(ours, theirs)


def test_other_layouts_and_types_go_the_usual_way() -> None:
    pool = MaxPool2d(3, 2, 1)
    for x in (torch.randn(1, 5, 6, 6), torch.randn(1, 6, 6, 5, dtype=torch.float64).permute(0, 3, 1, 2)):
        assert not suits(pool, x)
        assert torch.equal(pool(x), nn.MaxPool2d(3, 2, 1)(x))


def test_it_comes_and_goes_with_a_backend() -> None:
    model = create_model("mvitv2_t", img_size=32, backend="cpp")
    kinds = {type(m) for m in model.modules() if isinstance(m, nn.MaxPool2d)}
    assert kinds == {MaxPool2d}
    use(model, "reference")
    assert {type(m) for m in model.modules() if isinstance(m, nn.MaxPool2d)} == {nn.MaxPool2d}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of opcheck itself
def test_it_is_registered_in_full() -> None:
    x = torch.randn(2, 12, 8, requires_grad=True)
    torch.library.opcheck(torch.ops.mvitv2_cpu.max_pool.default, (x, (1, 3, 4), (1, 3, 3), (1, 2, 2), (0, 1, 1)))
