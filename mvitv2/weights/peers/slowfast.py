"""Configurations of mvit, SlowFast and pytorchvideo, which number widths, heads and strides by block."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mvitv2.core.config import BlockConfig, MViTConfig, Reversible
from mvitv2.core.grid import Grid, one_wider
from mvitv2.core.stages import pooling_kernel

MVIT_DEFAULTS: dict[str, Any] = {
    "MODE": "conv",
    "POOL_FIRST": False,
    "CLS_EMBED_ON": True,
    "PATCH_KERNEL": [3, 7, 7],
    "PATCH_STRIDE": [2, 4, 4],
    "PATCH_PADDING": [2, 4, 4],
    "PATCH_2D": False,
    "EMBED_DIM": 96,
    "NUM_HEADS": 1,
    "MLP_RATIO": 4.0,
    "QKV_BIAS": True,
    "DROPPATH_RATE": 0.1,
    "DEPTH": 16,
    "DIM_MUL": [],
    "HEAD_MUL": [],
    "POOL_KV_STRIDE": [],
    "POOL_KV_STRIDE_ADAPTIVE": None,
    "POOL_Q_STRIDE": [],
    "POOL_KVQ_KERNEL": None,
    "NORM_STEM": False,
    "SEP_POS_EMBED": False,
    "DROPOUT_RATE": 0.0,
    "USE_ABS_POS": True,
    "REL_POS_SPATIAL": False,
    "REL_POS_TEMPORAL": False,
    "REL_POS_ZERO_INIT": False,
    "RESIDUAL_POOLING": False,
    "DIM_MUL_IN_ATT": False,
    "SEPARATE_QKV": False,
    "HEAD_INIT_SCALE": 1.0,
    "USE_MEAN_POOLING": False,
    "USE_FIXED_SINCOS_POS": False,
}
"""SlowFast ``config/defaults.py``; facebookresearch/mvit states every key it reads, or shares these."""
REV_DEFAULTS = {
    "ENABLE": False,
    "RESPATH_FUSE": "concat",
    "BUFFER_LAYERS": [],
    "RES_PATH": "conv",
    "PRE_Q_FUSION": "avg",
}
MODEL_DEFAULTS = {"NUM_CLASSES": 400, "DROPOUT_RATE": 0.5, "HEAD_ACT": "softmax"}


def official_config(cfg: Mapping[str, Any]) -> MViTConfig:
    """A configuration of facebookresearch/mvit: images only, tables never resized."""
    mvit = {**MVIT_DEFAULTS, **cfg["MVIT"]}
    size = cfg["DATA"]["TRAIN_CROP_SIZE"]
    return MViTConfig(
        **_shared(mvit, {**MODEL_DEFAULTS, "DROPOUT_RATE": 0.0, **cfg["MODEL"]}),
        blocks=numbered_blocks(mvit, rank=2),
        input_size=(size, size),
        abs_pos="joint" if mvit["USE_ABS_POS"] else "none",
        rel_pos_temporal=False,
        readout="class_token" if mvit["CLS_EMBED_ON"] else "norm_mean",
        table_resampling="first_rows",
    )


def slowfast_config(cfg: Mapping[str, Any]) -> MViTConfig:
    """A configuration of SlowFast: clips, or images with ``PATCH_2D``."""
    mvit = {**MVIT_DEFAULTS, **cfg["MVIT"]}
    model = {**MODEL_DEFAULTS, **cfg["MODEL"]}
    rank = 2 if mvit["PATCH_2D"] else 3
    side = cfg["DATA"]["TRAIN_CROP_SIZE"]
    readout = "class_token" if mvit["CLS_EMBED_ON"] else "norm_mean"
    return MViTConfig(
        **_shared(mvit, model),
        blocks=numbered_blocks(mvit, rank=rank),
        input_size=(side, side) if rank == 2 else (cfg["DATA"]["NUM_FRAMES"], side, side),
        in_channels=cfg["DATA"].get("INPUT_CHANNEL_NUM", [3])[0],
        norm_stem=mvit["NORM_STEM"],
        abs_pos=_absolute(mvit["USE_ABS_POS"], mvit["SEP_POS_EMBED"] and rank == 3),
        rel_pos_temporal=mvit["REL_POS_TEMPORAL"] and rank == 3,
        abs_pos_init="sincos" if mvit["USE_FIXED_SINCOS_POS"] and rank == 3 else "learned",
        separate_qkv=mvit["SEPARATE_QKV"],
        readout="mean_norm" if mvit["USE_MEAN_POOLING"] else readout,
        dropout=mvit["DROPOUT_RATE"],
        pos_dropout=mvit["DROPOUT_RATE"],
        head_init_scale=mvit["HEAD_INIT_SCALE"],
        init="video",
        reversible=reversible_part({**REV_DEFAULTS, **mvit.get("REV", {})}),
    )


def reversible_part(rev: Mapping[str, Any]) -> Reversible | None:
    """``MVIT.REV``, or ``None`` where it is off.

    Raises:
        ValueError: ``RES_PATH`` is not ``conv``; SlowFast itself crashes on anything else.
    """
    if not rev["ENABLE"]:
        return None
    if rev["RES_PATH"] != "conv":
        raise ValueError(f"MVIT.REV.RES_PATH={rev['RES_PATH']!r}: only 'conv' runs, in SlowFast as here")
    return Reversible(
        transitions=tuple(rev["BUFFER_LAYERS"]), pre_q_fusion=rev["PRE_Q_FUSION"], path_fusion=rev["RESPATH_FUSE"]
    )


def pytorchvideo_config(kwargs: Mapping[str, Any]) -> MViTConfig:
    """Arguments of pytorchvideo's ``create_multiscale_vision_transformers``; a clip of one frame is an image."""
    rank = 2 if kwargs.get("use_2d_patch") else 3
    side, frames = kwargs["spatial_size"], kwargs["temporal_size"]
    size = tuple(side) if isinstance(side, Sequence) else (side, side)
    cls, separable = kwargs.get("cls_embed_on", True), kwargs.get("sep_pos_embed", True)
    depthwise = kwargs.get("depthwise_conv", True)
    mode = kwargs.get("pooling_mode", "conv")
    batch = kwargs.get("norm", "layernorm") == "batchnorm"
    return MViTConfig(
        blocks=numbered_blocks(_as_mvit(kwargs), rank=rank),
        input_size=size if rank == 2 else (frames, *size),
        in_channels=kwargs.get("input_channels", 3),
        num_classes=kwargs.get("head_num_classes", 400),
        patch_kernel=_last(kwargs.get("conv_patch_embed_kernel", (3, 7, 7)), rank),
        patch_stride=_last(kwargs.get("conv_patch_embed_stride", (2, 4, 4)), rank),
        patch_padding=_last(kwargs.get("conv_patch_embed_padding", (1, 3, 3)), rank),
        class_token=cls,
        abs_pos=_absolute(True, separable and rank == 3),
        rel_pos_spatial=False,
        rel_pos_temporal=False,
        pool_mode="conv_dense" if mode == "conv" and not depthwise else mode,
        pool_first=kwargs.get("pool_first", False),
        separate_qkv=kwargs.get("separate_qkv", True),
        qkv_bias=kwargs.get("qkv_bias", True),
        linear_bias=kwargs.get("bias_on", True),
        residual_pooling="all" if kwargs.get("residual_pool", False) else "none",
        mlp_ratio=kwargs.get("mlp_ratio", 4.0),
        norm="batch" if batch else "layer",
        final_norm=not batch,
        drop_path=kwargs.get("droppath_rate_block", 0.0),
        dropout=kwargs.get("dropout_rate_block", 0.0),
        pos_dropout=kwargs.get("dropout_rate_block", 0.0),
        head_dropout=kwargs.get("head_dropout_rate", 0.5),
        readout="class_token" if cls else "norm_mean",
        init="video",
    )


