"""Triton's attention against the readable reference in float64: outputs and all gradients.

Runs on a CUDA device, and in Triton's interpreter on a CPU; `test_triton_interpreter.py` starts the latter.
"""

import os
from math import prod

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mvitv2.core.attend import reference
from mvitv2.core.windows import MASKED, padding_terms
from mvitv2.kernels.triton import attend
from mvitv2.kernels.triton.tiling import num_splits

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(),
    reason="no CUDA device; test_triton_interpreter.py runs this file in a process of its own",
)

# Of the largest number: float32 sums in another order; 16 bits keep 11 and 8 bits of every product's factors, and the
# interpreter cuts bfloat16 off where a GPU rounds.
TOLERANCE = {torch.float32: 3e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}


@pytest.fixture(autouse=True)
def poisoned():
    """Everything that is allocated and not written is NaN, and PyTorch refuses what is not deterministic."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def case(b, h, q_grid, k_grid, d, *, prefix=0, dtype=torch.float32, term_dtype=None, scale=1.0) -> list[Tensor]:
    """q, k, v and a term per axis."""
    made = [torch.randn(b, h, prefix + prod(grid), d) * scale for grid in (q_grid, k_grid, k_grid)]
    terms = [torch.randn(b, h, prod(q_grid), size) for size in k_grid]
    return [x.to(DEVICE, dtype) for x in made] + [x.to(DEVICE, term_dtype or dtype) for x in terms]


def expected(given, *, prefix=0, residual="none", tokens=False) -> tuple[Tensor, list[Tensor]]:
    """The reference in float64, and its inputs, which take gradients."""
    q, k, v, *terms = given = [x.detach().double().cpu().requires_grad_() for x in given]
    out = reference(q, k, v, terms)
    start = {"none": q.shape[2], "grid": prefix, "all": 0}[residual]
    out = out + F.pad(q[:, :, start:], (0, 0, start, 0))
    return out.transpose(1, 2).flatten(2) if tokens else out, given


def assert_close(got: Tensor, want: Tensor, tolerance: float) -> None:
    assert got.shape == want.shape
    assert torch.isfinite(got).all()
    largest = want.abs().max().clamp(min=1.0)  # some gradients are zero in theory
    error = (got.detach().double().cpu() - want).abs().max() / largest
    assert error <= tolerance, f"error {error:.2e} of the largest number, {tolerance:.2e} allowed"


def compare(given, *, prefix=0, residual="none", tokens=False, tolerance=None) -> None:
    """Outputs and gradients of the kernels against the reference."""
    given = [x.requires_grad_() for x in given]
    tolerance = TOLERANCE[given[0].dtype] if tolerance is None else tolerance
    q, k, v, *terms = given
    out = attend(q, k, v, terms, residual=residual, tokens=tokens)
    want, wanted = expected(given, prefix=prefix, residual=residual, tokens=tokens)
    assert_close(out, want, tolerance)
    weights = torch.randn(want.shape).to(out)
    gradients = torch.autograd.grad(out, given, weights)
    for got, gradient in zip(gradients, torch.autograd.grad(want, wanted, weights.double().cpu()), strict=True):
        assert_close(got, gradient, tolerance)


def test_poison_works() -> None:
    assert torch.empty(3).isnan().all() and torch.ones(2).new_empty(3).isnan().all()


@pytest.mark.parametrize(
    ("b", "h", "q_grid", "k_grid", "d", "prefix", "residual", "tokens"),
    [
        (2, 2, (5, 7), (3, 4), 20, 1, "none", False),
        (1, 2, (6, 6), (6, 7), 96, 0, "grid", True),
        (1, 2, (6, 6), (6, 7), 96, 1, "all", True),
        (1, 1, (2, 4, 5), (2, 3, 7), 72, 1, "grid", True),
        (1, 1, (3, 3, 4), (3, 1, 2), 64, 0, "none", True),
        (1, 1, (40,), (150,), 16, 1, "grid", False),  # a single long axis: its gradients are not summed
        (1, 1, (1,), (1,), 3, 0, "all", False),
    ],
)
def test_outputs_and_gradients(b, h, q_grid, k_grid, d, *, prefix, residual, tokens) -> None:
    compare(case(b, h, q_grid, k_grid, d, prefix=prefix), prefix=prefix, residual=residual, tokens=tokens)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("prefix", [0, 1])
def test_sixteen_bits(dtype, prefix) -> None:
    compare(case(1, 2, (5, 13), (5, 14), 96, prefix=prefix, dtype=dtype), prefix=prefix, residual="grid", tokens=True)


def test_sixteen_bits_with_three_axes_and_terms_of_another_type() -> None:
    compare(case(1, 1, (3, 4, 3), (2, 5, 7), 72, prefix=1, dtype=torch.bfloat16, term_dtype=torch.float16), prefix=1)
    compare(case(1, 1, (3, 4), (9, 9), 72, dtype=torch.float16, term_dtype=torch.float32))
    compare(case(1, 1, (3, 4), (130,), 24, dtype=torch.float16)[:3] + case(1, 1, (3, 4), (130,), 1)[3:])


def test_without_terms() -> None:
    q, k, v = given = case(1, 2, (5, 9), (6, 6), 40)[:3]
    compare(given, residual="all")
    out = attend(q, k, v, [], residual="grid", prefix=2)
    assert_close(out, expected(given, prefix=2, residual="grid")[0], 3e-6)


def test_tf32_is_a_choice() -> None:
    q, k, v, *terms = given = case(1, 2, (5, 9), (6, 6), 40)
    assert_close(attend(q, k, v, terms, tf32=True), expected(given)[0], 2e-3)  # keeps 10 bits of every factor


def test_many_queries_are_cut_into_stretches_for_the_gradients_of_keys() -> None:
    assert num_splits(33 * 16, programs=1, block=32) == 2
    compare(case(1, 1, (33, 16), (3, 3), 16))


def test_large_logits_in_half_precision() -> None:
    given = case(1, 1, (3, 3), (4, 4), 96, dtype=torch.float16)
    given = [given[0] * 200, given[1] * 200, *given[2:]]  # products of up to 1e6 do not fit
    assert not torch.isfinite((given[0].cpu() @ given[1].cpu().transpose(2, 3)).half()).all()
    q, k, v, *terms = given
    assert_close(attend(q, k, v, terms), expected(given)[0], TOLERANCE[torch.float16])


def test_windows_with_hidden_padding() -> None:
    grid, window = (5, 4), (3, 3)
    hidden = padding_terms(grid, window, like=torch.ones(1, device=DEVICE))
    given = case(4, 1, (2, 2), window, 16)
    terms = [t + p for t, p in zip(given[3:], hidden, strict=True)]
    compare([*given[:3], *terms])
    everywhere = [torch.full_like(t, MASKED) for t in given[3:]]
    compare([*given[:3], *everywhere], tolerance=3e-3)  # float32 keeps three decimals beside 2e4, in any order
    spread = [p.expand(4, 1, 4, -1) for p in hidden]  # without tables: not contiguous
    q, k, v = given[:3]
    assert_close(attend(q, k, v, spread), expected([*given[:3], *spread])[0], 3e-6)


def test_inputs_of_any_strides() -> None:
    qkv = torch.randn(2, 13, 3, 2, 20, device=DEVICE)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    compare([q, k, v, *case(2, 2, (3, 4), (3, 4), 1)[3:]], prefix=1)
    across = torch.randn(2, 2, 20, 13, device=DEVICE).transpose(2, 3)
    compare([across, k, v, *case(2, 2, (3, 4), (3, 4), 1)[3:]], prefix=1)


def test_gradients_of_any_strides() -> None:
    q, k, v, *terms = given = [x.requires_grad_() for x in case(1, 2, (3, 4), (3, 3), 16)]
    attend(q, k, v, terms, tokens=True).sum().backward()  # a gradient without strides at all
    want, wanted = expected(given, tokens=True)
    for x, gradient in zip(given, torch.autograd.grad(want.sum(), wanted), strict=True):
        assert x.grad is not None
        assert_close(x.grad, gradient, 3e-6)


def test_runs_are_equal_to_the_last_bit() -> None:
    given = [x.requires_grad_() for x in case(1, 1, (33, 16), (3, 3), 16, prefix=1)]

    def run() -> list[Tensor]:
        q, k, v, *terms = given
        out = attend(q, k, v, terms, residual="grid")
        return [out, *torch.autograd.grad(out.square().sum(), given)]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_a_batch_is_its_samples() -> None:
    q, k, v, *terms = case(2, 2, (3, 4), (2, 2), 24, prefix=1)
    whole = attend(q, k, v, terms)
    parts = [attend(q[i : i + 1], k[i : i + 1], v[i : i + 1], [t[i : i + 1] for t in terms]) for i in range(2)]
    assert torch.equal(whole, torch.cat(parts))


sizes = st.integers(1, 6)


@given(q_grid=st.lists(sizes, min_size=2, max_size=3), data=st.data(), d=st.integers(1, 40), prefix=st.integers(0, 1))
@settings(max_examples=8)
def test_any_shape(q_grid, data, d, prefix) -> None:
    k_grid = data.draw(st.lists(sizes, min_size=len(q_grid), max_size=len(q_grid)))
    q, k, v, *terms = given = case(1, 1, q_grid, k_grid, d, prefix=prefix)
    assert_close(attend(q, k, v, terms), expected(given)[0], 3e-6)


LARGE = [
    (8, 1, (56, 56), (14, 14), 96, 0),
    (8, 4, (14, 14), (28, 28), 96, 1),
    (16, 8, (7, 7), (7, 7), 96, 0),
    (25, 4, (14, 14), (14, 14), 72, 0),
    (1, 2, (64, 64), (64, 64), 96, 0),
    (2, 1, (8, 28, 28), (8, 7, 7), 64, 1),
    (1, 1, (20, 10, 10), (12, 32, 31), 72, 1),
]


@pytest.mark.gpu
@pytest.mark.parametrize(("b", "h", "q_grid", "k_grid", "d", "prefix"), LARGE)
def test_large_shapes_in_float32(b, h, q_grid, k_grid, d, prefix) -> None:
    compare(case(b, h, q_grid, k_grid, d, prefix=prefix), prefix=prefix, residual="grid", tokens=True, tolerance=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("b", "h", "q_grid", "k_grid", "d", "prefix"), LARGE)
def test_error_in_sixteen_bits_is_not_above_that_of_pytorch(b, h, q_grid, k_grid, d, *, prefix, dtype) -> None:
    from mvitv2.kernels.sdpa import masked

    torch.use_deterministic_algorithms(False)  # for the backward pass of PyTorch's kernel
    given = [x.requires_grad_() for x in case(b, h, q_grid, k_grid, d, prefix=prefix, dtype=dtype)]
    q, k, v, *terms = given
    want, wanted = expected(given)
    weights = torch.randn(want.shape).to(q)
    exact = [want, *torch.autograd.grad(want, wanted, weights.double().cpu())]

    def errors(out: Tensor) -> list[float]:
        results = [out, *torch.autograd.grad(out, given, weights)]
        return [(a.detach().double().cpu() - b).norm().item() for a, b in zip(results, exact, strict=True)]

    for ours, theirs in zip(errors(attend(q, k, v, terms)), errors(masked(q, k, v, terms)), strict=True):
        assert ours <= 1.1 * theirs  # both are rounding noise; a tenth is its spread
