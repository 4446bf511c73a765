"""The C++ operators compute what the readable functions define: outputs and every gradient, in whatever layout."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mvitv2.core.attend import reference
from mvitv2.core.attention import MultiScaleAttention
from mvitv2.core.config import MViTConfig
from mvitv2.core.grid import Grid
from mvitv2.core.layers import pool_then_norm
from mvitv2.core.model import MViT
from mvitv2.core.stages import stages
from mvitv2.kernels import cpp, use
from mvitv2.models import create_model

pytestmark = pytest.mark.skipif(not cpp.available(), reason=str(cpp.missing()))

# float32: other order of sums; bfloat16: 8 bits of mantissa in inputs and outputs, sums in float32
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1.2e-2}
ATTENTIONS = {
    # queries, keys, prefix, channels
    "square": ((7, 7), (7, 7), 0, 96),
    "class token, odd ratio": ((9, 5), (4, 3), 1, 16),
    "finer keys": ((5, 6), (10, 12), 0, 24),
    "clip": ((2, 5, 3), (2, 3, 2), 1, 20),
    "one of each": ((1, 1), (1, 1), 0, 3),
    "long lines": ((3, 40), (2, 35), 1, 33),
}
POOLINGS = {
    # grid, kernel, stride, prefix, channels, heads
    "image": ((7, 9), 3, 1, 0, 96, 2),
    "strided, class token": ((8, 7), 3, 2, 1, 20, 3),
    "clip": ((3, 8, 7), 3, (1, 2, 2), 1, 16, 2),
    "large kernel": ((5, 5), 5, 4, 0, 40, 1),
    "smaller than its kernel": ((1, 2), 3, 1, 0, 7, 1),
    "many channels": ((4, 4), 3, 2, 0, 130, 1),
}


def close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    scale = wanted.detach().abs().max().item() or 1.0
    difference = (found.detach().double() - wanted.detach()).abs().max().item()
    assert difference <= tolerance * scale, (difference, scale)


def attention_inputs(q_grid: Grid, k_grid: Grid, prefix: int, channels: int) -> list[Tensor]:
    batch, heads, n = 2, 3, prod(q_grid)
    sizes = [(prefix + n, channels), (prefix + prod(k_grid), channels), (prefix + prod(k_grid), channels)]
    sizes += [(n, size) for size in k_grid]
    return [torch.randn(batch, heads, *size, dtype=torch.float64) for size in sizes]


def leaves(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return [x.to(dtype, copy=True).requires_grad_() for x in tensors]


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fresh memory is full of NaN: what is not written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("with_terms", [True, False])
@pytest.mark.parametrize("case", ATTENTIONS)
def test_attention_is_the_reference(case: str, with_terms: bool, dtype: torch.dtype) -> None:
    given = attention_inputs(*ATTENTIONS[case])
    given = given if with_terms else given[:3]
    rounded = [x.to(dtype).double() for x in given]
    q, k, v, *terms = exact = leaves(rounded, torch.float64)
    wanted = reference(q, k, v, terms)
    upstream = torch.randn_like(wanted).to(dtype)
    gradients = torch.autograd.grad(wanted, exact, upstream.double())
    q, k, v, *terms = fast = leaves(given, dtype)
    found = cpp.attend(q, k, v, terms)
    close(found, wanted, TOLERANCE[dtype])
    for ours, theirs in zip(torch.autograd.grad(found, fast, upstream), gradients, strict=True):
        close(ours, theirs, TOLERANCE[dtype])


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", POOLINGS)
def test_pooling_is_the_reference(case: str, dtype: torch.dtype) -> None:
    grid, kernel, stride, prefix, channels, heads = POOLINGS[case]
    conv = (nn.Conv2d if len(grid) == 2 else nn.Conv3d)(
        channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False
    )
    norm = nn.LayerNorm(channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    projected = torch.randn(2, prefix + prod(grid), 3 * heads * channels).to(dtype)

    def keys(x: Tensor) -> Tensor:
        return x.unflatten(2, (3, heads, channels)).permute(2, 0, 3, 1, 4)[1]

    exact_conv, exact_norm = copy.deepcopy(conv).double(), copy.deepcopy(norm).double()
    x = projected.double().requires_grad_()
    wanted, new_grid = pool_then_norm(keys(x), grid, exact_conv, exact_norm)
    upstream = torch.randn_like(wanted).to(dtype)
    exact = [x, exact_conv.weight, exact_norm.weight, exact_norm.bias]
    gradients = torch.autograd.grad(wanted, exact, upstream.double())

    x = projected.clone().requires_grad_()
    found, found_grid = cpp.pool_tokens(keys(x), grid, conv, norm)
    assert found_grid == new_grid
    close(found, wanted, TOLERANCE[dtype])
    fast = torch.autograd.grad(found, [x, conv.weight, norm.weight, norm.bias], upstream)
    for ours, theirs in zip(fast, gradients, strict=True):
        close(ours, theirs, 2 * TOLERANCE[dtype])


def test_any_layout() -> None:
    q, k, v, *terms = [x.float() for x in attention_inputs((4, 6), (2, 3), 1, 16)]
    wanted = cpp.attend(q, k, v, terms)
    q2, k2, v2, *terms2 = [x.transpose(1, 3).contiguous().transpose(1, 3) for x in (q, k, v, *terms)]
    every_second = torch.stack((q, -q), dim=2).flatten(1, 2)[:, ::2]
    torch.testing.assert_close(cpp.attend(q2, k2, v2, terms2), wanted, rtol=0, atol=0)
    torch.testing.assert_close(cpp.attend(every_second, k, v, terms), wanted, rtol=0, atol=0)


def test_threads_and_repetition_change_nothing() -> None:
    given = [x.float() for x in attention_inputs((12, 12), (6, 6), 1, 32)]
    before = torch.get_num_threads()

    def results() -> list[Tensor]:
        q, k, v, *terms = fast = leaves(given, torch.float32)
        out = cpp.attend(q, k, v, terms)
        return [out, *torch.autograd.grad(out.square().sum(), fast)]

    first = results()
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            for again, once in zip(results(), first, strict=True):
                torch.testing.assert_close(again, once, rtol=0, atol=0)
    finally:
        torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of opcheck itself
def test_operators_are_registered_in_full() -> None:
    q, k, v, *terms = leaves(attention_inputs((1, 3, 4), (1, 2, 2), 1, 8), torch.float32)
    torch.library.opcheck(torch.ops.mvitv2_cpu.attend.default, (q, k, v, terms, 1))
    x = torch.randn(2, 13, 3, 8, requires_grad=True)
    weights = [torch.randn(9, 8), torch.randn(8), torch.randn(8)]
    sizes = ((1, 3, 4), (1, 3, 3), (1, 2, 2), (0, 1, 1), 1e-6)
    given = (x, *(w.requires_grad_() for w in weights), *sizes)
    torch.library.opcheck(torch.ops.mvitv2_cpu.pool_norm.default, given)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_precisions_are_refused(dtype: torch.dtype) -> None:
    q = torch.randn(1, 1, 4, 8, dtype=dtype)
    with pytest.raises(RuntimeError, match="take float32 and bfloat16"):
        cpp.attend(q, q, q, [])


def test_empty_batches_are_refused() -> None:
    q = torch.randn(0, 1, 4, 8)
    with pytest.raises(ValueError, match="empty batch"):
        cpp.attend(q, q, q, [])


def test_terms_of_another_grid_are_refused() -> None:
    q = torch.randn(1, 1, 4, 8)
    with pytest.raises(RuntimeError, match="terms are for 6 keys, there are 4"):
        cpp.attend(q, q, q, [torch.randn(1, 1, 4, 2), torch.randn(1, 1, 4, 3)])


def tiny(backend: str, **fields: Any) -> MViT:
    blocks = stages(depths=(1, 2), embed_dim=16, kv_stride=(2, 2))
    return use(MViT(MViTConfig(blocks=blocks, input_size=(32, 32), num_classes=5, **fields)).eval(), backend)


def test_a_model_compiles_whole_and_exports() -> None:
    model, pixels = tiny("cpp"), torch.randn(2, 3, 32, 32)
    wanted = model(pixels)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(pixels), wanted)
    compiled(pixels).sum().backward()
    exported = torch.export.export(model, (pixels,)).module()
    torch.testing.assert_close(exported(pixels), wanted)


def test_a_model_can_be_copied_and_pickled() -> None:
    model, pixels = tiny("cpp"), torch.randn(1, 3, 32, 32)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(pixels), model(pixels), rtol=0, atol=0)


def test_another_attention_is_asked_where_it_was_put() -> None:
    model, seen = tiny("cpp"), []

    def spy(q: Tensor, k: Tensor, v: Tensor, terms: Sequence[Tensor]) -> Tensor:
        seen.append(len(terms))
        return reference(q, k, v, terms)

    pixels = torch.randn(1, 3, 32, 32)
    wanted = model(pixels)
    attentions = [module for module in model.modules() if isinstance(module, MultiScaleAttention)]
    for attn in attentions:
        attn.attend = spy
    torch.testing.assert_close(model(pixels), wanted, rtol=1e-4, atol=1e-5)
    assert seen == [2] * len(attentions)


def test_bfloat16_is_as_exact_as_torch_is() -> None:
    exact = create_model("mvitv2_t", img_size=64, backend="reference").eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        wanted = exact.double()(pixels.double())
        exact.bfloat16()
        eager = (exact(pixels.bfloat16()).double() - wanted).square().mean()
        ours = (use(exact, "cpp")(pixels.bfloat16()).double() - wanted).square().mean()
    assert ours <= 1.1 * eager


MEMORY = """
import resource, torch
from mvitv2.kernels import cpp
n = 6000
q = torch.randn(1, 1, n, 8, requires_grad=True)
terms = [torch.randn(1, 1, n, size, requires_grad=True) for size in (60, 100)]
cpp.attend(q[:, :, :32], q, q, [t[:, :, :32] for t in terms]).sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cpp.attend(q, q, q, terms).sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_queries_times_keys() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    whole_matrix = 6000 * 6000 * 4 / 1024
    assert int(done.stdout) < whole_matrix / 5