def numbered_blocks(mvit: Mapping[str, Any], *, rank: int) -> tuple[BlockConfig, ...]:
    """Blocks from lists of ``[block, ...]`` entries (SlowFast ``video_model_builder.py``; mvit ``mvit_model.py``).

    Args:
        mvit: The ``MVIT`` part of a configuration; image models may state 3 numbers per entry, time first.
        rank: 2 or 3 axes; the last so many numbers of an entry count.
    """
    depth, in_attention = mvit["DEPTH"], mvit["DIM_MUL_IN_ATT"]
    dim_mul, head_mul = _multipliers(mvit["DIM_MUL"], depth), _multipliers(mvit["HEAD_MUL"], depth)
    q_pools, kv_pools = _poolings(mvit, depth, rank)
    reversible = mvit.get("REV", {}).get("ENABLE", False)
    blocks: list[BlockConfig] = []
    dim, heads, stage = mvit["EMBED_DIM"], mvit["NUM_HEADS"], 0
    for i in range(depth):
        heads = round_width(heads, head_mul[i])
        # the multiplier of the heads counts twice in the divisor; that is what the peers do
        if reversible:
            dim = round_width(dim, dim_mul[i - 1] if i else 1.0, heads)
            dim_out = round_width(dim, dim_mul[i], round_width(heads, head_mul[i + 1]))
        elif in_attention:
            dim_out = round_width(dim, dim_mul[i], round_width(heads, head_mul[i]))
        else:
            dim_out = round_width(dim, dim_mul[i + 1], round_width(heads, head_mul[i + 1]))
        (q_kernel, q_stride), (kv_kernel, kv_stride) = q_pools[i], kv_pools[i]
        stage += i > 0 and max(q_stride) > 1
        blocks.append(
            BlockConfig(
                stage=stage,
                dim_in=dim,
                dim_attn=dim_out if in_attention or reversible else dim,
                dim_out=dim_out,
                num_heads=heads,
                q_stride=q_stride,
                kv_stride=kv_stride,
                q_kernel=q_kernel,
                kv_kernel=kv_kernel,
            )
        )
        dim = dim if reversible else dim_out
    return tuple(blocks)


