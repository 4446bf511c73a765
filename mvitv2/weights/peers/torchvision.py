"""Configurations of torchvision, which state a model by a list of block settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from mvitv2.core.config import BlockConfig, MViTConfig
from mvitv2.core.stages import pooling_kernel, stages

VIDEO_PATCH = {"patch_kernel": (3, 7, 7), "patch_stride": (2, 4, 4), "patch_padding": (1, 3, 3)}
TORCHVISION_BUILDERS: dict[str, dict[str, Any]] = {
    "mvit_v1_b": {"rel_pos": False, "depth": 16, "downscale": (1, 3, 14)},
    "mvit_v2_s": {"rel_pos": True, "depth": 16, "downscale": (1, 3, 14)},
}


def torchvision_config(name: str | None, kwargs: Mapping[str, Any]) -> MViTConfig:
    """Arguments of torchvision's ``MViT``, or one of its builders by name.

    Raises:
        ValueError: torchvision has no builder of that name.
    """
    if name is not None:
        if name not in TORCHVISION_BUILDERS:
            raise ValueError(f"torchvision builds {', '.join(TORCHVISION_BUILDERS)}, not {name!r}")
        kwargs = {**_builder(**TORCHVISION_BUILDERS[name]), **kwargs}
    rel_pos, in_attention = kwargs.get("rel_pos_embed", False), kwargs.get("proj_after_attn", False)
    residual = ("all" if kwargs.get("residual_with_cls_embed") else "grid") if kwargs.get("residual_pool") else "none"
    patch: dict[str, Any] = {
        field: tuple(kwargs.get(theirs, VIDEO_PATCH[field]))
        for field, theirs in (
            ("patch_kernel", "patch_embed_kernel"),
            ("patch_stride", "patch_embed_stride"),
            ("patch_padding", "patch_embed_padding"),
        )
    }
    return MViTConfig(
        **patch,
        blocks=_settings(kwargs["block_setting"], in_attention),
        input_size=(kwargs["temporal_size"], *kwargs["spatial_size"]),
        num_classes=kwargs.get("num_classes", 400),
        class_token=True,
        abs_pos="none" if rel_pos else "separable",
        rel_pos_spatial=rel_pos,
        rel_pos_temporal=rel_pos,
        displacement_order="torchvision",
        residual_pooling=residual,
        drop_path=kwargs.get("stochastic_depth_prob", 0.0),
        dropout=kwargs.get("attention_dropout", 0.0),
        head_dropout=kwargs.get("dropout", 0.5),
        readout="class_token",
    )


def torchvision_settings(config: MViTConfig) -> dict[str, Any]:
    """Arguments of torchvision's ``MViT``; what it has no argument for is left at what it does."""
    return {
        "spatial_size": config.input_size[-2:],
        "temporal_size": config.input_size[0],
        "block_setting": block_settings(config.blocks),
        "residual_pool": config.residual_pooling != "none",
        "residual_with_cls_embed": config.residual_pooling == "all",
        "rel_pos_embed": config.rel_pos_spatial,
        "proj_after_attn": all(b.dim_out == b.dim_attn for b in config.blocks),
        "dropout": config.head_dropout,
        "attention_dropout": config.dropout,
        "stochastic_depth_prob": config.drop_path,
        "num_classes": config.num_classes,
        "patch_embed_kernel": config.patch_kernel,
        "patch_embed_stride": config.patch_stride,
        "patch_embed_padding": config.patch_padding,
    }


def block_settings(blocks: Sequence[BlockConfig]) -> list[dict[str, Any]]:
    """Fields of its ``MSBlockConfig``; no stride at all means that nothing is pooled."""
    return [
        {
            "num_heads": b.num_heads,
            "input_channels": b.dim_in,
            "output_channels": b.dim_out,
            "kernel_q": b.q_kernel or (),
            "kernel_kv": b.kv_kernel or (),
            "stride_q": b.q_stride if b.q_kernel else (),
            "stride_kv": b.kv_stride if b.kv_kernel else (),
        }
        for b in blocks
    ]


def _settings(settings: Sequence[Mapping[str, Any]], in_attention: bool) -> tuple[BlockConfig, ...]:
    blocks: list[BlockConfig] = []
    stage = 0
    for index, s in enumerate(settings):
        q_stride, kv_stride = tuple(s["stride_q"]) or (1, 1, 1), tuple(s["stride_kv"]) or (1, 1, 1)
        stage += index > 0 and max(q_stride) > 1
        blocks.append(
            BlockConfig(
                stage=stage,
                dim_in=s["input_channels"],
                dim_attn=s["output_channels"] if in_attention else s["input_channels"],
                dim_out=s["output_channels"],
                num_heads=s["num_heads"],
                q_stride=q_stride,
                kv_stride=kv_stride,
                q_kernel=pooling_kernel(tuple(s["kernel_q"]) or None, q_stride),
                kv_kernel=pooling_kernel(tuple(s["kernel_kv"]) or None, kv_stride),
            )
        )
    return tuple(blocks)


def _builder(*, rel_pos: bool, depth: int, downscale: tuple[int, ...]) -> dict[str, Any]:
    """Arguments of ``mvit_v1_b`` and ``mvit_v2_s`` (torchvision ``mvit.py``), from the rule they follow."""
    depths = [b - a for a, b in zip((0, *downscale), (*downscale, depth), strict=True)]
    blocks = stages(
        depths=tuple(depths),
        kernel=(3, 3, 3),
        q_stride=(1, 2, 2),
        kv_stride=(1, 8, 8),
        expand_in="attention" if rel_pos else "mlp",
        pool_every_query=rel_pos,
    )
    return {
        "spatial_size": (224, 224),
        "temporal_size": 16,
        "block_setting": block_settings(blocks),
        "residual_pool": rel_pos,
        "residual_with_cls_embed": not rel_pos,
        "rel_pos_embed": rel_pos,
        "proj_after_attn": rel_pos,
        "stochastic_depth_prob": 0.2,
    }
