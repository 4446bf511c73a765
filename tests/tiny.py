"""Models of every form, small enough that a test may run hundreds of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from mvitv2.core.attend import reference
from mvitv2.core.config import BlockConfig, MViTConfig, Reversible
from mvitv2.core.model import MViT
from mvitv2.core.reversible import build
from mvitv2.core.stages import detection, stages
from mvitv2.kernels import use
from mvitv2.tasks.detect.config import CASCADE, DetectorConfig, ProposalConfig, Selection

CLASS_TOKEN: dict[str, Any] = {"class_token": True, "readout": "class_token"}


def image(**changes: Any) -> MViTConfig:
    """Three stages on 8 x 12 tokens."""
    blocks = stages(depths=(1, 2, 1), embed_dim=8)
    return MViTConfig(**{"blocks": blocks, "input_size": (32, 48), "num_classes": 5, **changes})


def clip(**changes: Any) -> MViTConfig:
    """Two stages on 2 x 8 x 8 tokens, and a class token."""
    blocks = stages(depths=(1, 2), embed_dim=8, kernel=(3, 3, 3), q_stride=(1, 2, 2), kv_stride=(1, 4, 4))
    patches = {"patch_kernel": (3, 7, 7), "patch_stride": (2, 4, 4), "patch_padding": (1, 3, 3)}
    numbers: dict[str, Any] = {"blocks": blocks, "input_size": (4, 32, 32), "num_classes": 5, **patches}
    return MViTConfig(**{**numbers, **CLASS_TOKEN, **changes})


def detector(**changes: Any) -> MViTConfig:
    """Two stages on 16 x 16 tokens with windows of 4 and global attention before the last level."""
    blocks = detection(stages(depths=(2, 3), embed_dim=8, kv_stride=(2, 2)), 4)
    numbers: dict[str, Any] = {
        "blocks": blocks,
        "input_size": (64, 64),
        "num_classes": 0,
        "final_norm": False,
        "output_norms": (0, 1),
    }
    return MViTConfig(**{**numbers, **changes})


def reversible(*, pre_q_fusion: str = "concat_linear_2", path_fusion: str = "concat", **changes: Any) -> MViTConfig:
    """Three reversible blocks, a transition, and two more."""
    first, *rest = stages(depths=(3,), embed_dim=16, num_heads=2, kv_stride=(2, 2))
    transition = replace(first, stage=1, dim_in=8, q_stride=(2, 2))
    blocks = (*stages(depths=(3,), embed_dim=8), transition, *(replace(b, stage=1) for b in rest))
    form = Reversible(transitions=(3,), pre_q_fusion=pre_q_fusion, path_fusion=path_fusion)
    return MViTConfig(**{"blocks": blocks, "input_size": (32, 48), "num_classes": 5, "reversible": form, **changes})


def wide(blocks: tuple[BlockConfig, ...], times: int = 4) -> tuple[BlockConfig, ...]:
    """The same blocks with so many times the channels."""
    return tuple(
        replace(b, dim_in=times * b.dim_in, dim_attn=times * b.dim_attn, dim_out=times * b.dim_out) for b in blocks
    )


FORMS: dict[str, Callable[..., MViTConfig]] = {
    "image": image,
    "clip": clip,
    "detector": detector,
    "reversible": reversible,
}


def model(config: MViTConfig, *, name: str = "reference", dtype: torch.dtype = torch.float32) -> MViT:
    """The model of a config in eval mode, every parameter drawn large enough to matter."""
    made = use(build(config, reference), name).to(dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3)
    return made.eval()


def pixels(config: MViTConfig, batch: int = 2, *, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A batch of the configured size."""
    return torch.randn(batch, config.in_channels, *config.input_size, dtype=dtype)


def whole_detector(**changes: Any) -> DetectorConfig:
    """A cascade of two stages with masks on the backbone above; three levels, five classes."""
    numbers: dict[str, Any] = {
        "backbone": detector(),
        "num_classes": 5,
        "pyramid_channels": 8,
        "proposals": ProposalConfig(anchor_sizes=(16, 32, 64), best_per_level=(100, 50), best_per_image=(40, 20)),
        "stages": CASCADE[:2],
        "box_convs": (8,),
        "box_layers": (16,),
        "mask_convs": (8,),
        "mask_deconv": 8,
        "batch_per_image": 32,
        "selection": Selection(min_score=0.1),
    }
    return DetectorConfig(**{**numbers, **changes})