Pooling = tuple[Grid | None, Grid]


def _poolings(mvit: Mapping[str, Any], depth: int, rank: int) -> tuple[list[Pooling], list[Pooling]]:
    """Kernel and stride of queries and of keys, per block; blocks that no entry names do not pool."""
    kernel = mvit["POOL_KVQ_KERNEL"]
    q_strides = {entry[0]: _last(entry[1:], rank) for entry in mvit["POOL_Q_STRIDE"] or ()}
    if mvit["POOL_KV_STRIDE_ADAPTIVE"] is not None:
        kv_strides = {}
        left = _last(mvit["POOL_KV_STRIDE_ADAPTIVE"], rank)
        for i in range(depth):
            left = tuple(max(s // q, 1) for s, q in zip(left, q_strides.get(i, (1,) * rank), strict=True))
            kv_strides[i] = left
    else:
        kv_strides = {entry[0]: _last(entry[1:], rank) for entry in mvit["POOL_KV_STRIDE"] or ()}

    def pooling(stride: Grid | None) -> Pooling:
        if stride is None:
            return None, (1,) * rank
        window = _last(kernel, rank) if kernel is not None else one_wider(stride)
        return pooling_kernel(window, stride), stride

    return [pooling(q_strides.get(i)) for i in range(depth)], [pooling(kv_strides.get(i)) for i in range(depth)]


def round_width(width: int, multiplier: float, divisor: int = 1) -> int:
    """A width times a multiplier, rounded to a multiple (SlowFast ``models/utils.py``), in the peers' float32."""
    exact = torch.tensor(multiplier, dtype=torch.float32) * width
    rounded = max(1, int(exact + divisor / 2) // divisor * divisor)
    return int(rounded + divisor if rounded < 0.9 * exact else rounded)


def _multipliers(entries: Sequence[Sequence[float]] | None, depth: int) -> list[float]:
    factors = [1.0] * (depth + 1)
    for block, factor in entries or ():
        factors[int(block)] = factor
    return factors


def _last(values: Sequence[int], rank: int) -> Grid:
    return tuple(int(v) for v in values)[-rank:]


def _absolute(used: bool, separable: bool) -> Any:
    if not used:
        return "none"
    return "separable" if separable else "joint"


def _shared(mvit: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    rank = len(mvit["PATCH_KERNEL"])
    return {
        "num_classes": model["NUM_CLASSES"],
        "patch_kernel": _last(mvit["PATCH_KERNEL"], rank),
        "patch_stride": _last(mvit["PATCH_STRIDE"], rank),
        "patch_padding": _last(mvit["PATCH_PADDING"], rank),
        "class_token": mvit["CLS_EMBED_ON"],
        "rel_pos_spatial": mvit["REL_POS_SPATIAL"],
        "rel_pos_zero_init": mvit["REL_POS_ZERO_INIT"],
        "pool_mode": mvit["MODE"],
        "pool_first": mvit["POOL_FIRST"],
        "qkv_bias": mvit["QKV_BIAS"],
        "residual_pooling": "grid" if mvit["RESIDUAL_POOLING"] else "none",
        "mlp_ratio": mvit["MLP_RATIO"],
        "drop_path": mvit["DROPPATH_RATE"],
        "head_dropout": model["DROPOUT_RATE"],
        "head_activation": model["HEAD_ACT"],
    }


def _as_mvit(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """pytorchvideo's arguments under SlowFast's names."""
    return {
        **MVIT_DEFAULTS,
        "DEPTH": kwargs.get("depth", 16),
        "EMBED_DIM": kwargs.get("patch_embed_dim", 96),
        "NUM_HEADS": kwargs.get("num_heads", 1),
        "DIM_MUL": kwargs.get("embed_dim_mul") or [],
        "HEAD_MUL": kwargs.get("atten_head_mul") or [],
        "DIM_MUL_IN_ATT": kwargs.get("dim_mul_in_att", False),
        "POOL_Q_STRIDE": kwargs.get("pool_q_stride_size") or [],
        "POOL_KV_STRIDE": kwargs.get("pool_kv_stride_size") or [],
        "POOL_KV_STRIDE_ADAPTIVE": kwargs.get("pool_kv_stride_adaptive"),
        "POOL_KVQ_KERNEL": kwargs.get("pool_kvq_kernel"),
    }
