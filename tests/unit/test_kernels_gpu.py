"""On a CUDA device: the backends of whole models, compiled, under autocast, checkpointed, and recorded as graphs.

The kernels themselves are in test_triton_*.py, which run there too.
"""

from typing import Any

import pytest
import torch

from mvitv2.kernels import Graphed, choice, use
from mvitv2.models import create_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CASES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "mvitv2_t": ({"img_size": 64}, (2, 3, 64, 64)),
    "mvitv2_b_cls": ({"img_size": 32}, (1, 3, 32, 32)),
    "mvitv2_s_16x4": ({"img_size": 32, "num_frames": 4}, (1, 3, 4, 32, 32)),
}


def small(name: str, backend: str) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    changes, shape = CASES[name]
    return create_model(name, num_classes=7, backend=backend, **changes).cuda(), torch.randn(*shape).cuda()


@pytest.mark.parametrize("backend", ["auto", "triton", "folded", "masked"])
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients(name: str, backend: str) -> None:
    model, pixels = small(name, "reference")
    model.eval()
    wanted = model(pixels)
    gradients = torch.autograd.grad(wanted.square().sum(), list(model.parameters()))
    found = use(model, backend)(pixels)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(
        torch.autograd.grad(found.square().sum(), list(model.parameters())), gradients, strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item() + 1e-7)


def test_what_is_told_is_taken() -> None:
    assert choice(device="cuda", trains=False, dtype=torch.bfloat16).backend == "triton"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_checkpointing_and_compilation(dtype: torch.dtype) -> None:
    model, pixels = small("mvitv2_t", "auto")
    model.train()
    with torch.autocast("cuda", dtype):
        plain = model(pixels)
        model.set_grad_checkpointing()  # pyright: ignore[reportCallIssue]
        model(pixels).float().sum().backward()
        model.set_grad_checkpointing(False)  # pyright: ignore[reportCallIssue]
        compiled = torch.compile(model, fullgraph=True)(pixels)
    assert all(p.grad is not None for p in model.parameters())
    torch.testing.assert_close(compiled, plain, rtol=5e-2, atol=5e-2)


def test_a_recorded_graph_gives_what_the_model_gives() -> None:
    model, pixels = small("mvitv2_t", "auto")
    graphed = Graphed(model.eval(), pixels)
    other = torch.randn_like(pixels)
    with torch.inference_mode():
        first, second = graphed(pixels), graphed(other)
        torch.testing.assert_close(first, model(pixels))
        torch.testing.assert_close(second, model(other))
