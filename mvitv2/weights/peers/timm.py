"""Configurations of timm, which state a model by stages."""

from collections.abc import Mapping, Sequence
from typing import Any

from mvitv2.core.config import BlockConfig, MViTConfig
from mvitv2.core.grid import Grid
from mvitv2.core.stages import stages


def timm_config(cfg: Mapping[str, Any], kwargs: Mapping[str, Any]) -> MViTConfig:
    """timm's ``MultiScaleVitCfg`` and the arguments of ``create_model``.

    Args:
        cfg: Fields of ``MultiScaleVitCfg``; those left out have timm's defaults.
        kwargs: ``img_size``, ``in_chans``, ``num_classes``, ``global_pool``, ``drop_path_rate``, ``drop_rate``,
            ``features_only``.
    """
    cls = cfg.get("use_cls_token", False)
    size, features = kwargs.get("img_size") or 224, kwargs.get("features_only", False)
    readouts: dict[str, Any] = {"token": "class_token", "avg": "norm_mean", "": "tokens"}
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


def timm_settings(config: MViTConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """``MultiScaleVitCfg`` and arguments of ``create_model``; what timm has no setting for is left at what it does."""
    opens = [i for i, b in enumerate(config.blocks) if i == 0 or b.stage != config.blocks[i - 1].stage]
    firsts = [config.blocks[i] for i in opens]
    cfg = {
        "depths": tuple(b - a for a, b in zip(opens, [*opens[1:], len(config.blocks)], strict=True)),
        "embed_dim": tuple(b.dim_attn for b in firsts),
        "num_heads": tuple(b.num_heads for b in firsts),
        "mlp_ratio": config.mlp_ratio,
        # timm has the option, but its MultiScaleAttentionPoolFirst cannot run: it does not transpose the keys
        "pool_first": False,
        "expand_attn": all(b.dim_out == b.dim_attn for b in config.blocks),
        "qkv_bias": config.qkv_bias,
        "use_cls_token": config.class_token,
        "use_abs_pos": config.abs_pos != "none",
        "residual_pooling": config.residual_pooling != "none",
        "mode": config.pool_mode,
        "kernel_qkv": firsts[0].kv_kernel or (1, 1),
        "stride_q": tuple(b.q_stride for b in firsts),
        "stride_kv": tuple(b.kv_stride for b in firsts),
        "stride_kv_adaptive": None,
        "patch_kernel": config.patch_kernel,
        "patch_stride": config.patch_stride,
        "patch_padding": config.patch_padding,
        "rel_pos_type": "spatial" if config.rel_pos_spatial else "",
        "norm_eps": config.norm_eps,
    }
    pools = {"class_token": "token", "norm_mean": "avg"}
    kwargs = {
        "img_size": config.input_size,
        "in_chans": config.in_channels,
        "num_classes": config.num_classes,
        "global_pool": pools.get(config.readout),
        "drop_path_rate": config.drop_path,
        "drop_rate": config.head_dropout,
        "features_only": not config.final_norm,
    }
    return cfg, kwargs


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


def _grids(values: Sequence[Sequence[int]]) -> tuple[Grid, ...]:
    return tuple(tuple(v) for v in values)
