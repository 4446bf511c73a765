"""Triton's kernels as operators of PyTorch: traced, compiled, exported, under autocast, checkpointed, in parallel.

Runs on a CUDA device, and in Triton's interpreter on a CPU; `test_triton_interpreter.py` starts the latter.
"""

import os

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mvitv2.core.attend import reference
from mvitv2.kernels.triton import Pool, attend, pool_norm, pool_norm_each
from mvitv2.kernels.triton.attend import attend_backward_op, attend_op
from mvitv2.kernels.triton.pool import pool_norm_backward_op, pool_norm_op

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(),
    reason="no CUDA device; test_triton_interpreter.py runs this file in a process of its own",
)

# opcheck looks at the gradients of tensors that are not leaves
quiet = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")

GRID = (3, 4)
D = 16


def tensors(*shapes, grad=True) -> list[Tensor]:
    """Random tensors."""
    return [torch.randn(shape, device=DEVICE, requires_grad=grad) for shape in shapes]


def attention_case(*, grad=True) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """q, k, v and the terms of two axes, with a class token."""
    q, k, v, *terms = tensors((1, 2, 7, D), (1, 2, 13, D), (1, 2, 13, D), (1, 2, 6, 3), (1, 2, 6, 4), grad=grad)
    return q, k, v, terms


class Block(nn.Module):
    """Projection, pooling and attention, as in the model."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(D, 3 * D)
        self.weights = nn.ParameterList(torch.randn(D, 1, 3, 3) for _ in range(3))
        self.gammas = nn.ParameterList(torch.ones(D) for _ in range(3))
        self.betas = nn.ParameterList(torch.zeros(D) for _ in range(3))
        self.rows = nn.ParameterList(torch.randn(n, D) for n in (2, 2))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, 1, D))
        strides = ((1, 1), (2, 2), (2, 2))
        pools = [Pool(*p) for p in zip(self.weights, self.gammas, self.betas, strides, strict=True)]
        (q, _), (k, _), (v, _) = pool_norm_each(qkv, GRID, pools, eps=1e-5)
        terms = [q[:, :, 1:] @ rows.T for rows in self.rows]
        return attend(q, k, v, terms, residual="grid", tokens=True)


@quiet
@pytest.mark.parametrize("residual_from", [-1, 1])
def test_attend_is_a_sound_operator(residual_from) -> None:
    q, k, v, terms = attention_case()
    torch.library.opcheck(attend_op, (q, k, v, terms, residual_from, True, False, True))


def test_attend_backward_is_a_sound_operator() -> None:
    q, k, v, terms = attention_case(grad=False)
    out, alone, log_sums = attend_op(q, k, v, terms, 1, False, False, True)
    torch.library.opcheck(attend_backward_op, (out, q, k, v, terms, alone, log_sums, 1, False))


@quiet
def test_pool_norm_and_its_backward_are_sound_operators() -> None:
    qkv, weight, gamma, beta = tensors((1, 5, 1, 1, 4), (4, 1, 3, 1), (4,), (4,))
    torch.library.opcheck(pool_norm_op, (qkv, [weight], [gamma], [beta], [2, 2], [1, 1], [1, 0], 1e-5))
    qkv, weight, gamma, out = tensors(qkv.shape, weight.shape, gamma.shape, (1, 1, 5, 4), grad=False)
    torch.library.opcheck(pool_norm_backward_op, ([out], qkv, [weight], [gamma], [2, 2], [1, 1], [1, 0], 1e-5))


def test_compiled_as_one_graph_of_any_size() -> None:
    block, x = Block().to(DEVICE), torch.randn(1, 13, D, device=DEVICE)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True, dynamic=True)
    eager = torch.autograd.grad(block(x).square().sum(), list(block.parameters()))
    traced = torch.autograd.grad(compiled(x).square().sum(), list(block.parameters()))
    for a, b in zip(eager, traced, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_exported() -> None:
    block, x = Block().to(DEVICE).eval(), torch.randn(2, 13, D, device=DEVICE)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(block, (x,), dynamic_shapes=({0: batch},))
    targets = {str(node.target) for node in program.graph.nodes}
    assert {"mvitv2_triton.attend.default", "mvitv2_triton.pool_norm.default"} <= targets
    torch.testing.assert_close(program.module()(x[:1]), block(x[:1]), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype) -> None:
    q, k, v, terms = attention_case()
    x, weight, gamma, beta = tensors((1, 1, 13, 4), (4, 1, 3, 3), (4,), (4,))
    with torch.autocast(DEVICE, dtype):
        out = attend(q, k, v, terms)
        pooled, _ = pool_norm(x, GRID, Pool(weight, gamma, beta, (1, 1)), eps=1e-5)
    assert out.dtype == pooled.dtype == dtype
    gradients = torch.autograd.grad((out.float().sum(), pooled.float().square().sum()), [q, *terms, x, weight, gamma])
    assert {g.dtype for g in gradients} == {torch.float32}
    assert all(g.isfinite().all() for g in gradients)
    torch.testing.assert_close(out.float(), reference(q, k, v, terms), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(reentrant) -> None:
    block, x = Block().to(DEVICE), torch.randn(1, 13, D, device=DEVICE, requires_grad=True)
    whole = torch.autograd.grad(block(x).square().sum(), [x, *block.parameters()])
    checkpoint(block, x, use_reentrant=reentrant).square().sum().backward()
    for again, first in zip([x, *block.parameters()], whole, strict=True):
        torch.testing.assert_close(again.grad, first, rtol=0, atol=0)


def test_no_gradients_no_second_result() -> None:
    q, k, v, terms = attention_case()
    with torch.inference_mode():
        torch.testing.assert_close(attend(q, k, v, terms), reference(q, k, v, terms), rtol=1e-5, atol=1e-5)
        assert attend_op(q, k, v, terms, 0, False, False, False)[1].numel() == 0
    with pytest.raises(ValueError, match="keep=True"):
        attend_op(q, k, v, terms, 0, False, False, False)


def test_data_parallel_and_sharded(tmp_path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor
    from torch.nn.parallel import DistributedDataParallel

    block, x = Block().to(DEVICE), torch.randn(1, 13, D, device=DEVICE)
    wanted = torch.autograd.grad(block(x).square().sum(), list(block.parameters()))
    kind = "gloo" if INTERPRETED else "nccl"
    torch.distributed.init_process_group(kind, init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        DistributedDataParallel(block)(x).square().sum().backward()
        parallel = [p.grad for p in block.parameters()]
        block.zero_grad()
        fully_shard(block, mesh=init_device_mesh(DEVICE, (1,)))
        block(x).square().sum().backward()
        sharded = [p.grad.full_tensor() for p in block.parameters() if isinstance(p.grad, DTensor)]
    finally:
        torch.distributed.destroy_process_group()
    for want, a, b in zip(wanted, parallel, sharded, strict=True):
        torch.testing.assert_close(a, want, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(b, want, rtol=1e-6, atol=1e-6)


@pytest.mark.gpu
def test_replayed_as_a_cuda_graph() -> None:
    block, x = Block().to("cuda").eval(), torch.randn(1, 13, D, device="cuda")
    with torch.inference_mode():
        wanted = block(x)  # also compiles the kernels, which a capture may not
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = block(x)
        x.copy_(torch.randn_like(x))
        graph.replay()
        assert not torch.equal(out, wanted)
        torch.testing.assert_close(out, block(x), rtol=0, atol=0)
