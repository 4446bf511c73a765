"""What Triton's kernels refuse, and how they say it. Nothing runs, so neither Triton nor a GPU is needed."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from mvitv2.kernels.triton import Pool, attend, available, device, pool_norm, pool_norm_each
from mvitv2.kernels.triton.tiling import Load, channel_parts, forward_tiling, num_splits, padded, stretch

Q, K = (2, 3, 7, 8), (2, 3, 5, 8)
TERMS = ((2, 3, 6, 2), (2, 3, 6, 2))


def tensors(*shapes, dtype=torch.float32):
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


def test_available_says_why_not(monkeypatch) -> None:
    state = available()
    assert bool(state) == state.ok == (torch.cuda.is_available() and find_spec("triton") is not None)
    assert state.reason
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not available()
    assert available().reason == ("torch sees no CUDA device" if find_spec("triton") else available().reason)
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    assert "pip install triton" in available().reason
    q, k, v = tensors(Q, K, K)
    with pytest.raises(ImportError, match="pip install triton"):
        attend(q, k, v, [])


def test_old_devices_are_named(monkeypatch) -> None:
    monkeypatch.setattr(device, "find_spec", lambda name: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert "(7, 5)" in available().reason


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter takes any tensor")
def test_tensors_on_a_cpu() -> None:
    q, k, v = tensors(Q, K, K)
    with pytest.raises(ValueError, match="tensors on cpu"):
        attend(q, k, v, [])
    with pytest.raises(ValueError, match="tensors on cpu"):
        pool_norm(torch.randn(1, 1, 4, 8), (2, 2), pool(), eps=1e-5)


@pytest.mark.parametrize(
    ("shapes", "terms", "message"),
    [
        (((2, 3, 7), K, K), (), r"\(2, 3, 7\).*expected \(B, h, N', d\)"),
        ((Q, K, (2, 3, 5, 4)), (), r"expected \(B, h, N', d\)"),
        ((Q, (2, 1, 5, 8), (2, 1, 5, 8)), (), r"expected \(B, h, N', d\)"),
        (((0, 3, 7, 8), (0, 3, 5, 8), (0, 3, 5, 8)), (), r"\(0, 3, 7, 8\).*is empty"),
        (((1, 1, 2, 300),) * 3, (), r"300 channels; the triton kernels take at most 256"),
        (
            (Q, K, K),
            ((2, 3, 6, 2), (2, 3, 6, 3)),
            r"describe 6 keys and leave 1 class tokens; q has 7 tokens and k has 5",
        ),
        ((Q, K, K), ((2, 3, 8, 2), (2, 3, 8, 3)), "leave -1 class tokens"),
        ((Q, K, K), ((2, 3, 6, 2), (2, 1, 6, 2)), r"expected one to three of \(2, 3, N', size\)"),
        ((Q, K, K), ((2, 3, 6, 1),) * 4, "one to three"),
        (((1, 1, 1, 8), (1, 1, 600, 8), (1, 1, 600, 8)), ((1, 1, 1, 2), (1, 1, 1, 300)), "none may have more than 256"),
    ],
)
def test_shapes_that_attention_refuses(shapes, terms, message) -> None:
    q, k, v = tensors(*shapes)
    with pytest.raises(ValueError, match=message):
        attend(q, k, v, tensors(*terms))


def test_types_and_options_that_attention_refuses() -> None:
    q, k, v = tensors(Q, K, K)
    with pytest.raises(ValueError, match=r"float64.*one of float32, float16, bfloat16"):
        attend(q.double(), k.double(), v.double(), [])
    with pytest.raises(ValueError, match="float16"):
        attend(q, k.half(), v, [])
    with pytest.raises(ValueError, match=r"terms are .*float64"):
        attend(q, k, v, tensors(*TERMS, dtype=torch.float64))
    with pytest.raises(ValueError, match="residual='some' is none of none, grid, all"):
        attend(q, k, v, [], residual="some")
    with pytest.raises(ValueError, match="needs prefix"):
        attend(q, k, v, [], residual="grid")
    with pytest.raises(ValueError, match="prefix=0, but 7 queries and 6 in the terms leave 1"):
        attend(q, k, v, tensors(*TERMS), prefix=0)


def pool(d=8, kernel=(3, 3), stride=(1, 1), padding=None, **changes) -> Pool:
    weight, gamma, beta = tensors((d, 1, *kernel), (d,), (d,))
    return Pool(weight, gamma, beta, stride, padding)._replace(**changes)


@pytest.mark.parametrize(
    ("shape", "grid", "changed", "message"),
    [
        ((1, 4, 8), (2, 2), {}, r"expected \(B, h, L, d\)"),
        ((0, 1, 4, 8), (2, 2), {}, "is empty"),
        ((1, 1, 7, 8), (2, 2), {}, r"7 tokens cannot be a grid of \(2, 2\)"),
        ((1, 1, 4, 300), (2, 2), {}, "300 channels"),
        ((1, 1, 4, 8), (2, 2), {"weight": torch.randn(8, 8, 3, 3)}, "expected a depthwise"),
        ((1, 1, 4, 8), (2, 2), {"weight": torch.randn(8, 1, 3, 3, 3)}, "as many axes as the grid"),
        ((1, 1, 4, 8), (4,), {"weight": torch.randn(8, 1, 3)}, "two or three"),
        ((1, 1, 4, 8), (2, 2), {"gamma": torch.randn(4)}, r"gamma \(4,\)"),
        ((1, 1, 4, 8), (2, 2), {"beta": torch.randn(8).half()}, "one type for gamma and beta"),
        ((1, 1, 4, 8), (2, 2), {"weight": torch.randn(8, 1, 3, 3).double()}, "float64"),
        ((1, 1, 4, 8), (2, 2), {"stride": (1,)}, r"stride=\(1,\).*need 2 numbers"),
        ((1, 1, 4, 8), (2, 2), {"stride": (0, 1)}, r"stride=\(0, 1\)"),
        ((1, 1, 4, 8), (2, 2), {"padding": (0, 0)}, r"does not fit on the grid \(2, 2\)"),
    ],
)
def test_what_pooling_refuses(shape, grid, changed, message) -> None:
    with pytest.raises(ValueError, match=message):
        pool_norm(torch.randn(shape), grid, pool(**changed), eps=1e-5)


def test_what_pooling_of_parts_refuses() -> None:
    with pytest.raises(ValueError, match=r"for 2 pools; expected \(B, L, 2, h, d\)"):
        pool_norm_each(torch.randn(1, 4, 3, 1, 8), (2, 2), [pool(), pool()], eps=1e-5)
    with pytest.raises(ValueError, match=r"float64; the triton kernels take"):
        pool_norm(torch.randn(1, 1, 4, 8).double(), (2, 2), pool(), eps=1e-5)


@pytest.mark.parametrize(
    ("dim", "parts"),
    [(96, (64, 32)), (72, (64, 16)), (64, (64,)), (128, (128,)), (8, (16,)), (100, (128,)), (1, (16,))],
)
def test_channels_in_parts(dim, parts) -> None:
    assert channel_parts(dim) == parts


@pytest.mark.parametrize("dim", range(1, 257))
def test_parts_hold_all_channels_in_powers_of_two(dim) -> None:
    parts = channel_parts(dim)
    assert dim <= sum(parts) <= padded(dim) and len(parts) <= 2
    assert all(part == padded(part) for part in parts)


@pytest.mark.parametrize("num_q", [1, 31, 512, 1000, 25088])
@pytest.mark.parametrize("programs", [1, 7, 511, 513])
def test_stretches_of_queries_cover_all_and_none_is_empty(num_q, programs) -> None:
    splits = num_splits(num_q, programs, 64)
    size = stretch(num_q, splits, 64)
    assert size % 64 == 0 and size * splits >= num_q
    assert size * (splits - 1) < num_q


def test_tiles_are_chosen_by_sizes_alone() -> None:
    loads = [Load(torch.bfloat16, 3136, 96, 32, read=False, summed=32) for _ in range(2)]
    assert forward_tiling(loads[0]) == forward_tiling(loads[1])


def test_importing_the_kernels_does_not_import_triton() -> None:
    code = "import mvitv2.kernels.triton, sys; sys.exit('mvitv2.kernels.triton.language' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
