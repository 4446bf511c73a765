"""Configurations of timm and of torchvision, which state a model by stages or by a list of block settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from mvitv2.core.config import BlockConfig, MViTConfig
from mvitv2.core.grid import Grid
from mvitv2.core.stages import pooling_kernel, stages

VIDEO_PATCH = {"patch_kernel": (3, 7, 7), "patch_stride": (2, 4, 4), "patch_padding": (1, 3, 3)}


def timm_config(cfg: Mapping[str, Any], kwargs: Mapping[str, Any]) -> MViTConfig:
    """timm's ``MultiScaleVitCfg`` and the arguments of ``create_model``.

    Args:
        cfg: Fields of ``MultiScaleVitCfg``; those left out have timm's defaults.
        kwargs: ``img_size``, ``in_chans``, ``num_classes``, ``global_pool``, ``drop_path_rate``, ``drop_rate``,
            ``features_only``.
    """
    cls = cfg.get("use_cls_token", False)
    size, features = kwargs.get("img_size") or 224, kwargs.get("features_only", False)
    readouts = {"token": "class_token", "avg": "norm_mean", "": "tokens"}
    return MViTConfig(
        blocks=timm_blocks(cfg),
        input_size=tuple(size) if isinstance(size, Sequence) else (size, size),
        in_channels=kwargs.get("in_chans", 3),
        num_classes=0 if features else kwargs.get("num_classes", 1000),
        patch_kernel=tuple(cfg.get("patch_kernel", (7, 7))),
        patch_stride=tuple(cfg.get("patch_stride", (4, 4))),
        patch_padding=tuple(cfg.get("patch_padding", (3, 3))),
        class_token=cls,
        abs_pos="joint" if cfg.get("use_abs_pos", False) else "none",
        rel_pos_spatial=cfg.get("rel_pos_type", "spatial") == "spatial",
        rel_pos_temporal=False,
        table_resampling="first_rows",
        pool_mode=cfg.get("mode", "conv"),
        pool_first=cfg.get("pool_first", False),
        qkv_bias=cfg.get("qkv_bias", True),
        residual_pooling="all" if cfg.get("residual_pooling", True) else "none",
        mlp_ratio=cfg.get("mlp_ratio", 4.0),
        norm_eps=cfg.get("norm_eps", 1e-6),
        drop_path=kwargs.get("drop_path_rate", 0.0),
        head_dropout=kwargs.get("drop_rate", 0.0),
        readout=readouts[kwargs.get("global_pool") or ("token" if cls else "avg")],
        final_norm=not features,
    )


def timm_blocks(cfg: Mapping[str, Any]) -> tuple[BlockConfig, ...]:
    """Blocks of ``MultiScaleVitCfg``; an adaptive key stride outweighs explicit ones, as in its ``__post_init__``."""
    depths = tuple(cfg.get("depths", (2, 3, 16, 3)))
    dims, heads = cfg.get("embed_dim", (96, 192, 384, 768)), cfg.get("num_heads", (1, 2, 4, 8))
    q_strides = _grids(cfg.get("stride_q", ((1, 1), (2, 2), (2, 2), (2, 2))))
    adaptive = cfg.get("stride_kv_adaptive", (4, 4))
    kv_strides = _grids(cfg["stride_kv"]) if cfg.get("stride_kv") else None
    if kv_strides is None:
        if adaptive is None:
            raise ValueError("timm's configuration states neither stride_kv nor stride_kv_adaptive")
        kv_strides = _timm_adaptive(tuple(adaptive), q_strides)
    return stages(
        depths=depths,
        embed_dim=tuple(d * 2**i for i, d in enumerate([dims] * len(depths))) if isinstance(dims, int) else tuple(dims),
        num_heads=tuple(h * 2**i for i, h in enumerate([heads] * len(depths)))
        if isinstance(heads, int)
        else tuple(heads),
        kernel=tuple(cfg.get("kernel_qkv", (3, 3))),
        q_stride=q_strides,
        kv_stride=kv_strides,
        expand_in="attention" if cfg.get("expand_attn", True) else "mlp",
    )


def _timm_adaptive(kv_stride: Grid, q_strides: tuple[Grid, ...]) -> tuple[Grid, ...]:
    """timm divides only where every axis is strided."""
    strides: list[Grid] = []
    for q in q_strides:
        if min(q) > 1:
            kv_stride = tuple(max(k // s, 1) for k, s in zip(kv_stride, q, strict=True))
        strides.append(kv_stride)
    return tuple(strides)


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
    patch = {
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
    settings = [
        {
            "num_heads": b.num_heads,
            "input_channels": b.dim_in,
            "output_channels": b.dim_out,
            "kernel_q": b.q_kernel or (),
            "kernel_kv": b.kv_kernel or (),
            "stride_q": b.q_stride if b.q_kernel else (),
            "stride_kv": b.kv_stride,
        }
        for b in blocks
    ]
    return {
        "spatial_size": (224, 224),
        "temporal_size": 16,
        "block_setting": settings,
        "residual_pool": rel_pos,
        "residual_with_cls_embed": not rel_pos,
        "rel_pos_embed": rel_pos,
        "proj_after_attn": rel_pos,
        "stochastic_depth_prob": 0.2,
    }


def _grids(values: Sequence[Sequence[int]]) -> tuple[Grid, ...]:
    return tuple(tuple(v) for v in values)
