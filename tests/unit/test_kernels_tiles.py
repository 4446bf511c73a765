"""Products by matrix units: float32 as exact as float32, bfloat16 as exact as its roundings, in any layout and size."""

import copy
import itertools

import hypothesis
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from mvitv2.core.grid import Grid
from mvitv2.core.relpos import axis_term
from mvitv2.kernels import Linear, cpp
from mvitv2.kernels.linear import TileProduct

pytestmark = pytest.mark.skipif(not cpp.has_tiles(), reason=f"products are made by {cpp.instructions()} here, not AMX")

# float32: other order of sums; bfloat16: roundings of inputs and result
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2}
SIZES = st.integers(1, 100)


def close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert (found.double() - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1e-30)


@pytest.fixture
def poisoned():
    """Fresh memory is full of NaN: what is not written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def one_thread_after():
    """As many threads as before, after a test that changes them."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@hypothesis.settings(max_examples=30, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(
    rows=SIZES,
    depth=SIZES,
    columns=SIZES,
    dtype=st.sampled_from(list(TOLERANCE)),
    turned=st.tuples(*[st.booleans()] * 2),
)
@pytest.mark.usefixtures("poisoned")
def test_a_product_of_any_size_and_layout(rows, depth, columns, dtype, turned) -> None:
    a, b, bias = torch.randn(rows, depth).to(dtype), torch.randn(depth, columns).to(dtype), torch.randn(columns)
    left = a.t().contiguous().t() if turned[0] else a
    right = b.t().contiguous().t() if turned[1] else b
    found = torch.ops.mvitv2_cpu.tile_matmul(left, right, bias, dtype)
    close(found, a.double() @ b.double() + bias, TOLERANCE[dtype])
    assert torch.equal(found, torch.ops.mvitv2_cpu.tile_matmul(left, right, bias, dtype))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows, depth, columns", [(70, 1700, 401), (300, 1000, 700), (1500, 2000, 500)])
def test_a_right_side_too_large_for_the_caches(
    rows: int, depth: int, columns: int, threads: int, dtype: torch.dtype, one_thread_after: None
) -> None:
    """It is packed a block of columns at a time, once or a few times; where that were too often, all of it before."""
    torch.set_num_threads(threads)
    a, b = torch.randn(rows, depth).to(dtype), torch.randn(depth, columns).to(dtype)
    wanted = a.double() @ b.double()
    for left, right in itertools.product((a, a.t().contiguous().t()), (b, b.t().contiguous().t())):
        close(torch.ops.mvitv2_cpu.tile_matmul(left, right, None, dtype), wanted, TOLERANCE[dtype])


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("gelu", [True, False])
@pytest.mark.parametrize("shape", [(1, 33), (2, 5, 72), (70, 96)])
def test_everything_in_one_pass(shape: tuple[int, ...], gelu: bool, dtype: torch.dtype) -> None:
    layer, norm = nn.Linear(shape[-1], 41), nn.LayerNorm(shape[-1])
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    layer, norm = layer.to(dtype), norm.to(dtype)
    x, residual = (2 * torch.randn(*shape) + 1).to(dtype), torch.randn(*shape[:-1], 41).to(dtype)
    packed = torch.ops.mvitv2_cpu.tile_pack(layer.weight)
    given = (x, packed, layer.bias, 41, gelu, residual, norm.weight, norm.bias, norm.eps)
    exact = copy.deepcopy(layer).double()(copy.deepcopy(norm).double()(x.double()))
    wanted = (F.gelu(exact) if gelu else exact) + residual.double()
    close(torch.ops.mvitv2_cpu.tile_linear(*given), wanted.detach(), TOLERANCE[dtype])


