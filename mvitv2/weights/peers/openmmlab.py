"""Configurations of mmpretrain's and mmaction2's ``MViT``."""

from collections.abc import Mapping, Sequence
from typing import Any

from mvitv2.core.config import BlockConfig, MViTConfig
from mvitv2.core.grid import Grid

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dims": 96, "num_layers": 10, "num_heads": 1, "downscale_indices": (1, 3, 8)},
    "small": {"embed_dims": 96, "num_layers": 16, "num_heads": 1, "downscale_indices": (1, 3, 14)},
    "base": {"embed_dims": 96, "num_layers": 24, "num_heads": 1, "downscale_indices": (2, 5, 21)},
    "large": {"embed_dims": 144, "num_layers": 48, "num_heads": 2, "downscale_indices": (2, 8, 44)},
}


def mmpretrain_config(kwargs: Mapping[str, Any], num_classes: int | None) -> MViTConfig:
    """Arguments of mmpretrain's ``MViT`` and the classes of its head (``None``: no head)."""
    patch = {"kernel_size": 7, "stride": 4, "padding": 3, **kwargs.get("patch_cfg", {})}
    return MViTConfig(
        **_shared(kwargs, num_classes, rank=2, kernel=(3, 3), kv_stride=(4, 4), patch=patch),
        input_size=_axes(kwargs.get("img_size", 224), 2),
        rel_pos_spatial=kwargs.get("rel_pos_spatial", True),
        rel_pos_temporal=False,
        abs_pos_float32=True,
        readout="norm_mean",
        init="image",
    )


def mmaction2_config(kwargs: Mapping[str, Any], num_classes: int | None) -> MViTConfig:
    """Arguments of mmaction2's ``MViT`` and the classes of its head (``None``: no head)."""
    patch = {"kernel_size": (3, 7, 7), "stride": (2, 4, 4), "padding": (1, 3, 3), **kwargs.get("patch_cfg", {})}
    cls, rel_pos = kwargs.get("with_cls_token", True), kwargs.get("rel_pos_embed", True)
    frames, side = kwargs.get("temporal_size", 16), kwargs.get("spatial_size", 224)
    return MViTConfig(
        **_shared(kwargs, num_classes, rank=3, kernel=(3, 3, 3), kv_stride=(1, 8, 8), patch=patch),
        input_size=(frames, *_axes(side, 2)),
        class_token=cls,
        rel_pos_spatial=rel_pos,
        rel_pos_temporal=rel_pos,
        readout="class_token" if cls and kwargs.get("output_cls_token", True) else "norm_mean",
        init="video",
    )


def mmpretrain_settings(config: MViTConfig) -> dict[str, Any]:
    """Arguments of mmpretrain's ``MViT``; what it has no argument for is left at what it does."""
    return {**_arguments(config), "img_size": config.input_size, "rel_pos_spatial": config.rel_pos_spatial}


def mmaction2_settings(config: MViTConfig) -> dict[str, Any]:
    """Arguments of mmaction2's ``MViT``; what it has no argument for is left at what it does."""
    return {
        **_arguments(config),
        "spatial_size": config.input_size[-2:],
        "temporal_size": config.input_size[0],
        "rel_pos_embed": config.rel_pos_spatial,
        "with_cls_token": config.class_token,
        "output_cls_token": config.readout == "class_token",
    }


def _arguments(config: MViTConfig) -> dict[str, Any]:
    blocks = config.blocks
    in_attention = all(b.dim_out == b.dim_attn for b in blocks)
    later = 0 if in_attention else 1
    return {
        "arch": {
            "embed_dims": config.embed_dim,
            "num_layers": len(blocks),
            "num_heads": blocks[0].num_heads,
            "downscale_indices": [i for i, b in enumerate(blocks) if max(b.q_stride) > 1],
            "dim_mul_indices": [i + later for i, b in enumerate(blocks) if b.dim_out != b.dim_in],
        },
        "in_channels": config.in_channels,
        "drop_path_rate": config.drop_path,
        "use_abs_pos_embed": config.abs_pos != "none",
        "out_scales": [*config.output_norms, *([config.num_stages - 1] if config.final_norm else [])],
        "pool_kernel": blocks[0].kv_kernel or (1,) * config.rank,
        "dim_mul_in_attention": in_attention,
        "adaptive_kv_stride": blocks[0].kv_stride,
        "rel_pos_zero_init": config.rel_pos_zero_init,
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "residual_pooling": config.residual_pooling != "none",
        "norm_cfg": {"type": "LN", "eps": config.norm_eps},
        "patch_cfg": {
            "kernel_size": config.patch_kernel,
            "stride": config.patch_stride,
            "padding": config.patch_padding,
        },
    }


