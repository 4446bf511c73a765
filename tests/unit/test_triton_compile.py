"""Triton's kernels compiled for GPUs that need not be there: every stage of the compiler up to machine code runs."""

import os
from importlib.util import find_spec
from math import prod
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mvitv2.kernels.triton import attend_launch, pool_launch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"),
]

# Bytes of shared memory that a program may have on the smallest GPUs of this generation, of compute capability 8.6.
SHARED = 99 * 1024


@pytest.fixture
def compiled(monkeypatch, tmp_path) -> list[Any]:
    """What launches compile to instead of running, for a GPU of compute capability 8.0."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime.jit import JITFunction

    kernels: list[Any] = []
    run = JITFunction.run

    def only_compile(self, *args, grid, warmup, **named):
        kernels.append(run(self, *args, grid=grid, warmup=True, **named))

    driver = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 80, 32),
        get_current_device=lambda: -1,  # compiled kernels are kept by device; these are for none that is there
        get_current_stream=lambda device: 0,
    )
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(JITFunction, "run", only_compile)
    monkeypatch.setattr(triton.runtime.driver, "_active", driver)
    return kernels


@pytest.mark.parametrize(
    ("dtype", "d", "sizes", "prefix"),
    [
        (torch.bfloat16, 96, (14, 14), 0),
        (torch.bfloat16, 72, (8, 7, 7), 1),
        (torch.float16, 64, (64, 64), 0),
        (torch.float32, 96, (150,), 1),
        (torch.bfloat16, 128, (), 0),
    ],
)
def test_attention_compiles_and_fits(compiled, dtype, d, sizes, prefix) -> None:
    q = torch.randn(2, 1, prefix + 784, d, dtype=dtype)
    k = torch.randn(2, 1, prefix + prod(sizes), d, dtype=dtype)
    given = attend_launch.operands(q, k, k, [torch.randn(2, 1, 784, n, dtype=dtype) for n in sizes])
    out, alone, log_sums = attend_launch.forward(given, prefix, tokens=True, tf32=True, keep=True)
    attend_launch.backward(out, given, alone, log_sums, prefix, tf32=False)
    names = ["attend_forward", "attend_backward_queries", "attend_backward_keys"]
    assert [kernel.name for kernel in compiled] == names
    assert all(kernel.asm["cubin"] and kernel.metadata.shared <= SHARED for kernel in compiled)


@pytest.mark.parametrize(("rank", "dtype"), [(2, torch.bfloat16), (3, torch.float32)])
def test_pooling_compiles(compiled, rank, dtype) -> None:
    grid = (8, 14, 14)[-rank:]
    x = torch.randn(2, 1 + prod(grid), 2, 96, dtype=dtype)
    weight, gamma = torch.randn(96, 1, *(3,) * rank), torch.randn(96)
    shape = pool_launch.shape_of(x.shape[1], grid, weight, (2,) * rank, (1,) * rank)
    out = pool_launch.forward(x, weight, gamma, gamma, shape, 1e-5)
    pool_launch.backward(out, torch.empty_like(x), x, (weight, gamma), shape, 1e-5)
    names = ["pool_norm_forward", "pool_norm_backward", "pool_norm_backward_input"]
    assert [kernel.name for kernel in compiled] == names
    assert all(kernel.asm["cubin"] for kernel in compiled)
