"""An MLP in training by the matrix units: outputs and gradients of the plain one, or the plain one where it must be."""

import copy

import pytest
import torch
from torch import Tensor, nn

from mvitv2.core.layers import MLP
from mvitv2.kernels import cpp, use
from mvitv2.kernels.mlp import FusedMLP

pytestmark = pytest.mark.skipif(not cpp.has_tiles(), reason=f"products are made by {cpp.instructions()} here, not AMX")

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1.5e-2}
FUSED = "TileMLPBackward"


def close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert (found.double() - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1e-30)


def pair(*, bias: bool = True, dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> tuple[MLP, MLP]:
    """A plain MLP, and a copy that is fused."""
    plain = MLP(50, 130, 34, bias=bias, dropout=dropout).to(dtype)
    fused = use(nn.Sequential(copy.deepcopy(plain)), "auto")[0]
    assert type(fused) is FusedMLP
    return plain, fused


def maker(y: Tensor) -> str:
    """What recorded a result, beneath its view."""
    assert y.grad_fn is not None
    return type(y.grad_fn.next_functions[0][0]).__name__


@pytest.fixture
def poisoned():
    """Fresh memory is full of NaN: what is not written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [128, 701, 4200])
def test_outputs_and_gradients(rows: int, bias: bool, dtype: torch.dtype) -> None:
    plain, fused = pair(bias=bias, dtype=dtype)
    exact = plain.double()
    x, upstream = (2 * torch.randn(1, rows, 50)).to(dtype), torch.randn(1, rows, 34).to(dtype)
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    found, wanted = fused(ours), exact(theirs)
    assert maker(found) == FUSED and found.dtype == dtype
    close(found, wanted.detach(), TOLERANCE[dtype])
    gradients = torch.autograd.grad(wanted, [theirs, *exact.parameters()], upstream.double())
    given = torch.autograd.grad(found, [ours, *fused.parameters()], upstream, retain_graph=True)
    again = torch.autograd.grad(found, [ours, *fused.parameters()], upstream)
    for one, other, w in zip(given, again, gradients, strict=True):
        assert one.dtype == dtype and torch.equal(one, other)
        close(one, w, TOLERANCE[dtype])


def test_autocast_gives_gradients_of_the_weights_type() -> None:
    plain, fused = pair()
    x = torch.randn(2, 300, 50)
    with torch.autocast("cpu", torch.bfloat16):
        found = fused(x)
    assert maker(found) == FUSED and found.dtype == torch.bfloat16
    found.float().square().sum().backward()
    exact = plain.double()
    exact(x.double()).square().sum().backward()
    for parameter, wanted in zip(fused.parameters(), exact.parameters(), strict=True):
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32
        close(parameter.grad, wanted.grad, 4e-2)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("frozen", [("fc1.weight", "fc1.bias"), ("fc2.weight",), ("fc1.bias", "fc2.bias")])
def test_what_is_frozen_gets_no_gradient(frozen: tuple[str, ...]) -> None:
    plain, fused = pair()
    for layer in (plain, fused):
        for name in frozen:
            layer.get_parameter(name).requires_grad_(False)
    x = torch.randn(600, 50)
    assert maker(fused(x)) == FUSED
    for layer in (plain, fused):
        layer(x).square().sum().backward()
    for (name, ours), theirs in zip(fused.named_parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (name in frozen)
        if name not in frozen:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 3e-7), (torch.bfloat16, 5e-3)])
def test_slopes_everywhere(dtype: torch.dtype, tolerance: float) -> None:
    before = torch.linspace(-40, 40, 40 * 2000).view(40, 2000).to(dtype)
    before[0, :9] = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 6.5, -6.5, 10.0, -10.0, 1e30])
    found = torch.ops.mvitv2_cpu.tile_slope_matmul(torch.eye(40), torch.ones(40, 2000), before)
    exact = before.double().requires_grad_()
    nn.functional.gelu(exact).sum().backward()
    torch.testing.assert_close(found.double(), exact.grad, rtol=0, atol=tolerance)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite_is_told(value: float) -> None:
    before = torch.full((4, 5), value)
    assert not torch.ops.mvitv2_cpu.tile_slope_matmul(torch.eye(4), torch.ones(4, 5), before).isfinite().any()


def test_the_plain_one_where_it_must_be() -> None:
    """For few rows, dropout, hooks, other activations, and where nobody asks for gradients."""
    x = torch.randn(600, 50)
    _, few = pair()
    _, dropping = pair(dropout=0.5)
    _, watched = pair()
    watched.fc1.register_forward_hook(lambda *_: None)
    _, other = pair()
    other.act = nn.GELU(approximate="tanh")
    for layer, given in ((few, x[:100]), (dropping, x), (watched, x), (other, x)):
        assert type(layer(given).grad_fn).__name__ != "ViewBackward0" or maker(layer(given)) != FUSED
    with torch.no_grad():
        assert few(x).grad_fn is None
    assert maker(dropping.eval()(x)) == FUSED


def test_another_backend_takes_it_back() -> None:
    _, fused = pair()
    assert type(use(nn.Sequential(fused), "reference")[0]) is MLP


def test_operators_are_registered_in_full() -> None:
    a, b, before = torch.randn(70, 40), torch.randn(40, 30), torch.randn(70, 30)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.mvitv2_cpu.tile_gelu_matmul.default, (a, b, torch.randn(30)), test_utils=tests)
    torch.library.opcheck(torch.ops.mvitv2_cpu.tile_slope_matmul.default, (a, b, before), test_utils=tests)
    with pytest.raises(RuntimeError, match="is not the size of a product"):
        torch.ops.mvitv2_cpu.tile_slope_matmul(a, b, before.t())
