"""Whatever the shapes: the C++ operators give what the readable functions define in float64, the same every time."""

from collections.abc import Sequence
from math import prod

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from mvitv2.core.attend import reference
from mvitv2.core.grid import Grid
from mvitv2.core.layers import pool_then_norm
from mvitv2.kernels import cpp

pytestmark = pytest.mark.skipif(not cpp.available(), reason=str(cpp.missing()))

# of the largest number in an output, or among all gradients of a case, or of 1: float32 in another order of sums,
# bfloat16 with 8 bits in inputs and outputs
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1.2e-2}
GRIDS = st.one_of(st.tuples(*[st.integers(1, 9)] * 2), st.tuples(st.integers(1, 4), *[st.integers(1, 6)] * 2))
DTYPES = st.sampled_from(list(TOLERANCE))
SEEDS = st.integers(0, 2**31)


@pytest.fixture(scope="module", autouse=True)
def poisoned():
    """Fresh memory is full of NaN: what is not written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def close(found: Sequence[Tensor], wanted: Sequence[Tensor], tolerance: float) -> None:
    scale = max(1.0, *(w.detach().abs().max().item() for w in wanted))
    for ours, theirs in zip(found, wanted, strict=True):
        difference = (ours.detach().double() - theirs.detach()).abs().max().item()
        assert difference <= tolerance * scale, (difference, scale)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    q_grid=GRIDS, data=st.data(), prefix=st.integers(0, 1), channels=st.integers(1, 100), dtype=DTYPES, seed=SEEDS
)
def test_attention_of_any_shape(
    q_grid: Grid, data: st.DataObject, prefix: int, channels: int, dtype: torch.dtype, seed: int
) -> None:
    k_grid = data.draw(st.tuples(*[st.integers(1, 9)] * len(q_grid)))
    batch, heads = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    biased = data.draw(st.booleans())
    torch.manual_seed(seed)
    n, m = prod(q_grid), prod(k_grid)
    sizes = [(prefix + n, channels), (prefix + m, channels), (prefix + m, channels)]
    sizes += [(n, size) for size in k_grid] if biased else []
    given = [torch.randn(batch, heads, *size).to(dtype) for size in sizes]
    exact = [x.double().requires_grad_() for x in given]
    wanted = reference(exact[0], exact[1], exact[2], exact[3:])
    upstream = torch.randn_like(wanted).to(dtype)
    fast = [x.clone().requires_grad_() for x in given]
    found = cpp.attend(fast[0], fast[1], fast[2], fast[3:])
    close([found], [wanted], TOLERANCE[dtype])
    gradients = torch.autograd.grad(wanted, exact, upstream.double())
    ours = torch.autograd.grad(found, fast, upstream, retain_graph=True)
    close(ours, gradients, TOLERANCE[dtype])
    assert torch.equal(cpp.attend(fast[0], fast[1], fast[2], fast[3:]), found)
    again = torch.autograd.grad(found, fast, upstream)
    assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(grid=GRIDS, data=st.data(), prefix=st.integers(0, 1), dtype=DTYPES, seed=SEEDS)
def test_pooling_of_any_shape(grid: Grid, data: st.DataObject, prefix: int, dtype: torch.dtype, seed: int) -> None:
    rank = len(grid)
    kernel = data.draw(st.tuples(*[st.sampled_from([1, 3, 5])] * rank))
    stride = data.draw(st.tuples(*[st.integers(1, 4)] * rank))
    batch, heads = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    channels = data.draw(st.integers(8, 100))  # a norm of fewer makes much of little where they hardly differ
    torch.manual_seed(seed)
    convolution = nn.Conv2d if rank == 2 else nn.Conv3d
    padding = tuple(k // 2 for k in kernel)
    conv = convolution(channels, channels, kernel, stride, padding, groups=channels, bias=False)
    norm = nn.LayerNorm(channels)
    nn.init.normal_(norm.weight)
    given = torch.randn(batch, heads, prefix + prod(grid), channels).to(dtype)
    x, fast = given.double().requires_grad_(), given.clone().requires_grad_()
    exact_conv = convolution(channels, channels, kernel, stride, padding, groups=channels, bias=False).double()
    exact_norm = nn.LayerNorm(channels).double()
    exact_conv.load_state_dict(conv.state_dict())
    exact_norm.load_state_dict(norm.state_dict())
    wanted, new_grid = pool_then_norm(x, grid, exact_conv, exact_norm)
    found, found_grid = cpp.pool_tokens(fast, grid, conv, norm)
    assert found_grid == new_grid
    close([found], [wanted], TOLERANCE[dtype])
    upstream = torch.randn_like(wanted).to(dtype)
    parameters, exact = [conv.weight, norm.weight, norm.bias], [exact_conv.weight, exact_norm.weight, exact_norm.bias]
    theirs = torch.autograd.grad(wanted, [x, *exact], upstream.double())
    ours = torch.autograd.grad(found, [fast, *parameters], upstream, retain_graph=True)
    close(ours, theirs, 2 * TOLERANCE[dtype])
    assert torch.equal(cpp.pool_tokens(fast, grid, conv, norm)[0], found)
    assert all(
        torch.equal(a, b) for a, b in zip(ours, torch.autograd.grad(found, [fast, *parameters], upstream), strict=True)
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("height", [3e4, 1e30, torch.inf])
def test_a_term_may_hide_a_line_of_keys(height: float, dtype: torch.dtype) -> None:
    q, k, v = (torch.randn(1, 2, 20, 24).to(dtype) for _ in range(3))
    terms = [torch.randn(1, 2, 20, size).to(dtype) for size in (4, 5)]
    terms[0][..., 1] = -height
    found = cpp.attend(q, k, v, terms)
    wanted = reference(q.double(), k.double(), v.double(), [t.double() for t in terms])
    close([found], [wanted], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [1e4, 1e6])
def test_numbers_beyond_float16_are_no_trouble(size: float, dtype: torch.dtype) -> None:
    """65504 is the largest float16; products and exponents here are sums of float32."""
    q, k, v = (torch.randn(1, 2, 20, 24) for _ in range(3))
    given = [(q * size).to(dtype), (k / size).to(dtype), (v * size).to(dtype)]
    terms = [(3 * torch.randn(1, 2, 20, n)).to(dtype) for n in (4, 5)]
    wanted = reference(given[0].double(), given[1].double(), given[2].double(), [t.double() for t in terms])
    found = cpp.attend(given[0], given[1], given[2], terms)
    assert found.isfinite().all()
    close([found / size], [wanted / size], TOLERANCE[dtype])
    sharp = cpp.attend((q * size).to(dtype), k.to(dtype), v.to(dtype), terms)  # one key takes all
    assert sharp.isfinite().all()
