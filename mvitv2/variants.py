"""Every published architecture, as data, under names of one scheme.

``mvitv2_t``: family and size. ``_cls``: with class token. ``_21k``: 19168 classes. ``_16x4``: 16 frames, every 4th of a
video. ``_b24``: 24 blocks (SlowFast's ``MVIT_B_32x3_CONV``, which is not the published 32x3 model). ``_det``: backbone
with windows for large images. The names people know from other codebases are in ``aliases.py``.
Sources: mvit ``configs/``, SlowFast ``configs/``, detectron2 ``projects/MViTv2`` and ``projects/ViTDet``, timm
    ``mvitv2.py``.
"""

from dataclasses import replace
from typing import Any

from mvitv2.core.config import MViTConfig, Reversible
from mvitv2.core.grid import Grid
from mvitv2.core.stages import detection, floor_tables, stages

T, S, B, L, H = (1, 2, 5, 2), (1, 2, 11, 2), (2, 3, 16, 3), (2, 6, 36, 4), (4, 8, 60, 8)
V1 = (1, 2, 11, 2)
WIDE: dict[str, Any] = {"embed_dim": 144, "num_heads": 2}
HUGE: dict[str, Any] = {"embed_dim": 192, "num_heads": 3}
CLIP_POOLING: dict[str, Any] = {"kernel": (3, 3, 3), "q_stride": (1, 2, 2), "kv_stride": (1, 8, 8)}
CLIP: dict[str, Any] = {
    "patch_kernel": (3, 7, 7),
    "patch_stride": (2, 4, 4),
    "patch_padding": (1, 3, 3),
    "num_classes": 400,
    "head_dropout": 0.5,
    "init": "video",
}
CLASS_TOKEN: dict[str, Any] = {"class_token": True, "readout": "class_token"}
V1_STREAM: dict[str, Any] = {
    "rel_pos_spatial": False,
    "rel_pos_temporal": False,
    "residual_pooling": "none",
    "init": "video",
}
DETECTION: dict[str, Any] = {
    "num_classes": 0,
    "final_norm": False,
    "output_norms": (0, 1, 2, 3),
    "rel_pos_zero_init": True,
}


def _image(
    depths: tuple[int, ...], drop_path: float, *, widths: dict[str, Any] | None = None, **fields: Any
) -> MViTConfig:
    expand_in = fields.pop("expand_in", "attention")
    blocks = stages(depths=depths, expand_in=expand_in, **(widths or {}))
    return MViTConfig(blocks=blocks, drop_path=drop_path, **fields)


def _clip(
    depths: tuple[int, ...], frames: int, drop_path: float, *, widths: dict[str, Any] | None = None, **fields: Any
) -> MViTConfig:
    side, expand_in = fields.pop("side", 224), fields.pop("expand_in", "attention")
    blocks = stages(depths=depths, expand_in=expand_in, **CLIP_POOLING, **(widths or {}))
    size = (frames, side, side)
    return MViTConfig(blocks=blocks, input_size=size, drop_path=drop_path, **{**CLIP, **CLASS_TOKEN, **fields})


def _detector(depths: tuple[int, ...], drop_path: float, **widths: Any) -> MViTConfig:
    return MViTConfig(blocks=detection(stages(depths=depths, **widths), 56), drop_path=drop_path, **DETECTION)


def _v1_image(**fields: Any) -> MViTConfig:
    blocks = stages(depths=V1, expand_in="mlp", pool_every_query=False)
    return MViTConfig(blocks=blocks, abs_pos="joint", drop_path=0.1, **{**V1_STREAM, **fields})


def _v1_clip(
    frames: int, drop_path: float, *, depths: tuple[int, ...] = V1, kernel: Grid | None = (3, 3, 3), **fields: Any
) -> MViTConfig:
    pooling = {**CLIP_POOLING, "kernel": kernel}
    blocks = stages(depths=depths, expand_in="mlp", pool_every_query=False, **pooling)
    size = (frames, 224, 224)
    conventions = {**CLIP, **V1_STREAM, "abs_pos": "separable", **fields}
    return MViTConfig(blocks=blocks, input_size=size, drop_path=drop_path, **conventions)


def _reversible(config: MViTConfig, pre_q_fusion: str, **fields: Any) -> MViTConfig:
    """Widths change in transitions, on the way in; a reversible block keeps its own."""
    blocks = tuple(
        replace(b, dim_in=p.dim_attn, dim_out=b.dim_attn)
        for p, b in zip((config.blocks[0], *config.blocks), config.blocks, strict=False)
    )
    transitions = tuple(i for i, b in enumerate(blocks) if b.dim_in != b.dim_out)
    form = Reversible(transitions=transitions, pre_q_fusion=pre_q_fusion)
    return replace(config, blocks=blocks, reversible=form, readout="norm_mean", **fields)


VARIANTS: dict[str, MViTConfig] = {
    "mvitv2_t": _image(T, 0.1),
    "mvitv2_s": _image(S, 0.1),
    "mvitv2_b": _image(B, 0.3),
    "mvitv2_l": _image(L, 0.5, widths=WIDE, expand_in="mlp"),
    "mvitv2_s_cls": _image(S, 0.1, **CLASS_TOKEN),
    "mvitv2_b_cls": _image(B, 0.3, **CLASS_TOKEN),
    "mvitv2_l_cls": _image(L, 0.5, widths=WIDE, **CLASS_TOKEN),
    "mvitv2_h_cls": _image(H, 0.6, widths=HUGE, **CLASS_TOKEN),
    "mvitv2_b_cls_21k": _image(B, 0.3, num_classes=19168, **CLASS_TOKEN),
    "mvitv2_l_cls_21k": _image(L, 0.5, widths=WIDE, num_classes=19168, **CLASS_TOKEN),
    "mvitv2_h_cls_21k": _image(H, 0.6, widths=HUGE, num_classes=19168, **CLASS_TOKEN),
    "mvitv2_s_16x4": _clip(S, 16, 0.2),
    "mvitv2_b_32x3": _clip(B, 32, 0.3),
    "mvitv2_l_40x3": floor_tables(_clip(L, 40, 0.75, widths=WIDE, side=312)),
    "maskfeat_s_16x4": _clip(S, 16, 0.1, expand_in="mlp", readout="mean_norm", head_dropout=0.0, head_init_scale=0.001),
    "maskfeat_l_16x4": _clip(
        L, 16, 0.2, widths=WIDE, expand_in="mlp", readout="mean_norm", head_dropout=0.0, head_init_scale=0.001
    ),
    "mvitv1_b": _v1_image(**CLASS_TOKEN),
    "mvitv1_b_16x4": _v1_clip(16, 0.2, **CLASS_TOKEN),
    "mvitv1_b_32x3": _v1_clip(32, 0.3, **CLASS_TOKEN),
    "mvitv1_b24_32x3": _v1_clip(32, 0.3, depths=B, kernel=None, **CLASS_TOKEN),
    "rev_mvit_b": _reversible(_v1_image(), "concat_linear_2", separate_qkv=True),
    "rev_mvit_b_16x4": _reversible(_v1_clip(16, 0.05), "avg", qkv_bias=False),
    "mvitv2_t_det": _detector(T, 0.2),
    "mvitv2_s_det": _detector(S, 0.2),
    "mvitv2_b_det": _detector(B, 0.4),
    "mvitv2_l_det": _detector(L, 0.5, **WIDE),
    "mvitv2_h_det": _detector(H, 0.6, **HUGE),
}