def test_tokens_whose_channels_lie_apart_are_normed_all_the_same() -> None:
    x, layer, norm = torch.randn(1, 40, 60).transpose(1, 2), nn.Linear(40, 8), nn.LayerNorm(40)
    packed = torch.ops.mvitv2_cpu.tile_pack(layer.weight)
    found = torch.ops.mvitv2_cpu.tile_linear(x, packed, layer.bias, 8, False, None, norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(found, layer(norm(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "q_grid, k_sizes", [((5, 6), (10, 35)), ((14, 14), (7, 7)), ((3, 4, 5), (2, 4, 33)), ((1, 40), (1, 3))]
)
def test_position_terms_are_those_of_the_core(q_grid: Grid, k_sizes: Grid) -> None:
    n = torch.Size(q_grid).numel()
    q = torch.randn(2, 1 + n, 3, 20).transpose(1, 2)[:, :, 1:]  # as pooling leaves them, behind a class token
    rows = [torch.randn(g, k, 20) for g, k in zip(q_grid, k_sizes, strict=True)]
    terms = torch.ops.mvitv2_cpu.tile_terms(q, rows, (1,) * (3 - len(q_grid)) + q_grid)
    for axis, (found, row) in enumerate(zip(terms, rows, strict=True)):
        close(found, axis_term(q.double(), row.double(), axis, q_grid), 3e-6)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [80, 600])
def test_a_linear_layer_and_its_gradients(rows: int, bias: bool, dtype: torch.dtype) -> None:
    """For few rows and for many, which in float32 are other products."""
    layer = nn.Linear(50, 34, bias).to(dtype)
    exact = copy.deepcopy(layer).double()
    x, upstream = torch.randn(2, rows // 2, 50).to(dtype), torch.randn(2, rows // 2, 34).to(dtype)
    layer.__class__ = Linear
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    found, wanted = layer(ours), exact(theirs)
    assert type(found.grad_fn).__name__ == "TileProductBackward"
    close(found, wanted.detach(), TOLERANCE[dtype])
    gradients = torch.autograd.grad(wanted, [theirs, *exact.parameters()], upstream.double())
    for g, w in zip(torch.autograd.grad(found, [ours, *layer.parameters()], upstream), gradients, strict=True):
        assert g.dtype == dtype
        close(g, w, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows, columns", [(1, 1), (5, 37), (256, 300), (1027, 16)])
def test_sums_of_columns(rows: int, columns: int, dtype: torch.dtype) -> None:
    """In float32 whatever the type of the numbers is; rows may lie apart, or be one row many times."""
    x = torch.randn(rows, columns + 3).to(dtype)[:, 1 : columns + 1]
    for given in (x, x.t().contiguous().t(), x[:1].expand(rows, -1)):
        found, wanted = torch.ops.mvitv2_cpu.column_sums(given), given.double().sum(0)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6 * rows**0.5)
        assert torch.equal(torch.ops.mvitv2_cpu.column_sums(given), found)
    with pytest.raises(RuntimeError, match="column_sums takes a matrix"):
        torch.ops.mvitv2_cpu.column_sums(x[0])


def test_autocast_multiplies_bfloat16_and_gives_gradients_of_the_weights_type() -> None:
    layer = Linear(50, 34)
    x = torch.randn(80, 50, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert (
        x.grad is not None
        and layer.weight.grad is not None
        and x.grad.dtype == layer.weight.grad.dtype == torch.float32
    )
    plain = F.linear(x.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16())
    torch.testing.assert_close(y, plain, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", [1, 70, 600])
def test_a_linear_layer_without_gradients(rows: int, dtype: torch.dtype) -> None:
    """By oneDNN, and by the matrix units for many rows in float32; any layout, with and without a bias."""
    for bias, turned in itertools.product((True, False), repeat=2):
        layer = Linear(50, 34, bias).to(dtype)
        x = (
            (torch.randn(50, 2, rows) if turned else torch.randn(rows, 2, 50).transpose(0, 2))
            .to(dtype)
            .permute(2, 1, 0)
        )
        exact = copy.deepcopy(layer).double()
        with torch.inference_mode():
            found, wanted = layer(x), exact(x.double())
        assert found.dtype == dtype and found.shape == (rows, 2, 34)
        close(found, wanted, TOLERANCE[dtype])
        with torch.no_grad():
            assert torch.equal(layer(x), found)
        assert layer(x).requires_grad


def test_few_rows_go_the_usual_way() -> None:
    layer = Linear(50, 34)
    assert type(layer(torch.randn(2, 50)).grad_fn).__name__ != "TileProductBackward"


def test_a_sum_that_is_not_finite_is_told() -> None:
    x = torch.randn(64, 32)
    x[3, 5] = torch.inf
    y = TileProduct.apply(x, torch.randn(32, 32), None)
    assert isinstance(y, Tensor)
    assert not y[3].isfinite().any() and y[[0, 1, 2, 4]].isfinite().all()


def test_what_does_not_fit_is_refused() -> None:
    operators = torch.ops.mvitv2_cpu
    with pytest.raises(RuntimeError, match="no product of"):
        operators.tile_matmul(torch.randn(3, 4), torch.randn(3, 4), None, torch.float32)
    packed = operators.tile_pack(torch.randn(8, 40))
    with pytest.raises(RuntimeError, match="packed numbers are no weight"):
        operators.tile_linear(torch.randn(3, 90), packed, None, 8, False, None, None, None, 0.0)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of opcheck itself
def test_the_product_is_registered_in_full() -> None:
    given = (torch.randn(5, 40), torch.randn(40, 7), torch.randn(7), torch.float32)
    torch.library.opcheck(torch.ops.mvitv2_cpu.tile_matmul.default, given)
