"""Whole models by Triton's kernels against the readable ones: outputs and gradients of all parameters.

Runs on a CUDA device, and in Triton's interpreter on a CPU; `test_triton_interpreter.py` starts the latter.
"""

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from mvitv2.core.attention import MultiScaleAttention
from mvitv2.core.config import MViTConfig
from mvitv2.core.layers import norm_then_pool
from mvitv2.core.model import MViT
from mvitv2.core.stages import detection, stages
from mvitv2.kernels.triton import attend, fused, pool_tokens

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(),
    reason="no CUDA device; test_triton_interpreter.py runs this file in a process of its own",
)

CLASS_TOKEN: dict[str, Any] = {"class_token": True, "readout": "class_token"}
SMALL = stages(depths=(1, 1), embed_dim=8, kv_stride=(2, 2))
CLIP = stages(depths=(1,), embed_dim=8, kernel=(1, 3, 3), q_stride=(1, 2, 2), kv_stride=(1, 2, 2))
PATCHES: dict[str, Any] = {"patch_kernel": (1, 7, 7), "patch_stride": (1, 4, 4), "patch_padding": (0, 3, 3)}


def by_kernels(model: MViT) -> MViT:
    """The model with the kernels in it."""
    for module in model.modules():
        if isinstance(module, MultiScaleAttention):
            module.attend, module.run = attend, fused
            if module.pool_tokens is not norm_then_pool:
                module.pool_tokens = pool_tokens
    return model


def results(model: MViT, pixels: Tensor) -> list[Tensor]:
    """Logits, or the tokens of every stage, and the gradients of all parameters."""
    outs = [model(pixels)] if model.config.num_classes else [tokens for tokens, _ in model.trunk(pixels)]
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = torch.stack([out.square().sum() for out in outs]).sum()
    gradients = torch.autograd.grad(total, parameters, materialize_grads=True)
    return [*outs, *gradients]


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (MViTConfig(blocks=SMALL, input_size=(16, 24), num_classes=5), (16, 20)),
        (MViTConfig(blocks=SMALL, input_size=(16, 16), num_classes=5, **CLASS_TOKEN), (16, 16)),
        (MViTConfig(blocks=CLIP, input_size=(2, 16, 16), num_classes=5, **PATCHES, **CLASS_TOKEN), (2, 16, 16)),
        (
            MViTConfig(blocks=detection(SMALL, 2), input_size=(20, 20), num_classes=0, window_padding="masked"),
            (20, 20),
        ),
        (MViTConfig(blocks=SMALL, input_size=(16, 16), num_classes=5, separate_qkv=True, pool_mode="max"), (16, 16)),
    ],
    ids=["image", "class-token", "clip", "windows", "other-pools"],
)
def test_models(config, size) -> None:
    model = MViT(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)  # tables start at zero
    pixels = torch.randn(1, 3, *size)
    wanted = results(model.double(), pixels.double())
    for got, want in zip(results(by_kernels(model.float().to(DEVICE)), pixels.to(DEVICE)), wanted, strict=True):
        scale = want.abs().max().clamp(min=1.0)
        torch.testing.assert_close(got.double().cpu() / scale, want / scale, rtol=0, atol=2e-5)


def test_another_attend_is_asked() -> None:
    model = by_kernels(MViT(MViTConfig(blocks=SMALL, input_size=(16, 16), num_classes=5))).to(DEVICE)
    seen = []

    def counted(q, k, v, terms):
        seen.append(q.shape)
        return attend(q, k, v, terms)

    pixels = torch.randn(1, 3, 16, 16, device=DEVICE)
    with torch.inference_mode():
        wanted = model(pixels)
        for module in model.modules():
            if isinstance(module, MultiScaleAttention):
                module.attend = counted
        torch.testing.assert_close(model(pixels), wanted, rtol=1e-5, atol=1e-5)
    assert len(seen) == 2
