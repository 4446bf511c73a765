"""Our configurations in the terms of facebookresearch/mvit, SlowFast and pytorchvideo: the way back of ``slowfast.py``.

What those codebases have no setting for is left at what they do; reading the settings again shows it.
"""

from collections.abc import Sequence
from typing import Any

from mvitv2.core.config import BlockConfig, MViTConfig, Reversible


def official_settings(config: MViTConfig) -> dict[str, Any]:
    """The configuration of facebookresearch/mvit that builds an image model."""
    settings = slowfast_settings(config)
    for name in ("PATCH_2D", "NORM_STEM", "USE_MEAN_POOLING", "USE_FIXED_SINCOS_POS", "SEPARATE_QKV", "REV"):
        del settings["MVIT"][name]
    return settings


def slowfast_settings(config: MViTConfig) -> dict[str, Any]:
    """The configuration of SlowFast that builds a model of clips, or of images with ``PATCH_2D``."""
    side, image = config.input_size[-1], config.rank == len("hw")
    data = {
        "TRAIN_CROP_SIZE": side,
        "TEST_CROP_SIZE": side,
        "NUM_FRAMES": 1 if image else config.input_size[0],
        "INPUT_CHANNEL_NUM": [config.in_channels],
    }
    model = {
        "NUM_CLASSES": config.num_classes,
        "DROPOUT_RATE": config.head_dropout,
        "HEAD_ACT": config.head_activation,
        "MODEL_NAME": "MViT",
        "ARCH": "mvit",
    }
    mvit = {**_stream(config), **_numbered(config.blocks), "PATCH_2D": image, "REV": _reversible(config.reversible)}
    return {"DATA": data, "MODEL": model, "MVIT": mvit}


def _stream(config: MViTConfig) -> dict[str, Any]:
    return {
        "MODE": config.pool_mode,
        "POOL_FIRST": config.pool_first,
        "CLS_EMBED_ON": config.class_token,
        "PATCH_KERNEL": list(config.patch_kernel),
        "PATCH_STRIDE": list(config.patch_stride),
        "PATCH_PADDING": list(config.patch_padding),
        "MLP_RATIO": config.mlp_ratio,
        "QKV_BIAS": config.qkv_bias,
        "DROPPATH_RATE": config.drop_path,
        "NORM_STEM": config.norm_stem,
        "SEP_POS_EMBED": config.abs_pos == "separable",
        "DROPOUT_RATE": config.dropout,
        "USE_ABS_POS": config.abs_pos != "none",
        "REL_POS_SPATIAL": "h" in config.position_axes,
        "REL_POS_TEMPORAL": "t" in config.position_axes,
        "REL_POS_ZERO_INIT": config.rel_pos_zero_init,
        "RESIDUAL_POOLING": config.residual_pooling != "none",
        "SEPARATE_QKV": config.separate_qkv,
        "HEAD_INIT_SCALE": config.head_init_scale,
        "USE_MEAN_POOLING": config.readout == "mean_norm",
        "USE_FIXED_SINCOS_POS": config.abs_pos_init == "sincos",
    }


def _reversible(form: Reversible | None) -> dict[str, Any]:
    return {
        "ENABLE": form is not None,
        "RESPATH_FUSE": "concat" if form is None else form.path_fusion,
        "BUFFER_LAYERS": [] if form is None else list(form.transitions),
        "RES_PATH": "conv",
        "PRE_Q_FUSION": "avg" if form is None else form.pre_q_fusion,
    }


def pytorchvideo_settings(config: MViTConfig) -> dict[str, Any]:
    """Arguments of pytorchvideo's ``create_multiscale_vision_transformers``."""
    numbers = _numbered(config.blocks)
    image = config.rank == len("hw")
    time = (1,) if image else ()
    return {
        "spatial_size": tuple(config.input_size[-2:]),
        "temporal_size": 1 if image else config.input_size[0],
        "cls_embed_on": config.class_token,
        "sep_pos_embed": config.abs_pos == "separable" or image,
        "depth": numbers["DEPTH"],
        "norm": "batchnorm" if config.norm == "batch" else "layernorm",
        "input_channels": config.in_channels,
        "patch_embed_dim": numbers["EMBED_DIM"],
        "conv_patch_embed_kernel": (*time, *config.patch_kernel),
        "conv_patch_embed_stride": (*time, *config.patch_stride),
        "conv_patch_embed_padding": (*(0 for _ in time), *config.patch_padding),
        "use_2d_patch": image,
        "num_heads": numbers["NUM_HEADS"],
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "bias_on": config.linear_bias,
        "depthwise_conv": config.pool_mode != "conv_dense",
        "separate_qkv": config.separate_qkv,
        "pooling_mode": "conv" if config.pool_mode == "conv_dense" else config.pool_mode,
        "pool_first": config.pool_first,
        "residual_pool": config.residual_pooling != "none",
        "dim_mul_in_att": numbers["DIM_MUL_IN_ATT"],
        "embed_dim_mul": numbers["DIM_MUL"],
        "atten_head_mul": numbers["HEAD_MUL"],
        "pool_q_stride_size": numbers["POOL_Q_STRIDE"],
        "pool_kv_stride_size": numbers["POOL_KV_STRIDE"],
        "pool_kvq_kernel": numbers["POOL_KVQ_KERNEL"],
        "head_num_classes": config.num_classes,
    }


def _numbered(blocks: Sequence[BlockConfig]) -> dict[str, Any]:
    """Widths, heads and strides as lists of ``[block, ...]``; widths grow in the block, or count for the one after."""
    in_attention = all(b.dim_out == b.dim_attn for b in blocks)
    kernels = {kernel for b in blocks for kernel in (b.q_kernel, b.kv_kernel) if kernel is not None}
    heads = [blocks[0].num_heads, *(b.num_heads for b in blocks)]
    later = 0 if in_attention else 1
    return {
        "DEPTH": len(blocks),
        "EMBED_DIM": blocks[0].dim_in,
        "NUM_HEADS": blocks[0].num_heads,
        "DIM_MUL": [[i + later, b.dim_out / b.dim_in] for i, b in enumerate(blocks) if b.dim_out != b.dim_in],
        "HEAD_MUL": [[i, b.num_heads / heads[i]] for i, b in enumerate(blocks) if b.num_heads != heads[i]],
        "DIM_MUL_IN_ATT": in_attention,
        "POOL_Q_STRIDE": [[i, *b.q_stride] for i, b in enumerate(blocks) if b.q_kernel is not None],
        "POOL_KV_STRIDE": [[i, *b.kv_stride] for i, b in enumerate(blocks) if b.kv_kernel is not None],
        "POOL_KV_STRIDE_ADAPTIVE": None,
        # where kernels differ they may still be one wider than their strides, which is what no kernel means
        "POOL_KVQ_KERNEL": list(kernels.pop()) if len(kernels) == 1 else None,
    }