def openmmlab_blocks(kwargs: Mapping[str, Any], *, kernel: Grid, kv_stride: Grid) -> tuple[BlockConfig, ...]:
    """Blocks as both codebases lay them out: a list of blocks that shrink the grid, and of those that widen the stream.

    Raises:
        ValueError: ``arch`` names no architecture.
    """
    arch = kwargs["arch"]
    if isinstance(arch, str):
        if arch.lower() not in ARCHITECTURES:
            raise ValueError(f"arch={arch!r} is none of {', '.join(ARCHITECTURES)}")
        arch = ARCHITECTURES[arch.lower()]
    down = set(arch["downscale_indices"])
    widen = set(arch.get("dim_mul_indices", arch["downscale_indices"]))
    in_attention, rank = kwargs.get("dim_mul_in_attention", True), len(kernel)
    dim, heads, stage = arch["embed_dims"], arch["num_heads"], 0
    halved = (1,) * (rank - 2) + (2, 2)
    blocks: list[BlockConfig] = []
    for i in range(arch["num_layers"]):
        shrinks = i in down
        heads *= kwargs.get("head_mul", 2) if shrinks or i in widen else 1
        if shrinks:
            kv_stride = tuple(max(s // h, 1) for s, h in zip(kv_stride, halved, strict=True))
            stage += 1
        widens = i in widen if in_attention else i + 1 in widen
        dim_out = dim * kwargs.get("dim_mul", 2) if widens else dim
        blocks.append(
            BlockConfig(
                stage=stage,
                dim_in=dim,
                dim_attn=dim_out if in_attention else dim,
                dim_out=dim_out,
                num_heads=heads,
                q_stride=halved if shrinks else (1,) * rank,
                kv_stride=kv_stride,
                q_kernel=kernel,
                kv_kernel=kernel,
            )
        )
        dim = dim_out
    return tuple(blocks)


def _shared(
    kwargs: Mapping[str, Any],
    num_classes: int | None,
    *,
    rank: int,
    kernel: Grid,
    kv_stride: Grid,
    patch: Mapping[str, Any],
) -> dict[str, Any]:
    blocks = openmmlab_blocks(
        kwargs,
        kernel=_axes(kwargs.get("pool_kernel", kernel), rank),
        kv_stride=_axes(kwargs.get("adaptive_kv_stride", kv_stride), rank),
    )
    last = blocks[-1].stage
    scales = kwargs.get("out_scales", -1)
    wanted = {s % (last + 1) for s in ([scales] if isinstance(scales, int) else scales)}
    return {
        "blocks": blocks,
        "in_channels": kwargs.get("in_channels", 3),
        "num_classes": num_classes or 0,
        "patch_kernel": _axes(patch["kernel_size"], rank),
        "patch_stride": _axes(patch["stride"], rank),
        "patch_padding": _axes(patch["padding"], rank),
        "abs_pos": "joint" if kwargs.get("use_abs_pos_embed", False) else "none",
        "rel_pos_zero_init": kwargs.get("rel_pos_zero_init", False),
        "qkv_bias": kwargs.get("qkv_bias", True),
        "residual_pooling": "grid" if kwargs.get("residual_pooling", True) else "none",
        "mlp_ratio": kwargs.get("mlp_ratio", 4.0),
        "norm_eps": kwargs.get("norm_cfg", {}).get("eps", 1e-6),
        "drop_path": kwargs.get("drop_path_rate", 0.0),
        "final_norm": last in wanted,
        "output_norms": tuple(sorted(wanted - {last})),
        "feed_output_norms": True,
    }


def _axes(value: int | Sequence[int], rank: int) -> Grid:
    return tuple(value) if isinstance(value, Sequence) else (value,) * rank
