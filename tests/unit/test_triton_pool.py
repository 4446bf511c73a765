"""Triton's pooling with its norm against the readable one in float64: outputs and all gradients.

Runs on a CUDA device, and in Triton's interpreter on a CPU; `test_triton_interpreter.py` starts the latter.
"""

import os
from math import prod

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mvitv2.core.grid import attention_pool, half
from mvitv2.kernels.triton import Pool, pool_launch, pool_norm, pool_norm_each

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(),
    reason="no CUDA device; test_triton_interpreter.py runs this file in a process of its own",
)

TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
EPS = 1e-5
CONV = {2: F.conv2d, 3: F.conv3d}


@pytest.fixture(autouse=True)
def poisoned():
    """Everything that is allocated and not written is NaN, and PyTorch refuses what is not deterministic."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def pool(d, kernel, stride, padding=None, *, dtype=torch.float32) -> Pool:
    """A pooling with random parameters that take gradients."""
    shapes = ((d, 1, *kernel), (d,), (d,))
    weight, gamma, beta = (torch.randn(s).to(DEVICE, dtype).requires_grad_() for s in shapes)
    return Pool(weight, gamma, beta, stride, padding)


def exact(x: Tensor) -> Tensor:
    """A copy in float64."""
    return x.detach().double().cpu().requires_grad_()


def readable(x: Tensor, grid, pool: Pool):
    """What `pool_norm` computes, by the reference; a pool in float64."""
    padding = half(pool.weight.shape[2:]) if pool.padding is None else pool.padding
    d = x.shape[-1]

    def convolution(lattice: Tensor) -> Tensor:
        return CONV[len(grid)](lattice, pool.weight, None, pool.stride, padding, groups=d)

    return attention_pool(x, convolution, grid, lambda y: F.layer_norm(y, (d,), pool.gamma, pool.beta, EPS))


def assert_close(got: Tensor, want: Tensor, tolerance: float) -> None:
    assert got.shape == want.shape
    assert torch.isfinite(got).all()
    error = (got.detach().double().cpu() - want).abs().max() / want.abs().max()
    assert error <= tolerance, f"error {error:.2e} of the largest number, {tolerance:.2e} allowed"


def compare(b, h, grid, pools, *, prefix=0, dtype=torch.float32) -> None:
    """Outputs and gradients of the kernels against the reference."""
    d, tolerance = pools[0].weight.shape[0], TOLERANCE[dtype]
    qkv = torch.randn(b, prefix + prod(grid), len(pools), h, d).to(DEVICE, dtype).requires_grad_()
    outs = pool_norm_each(qkv, grid, pools, eps=EPS)
    qkv64, pools64 = exact(qkv), [Pool(exact(p[0]), exact(p[1]), exact(p[2]), *p[3:]) for p in pools]
    wants = [readable(qkv64[:, :, i].transpose(1, 2), grid, p) for i, p in enumerate(pools64)]
    for (out, new_grid), (want, wanted_grid) in zip(outs, wants, strict=True):
        assert new_grid == wanted_grid
        assert_close(out, want, tolerance)
    weights = [torch.randn(out.shape).to(out) for out, _ in outs]
    gradients = torch.autograd.grad([out for out, _ in outs], [qkv, *(x for p in pools for x in p[:3])], weights)
    wanted = torch.autograd.grad(
        [want for want, _ in wants],
        [qkv64, *(x for p in pools64 for x in p[:3])],
        [w.double().cpu() for w in weights],
    )
    for got, want in zip(gradients, wanted, strict=True):
        assert_close(got, want, tolerance)


def test_queries_keys_and_values_of_an_image() -> None:
    compare(1, 2, (5, 7), [pool(20, (3, 3), (2, 2)), *(pool(20, (3, 3), (4, 4)) for _ in range(2))], prefix=1)


def test_a_batch_of_clips() -> None:
    compare(2, 1, (3, 2, 3), [pool(8, (3, 3, 3), (1, 2, 2)), pool(8, (1, 3, 3), (2, 1, 3))])


@pytest.mark.parametrize(
    ("grid", "kernel", "stride", "padding", "prefix"),
    [
        ((5, 4), (3, 3), (1, 1), None, 1),
        ((6, 5), (4, 5), (2, 3), (0, 1), 0),
        ((7, 6), (7, 7), (3, 2), None, 1),  # more taps than one program holds
        ((2, 3), (2, 2), (1, 1), (1, 1), 0),  # grows
        ((1, 1), (1, 1), (1, 1), None, 1),
        ((2, 3, 4), (3, 1, 2), (1, 2, 1), None, 1),
    ],
)
def test_any_kernel_stride_and_padding(grid, kernel, stride, padding, prefix) -> None:
    compare(1, 1, grid, [pool(12, kernel, stride, padding)], prefix=prefix)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype) -> None:
    compare(1, 1, (5, 4), [pool(24, (3, 3), (2, 2)), pool(24, (3, 3), (1, 1), dtype=dtype)], prefix=1, dtype=dtype)


def test_a_program_takes_several_tiles(monkeypatch) -> None:
    monkeypatch.setattr(pool_launch, "PROGRAMS", 2)
    compare(2, 2, (5, 4), [pool(12, (3, 3), (1, 1))], prefix=1)


def test_one_tensor_of_any_strides() -> None:
    x = torch.randn(1, 2, 13, 12, device=DEVICE, requires_grad=True)
    p = pool(12, (3, 3), (2, 1))
    want, grid = readable(exact(x), (3, 4), Pool(exact(p[0]), exact(p[1]), exact(p[2]), p.stride))
    for same in (x, x.transpose(1, 2).contiguous().transpose(1, 2), x.mT.contiguous().mT):
        out, new_grid = pool_norm(same, (3, 4), p, eps=EPS)
        assert new_grid == grid
        assert_close(out, want, 2e-6)
        (gradient,) = torch.autograd.grad(out.transpose(1, 2).flatten(2).square().sum(), x)  # strides of its own
        (again,) = torch.autograd.grad(pool_norm(x, (3, 4), p, eps=EPS)[0].square().sum(), x)
        assert_close(gradient, again.double().cpu(), 2e-6)


def test_only_one_part_is_used() -> None:
    qkv = torch.randn(1, 12, 2, 1, 8, device=DEVICE, requires_grad=True)
    pools = [pool(8, (3, 3), (1, 1)) for _ in range(2)]
    (_, _), (keys, _) = pool_norm_each(qkv, (3, 4), pools, eps=EPS)
    (gradient,) = torch.autograd.grad(keys.square().sum(), qkv)
    assert (gradient[:, :, 0] == 0).all() and gradient[:, :, 1].isfinite().all()
    assert gradient[:, :, 1].abs().max() > 0


def test_an_image_is_a_clip_of_one_frame() -> None:
    x, p = torch.randn(1, 1, 13, 12, device=DEVICE), pool(12, (3, 3), (2, 1))
    clip = Pool(F.pad(p.weight[:, :, None], (0, 0, 0, 0, 1, 1)), p.gamma, p.beta, (1, *p.stride))
    image = pool_norm(x, (3, 4), p, eps=EPS)[0]
    assert torch.equal(image, pool_norm(x, (1, 3, 4), clip, eps=EPS)[0])


def test_runs_are_equal_to_the_last_bit() -> None:
    qkv, p = torch.randn(1, 21, 1, 2, 12, device=DEVICE, requires_grad=True), pool(12, (3, 3), (1, 1))

    def run() -> list[Tensor]:
        ((out, _),) = pool_norm_each(qkv, (5, 4), [p], eps=EPS)
        return [out, *torch.autograd.grad(out.square().sum(), [qkv, *p[:3]])]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_shapes(dtype) -> None:
    compare(8, 1, (56, 56), [pool(96, (3, 3), (1, 1)), pool(96, (3, 3), (4, 4))], prefix=1, dtype=dtype)
    compare(2, 4, (64, 64), [pool(96, (3, 3), (1, 1)) for _ in range(3)], dtype=dtype)
    compare(2, 1, (8, 56, 56), [pool(72, (3, 3, 3), (1, 1, 1)), pool(72, (3, 3, 3), (1, 8, 8))], prefix=1, dtype=dtype)
