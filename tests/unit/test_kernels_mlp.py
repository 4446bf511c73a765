"""GELU and whole MLPs by the matrix units: how exact the short GELU is, number by number, and one pass against two."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvitv2.kernels import cpp

pytestmark = pytest.mark.skipif(not cpp.has_tiles(), reason=f"products are made by {cpp.instructions()} here, not AMX")

TAIL = 6e-9
"""What GELU leaves of numbers below -6, and its short forms do not tell from nothing."""
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1e-2}


def gelu(x: Tensor) -> Tensor:
    """Of numbers ``(N,)``, as a linear layer of one weight, which is 1, applies it."""
    one = torch.ones(1, 1, dtype=x.dtype)
    packed = torch.ops.mvitv2_cpu.tile_pack(one)
    return torch.ops.mvitv2_cpu.tile_linear(x[:, None], packed, None, 1, True, None, None, None, 0.0)[:, 0]


def exact(x: Tensor) -> Tensor:
    """In float64, without the cancellation that ``1 + erf`` has for negative numbers."""
    return x.double() * torch.special.erfc(-x.double() * 0.5**0.5) / 2


def test_gelu_of_every_bfloat16_is_off_by_its_rounding_and_an_eighth() -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    every = every[every.isfinite() & ((every == 0) | (every.abs() > 1e-30))]
    wanted, found = exact(every), gelu(every).double()
    assert len(every) > 50_000
    before = 2.0**-11 * wanted.abs()  # what is off before the result is rounded
    half_a_step = 2.0 ** (torch.frexp(wanted.abs() + before).exponent.double() - 9)
    assert ((found - wanted).abs() <= before + half_a_step + TAIL).all()


def test_gelu_of_float32_is_off_by_little_more_than_a_float() -> None:
    x = torch.cat((torch.linspace(-12, 12, 300_001), torch.linspace(-0.01, 0.01, 1001), torch.tensor([-3e38, 3e38])))
    wanted, found = exact(x), gelu(x).double()
    assert ((found - wanted).abs() <= 1e-7 + 1e-7 * wanted.abs()).all()
    theirs = (F.gelu(x).double() - wanted).abs()[:300_001]
    assert (found - wanted).abs()[:300_001].mean() <= 1.5 * theirs.mean()


def test_gelu_hides_nothing() -> None:
    x = torch.tensor([torch.nan, 1.0, torch.inf], dtype=torch.bfloat16)
    assert gelu(x)[0].isnan() and gelu(x)[2] == torch.inf


def layers(depth: int, hidden: int, features: int, dtype: torch.dtype) -> tuple[nn.LayerNorm, nn.Linear, nn.Linear]:
    norm, one, two = nn.LayerNorm(depth), nn.Linear(depth, hidden), nn.Linear(hidden, features)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm.to(dtype), one.to(dtype), two.to(dtype)


def packed(one: nn.Linear, two: nn.Linear) -> tuple[Tensor | int, ...]:
    operators = torch.ops.mvitv2_cpu
    first = operators.tile_pack(one.weight), one.bias, one.out_features
    return (*first, operators.tile_pack(two.weight), two.bias, two.out_features)


@pytest.fixture
def poisoned():
    """Fresh memory is full of NaN: what is not written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


SIZES = {
    # rows, channels, between, out
    "one row": ((1,), 5, 7, 3),
    "odd": ((3, 23), 40, 100, 41),
    "many slices": ((70,), 33, 900, 65),
    "many chunks": ((900,), 96, 384, 96),
    "weights beyond the caches": ((40,), 384, 1536, 384),
}


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", SIZES)
def test_an_mlp_in_one_pass(size: str, dtype: torch.dtype) -> None:
    rows, depth, hidden, features = SIZES[size]
    norm, one, two = layers(depth, hidden, features, dtype)
    x, residual = (2 * torch.randn(*rows, depth) + 1).to(dtype), torch.randn(*rows, features).to(dtype)
    found = torch.ops.mvitv2_cpu.tile_mlp(x, *packed(one, two), residual, norm.weight, norm.bias, norm.eps)
    n, a, b = (copy.deepcopy(layer).double() for layer in (norm, one, two))
    wanted = b(F.gelu(a(n(x.double())))) + residual.double()
    assert (found.double() - wanted).abs().max() <= TOLERANCE[dtype] * wanted.abs().max()
    again = torch.ops.mvitv2_cpu.tile_mlp(x, *packed(one, two), residual, norm.weight, norm.bias, norm.eps)
    assert torch.equal(found, again)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_one_pass_and_two_round_alike(dtype: torch.dtype) -> None:
    norm, one, two = layers(96, 384, 96, dtype)
    x, operators = torch.randn(200, 96).to(dtype), torch.ops.mvitv2_cpu
    weights = packed(one, two)
    whole = operators.tile_mlp(x, *weights, None, norm.weight, norm.bias, norm.eps)
    between = operators.tile_linear(x, *weights[:3], True, None, norm.weight, norm.bias, norm.eps)
    apart = operators.tile_linear(between, *weights[3:], False, None, None, None, 0.0)
    assert torch.equal(whole, apart)


def test_weights_of_another_mlp_are_refused() -> None:
    norm, one, two = layers(96, 384, 96, torch.float32)
    with pytest.raises(RuntimeError, match="packed numbers are no weights of an MLP of 32, 384 and 96"):
        torch.ops.mvitv2_cpu.tile_mlp(
            torch.randn(9, 32), *packed(one, two), None, norm.weight[:32], norm.bias[:32], 0.0
        )
    with pytest.raises(RuntimeError, match="residual is not of the result's type and size"):
        torch.ops.mvitv2_cpu.tile_mlp(
            torch.randn(9, 96), *packed(one, two), torch.randn(9, 95), norm.weight, norm.bias, 0.0
        )
