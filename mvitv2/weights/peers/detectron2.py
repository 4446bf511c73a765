"""Configurations of detectron2's MViT backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

from mvitv2.core.config import BlockConfig, MViTConfig
from mvitv2.core.grid import Grid

SCALES = ("scale2", "scale3", "scale4", "scale5")


def detectron2_config(kwargs: Mapping[str, Any]) -> MViTConfig:
    """Arguments of detectron2's ``MViT``; those left out have its defaults, ``norm_eps=None`` among them (1e-5)."""
    size, pretrain = kwargs.get("img_size", 224), kwargs.get("pretrain_img_size", 224)
    outputs = kwargs.get("out_features", SCALES)
    eps = kwargs.get("norm_eps", None)
    return MViTConfig(
        blocks=detectron2_blocks(kwargs),
        input_size=_pair(size),
        in_channels=kwargs.get("in_chans", 3),
        num_classes=0,
        patch_kernel=_pair(kwargs.get("patch_kernel", 7)),
        patch_stride=_pair(kwargs.get("patch_stride", 4)),
        patch_padding=_pair(kwargs.get("patch_padding", 3)),
        abs_pos="joint" if kwargs.get("use_abs_pos", False) else "none",
        abs_pos_size=_whole_patches(pretrain, kwargs) if kwargs.get("use_abs_pos", False) else None,
        rel_pos_spatial=kwargs.get("use_rel_pos", True),
        rel_pos_temporal=False,
        rel_pos_zero_init=kwargs.get("rel_pos_zero_init", True),
        qkv_bias=kwargs.get("qkv_bias", True),
        residual_pooling="grid" if kwargs.get("residual_pooling", True) else "none",
        mlp_ratio=kwargs.get("mlp_ratio", 4.0),
        norm_eps=1e-5 if eps is None else eps,
        drop_path=kwargs.get("drop_path_rate", 0.0),
        final_norm=False,
        output_norms=tuple(SCALES.index(name) for name in SCALES if name in outputs),
    )


def detectron2_settings(config: MViTConfig) -> dict[str, Any]:
    """Arguments of detectron2's ``MViT`` that build a backbone; what it has no argument for is left at what it does."""
    blocks = config.blocks
    ends = [i for i, (b, after) in enumerate(zip(blocks, (*blocks[1:], None), strict=True)) if _ends(b, after)]
    pretrain = config.abs_pos_size or config.input_size
    return {
        "img_size": config.input_size[0],
        "patch_kernel": config.patch_kernel,
        "patch_stride": config.patch_stride,
        "patch_padding": config.patch_padding,
        "in_chans": config.in_channels,
        "embed_dim": config.embed_dim,
        "depth": len(blocks),
        "num_heads": blocks[0].num_heads,
        "last_block_indexes": tuple(ends),
        "qkv_pool_kernel": blocks[0].kv_kernel or blocks[0].kv_stride,
        "adaptive_kv_stride": blocks[0].kv_stride[0],
        "adaptive_window_size": blocks[0].window or 0,
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "drop_path_rate": config.drop_path,
        "norm_eps": config.norm_eps,
        "use_abs_pos": config.abs_pos != "none",
        "pretrain_img_size": pretrain[0],
        "use_rel_pos": config.rel_pos_spatial,
        "rel_pos_zero_init": config.rel_pos_zero_init,
        "residual_pooling": config.residual_pooling != "none",
        "out_features": tuple(SCALES[stage] for stage in config.output_norms if stage < len(SCALES)),
    }


def _ends(block: BlockConfig, after: BlockConfig | None) -> bool:
    return after is None or after.stage != block.stage


def detectron2_blocks(kwargs: Mapping[str, Any]) -> tuple[BlockConfig, ...]:
    """Blocks as ``backbone/mvit.py:345-415`` lays them out; ``last_block_indexes`` may be any four."""
    depth, last = kwargs.get("depth", 16), tuple(kwargs.get("last_block_indexes", (0, 2, 11, 15)))
    kernel = _pair(kwargs.get("qkv_pool_kernel", (3, 3)))
    dim = dim_out = kwargs.get("embed_dim", 96)
    heads, kv_stride = kwargs.get("num_heads", 1), kwargs.get("adaptive_kv_stride", 4)
    window, stage = kwargs.get("adaptive_window_size", 56), 0
    blocks: list[BlockConfig] = []
    for i in range(depth):
        harder = 2 if i in last[1:3] else 1
        blocks.append(
            BlockConfig(
                stage=stage,
                dim_in=dim,
                dim_attn=dim_out,
                dim_out=dim_out,
                num_heads=heads,
                q_stride=_pair(2 if i - 1 in last else 1),
                kv_stride=_pair(kv_stride * harder),
                q_kernel=kernel,
                kv_kernel=kernel,
                window=None if i in last[1:] or not window else window,
            )
        )
        dim = dim_out
        if i in last:
            dim_out, heads, kv_stride, stage = 2 * dim_out, 2 * heads, max(kv_stride // 2, 1), stage + 1
        if i - 1 in last:
            window //= 2
    return tuple(blocks)


def _whole_patches(size: int, kwargs: Mapping[str, Any]) -> Grid:
    """The part of a pre-training size that whole patches cover: detectron2 counts its positions by division."""
    return tuple(size // stride * stride for stride in _pair(kwargs.get("patch_stride", 4)))


def _pair(value: int | Sequence[int]) -> Grid:
    return tuple(value) if isinstance(value, Sequence) else (value, value)
