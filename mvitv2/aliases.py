"""Names that people already type, and the variants they mean."""

from mvitv2.variants import VARIANTS

TIMM = {
    "mvitv2_tiny": "mvitv2_t",
    "mvitv2_small": "mvitv2_s",
    "mvitv2_base": "mvitv2_b",
    "mvitv2_large": "mvitv2_l",
    "mvitv2_small_cls": "mvitv2_s_cls",
    "mvitv2_base_cls": "mvitv2_b_cls",
    "mvitv2_large_cls": "mvitv2_l_cls",
    "mvitv2_huge_cls": "mvitv2_h_cls",
    "mvitv2_tiny.fb_in1k": "mvitv2_t",
    "mvitv2_small.fb_in1k": "mvitv2_s",
    "mvitv2_base.fb_in1k": "mvitv2_b",
    "mvitv2_large.fb_in1k": "mvitv2_l",
    "mvitv2_base_cls.fb_inw21k": "mvitv2_b_cls_21k",
    "mvitv2_large_cls.fb_inw21k": "mvitv2_l_cls_21k",
    "mvitv2_huge_cls.fb_inw21k": "mvitv2_h_cls_21k",
}
TORCHVISION = {"mvit_v2_s": "mvitv2_s_16x4", "mvit_v1_b": "mvitv1_b_16x4"}
OFFICIAL = {"MViTv2_T": "mvitv2_t", "MViTv2_S": "mvitv2_s", "MViTv2_B": "mvitv2_b", "MViTv2_L": "mvitv2_l"}
SLOWFAST = {
    "MVITv2_T": "mvitv2_t",
    "MVITv2_S": "mvitv2_s",
    "MVITv2_B": "mvitv2_b",
    "MVITv2_L": "mvitv2_l",
    "MVITv2_S_16x4": "mvitv2_s_16x4",
    "MVITv2_B_32x3": "mvitv2_b_32x3",
    "MVITv2_L_40x3_test": "mvitv2_l_40x3",
    "MVIT_B_16_CONV": "mvitv1_b",
    "MVIT_B_16x4_CONV": "mvitv1_b_16x4",
    "MVIT_B_32x3_CONV": "mvitv1_b24_32x3",
    "REV_MVIT_B_16_CONV": "rev_mvit_b",
    "REV_MVIT_B_16x4_CONV": "rev_mvit_b_16x4",
    "k400_MVIT_S_16x4_MaskFeat_FT": "maskfeat_s_16x4",
    "k400_MVIT_L_16x4_MaskFeat_FT": "maskfeat_l_16x4",
}
PYTORCHVIDEO = {"mvit_base_16": "mvitv1_b", "mvit_base_16x4": "mvitv1_b_16x4", "mvit_base_32x3": "mvitv1_b_32x3"}
OPENMMLAB = {
    "mvitv2-tiny_3rdparty_in1k": "mvitv2_t",
    "mvitv2-small_3rdparty_in1k": "mvitv2_s",
    "mvitv2-base_3rdparty_in1k": "mvitv2_b",
    "mvitv2-large_3rdparty_in1k": "mvitv2_l",
    "mvit-small-p244": "mvitv2_s_16x4",
    "mvit-base-p244": "mvitv2_b_32x3",
    "mvit-large-p244": "mvitv2_l_40x3",
}
DETECTRON2 = {
    "mask_rcnn_mvitv2_t_3x": "mvitv2_t_det",
    "cascade_mask_rcnn_mvitv2_t_3x": "mvitv2_t_det",
    "cascade_mask_rcnn_mvitv2_s_3x": "mvitv2_s_det",
    "cascade_mask_rcnn_mvitv2_b_3x": "mvitv2_b_det",
    "cascade_mask_rcnn_mvitv2_b_in21k_3x": "mvitv2_b_det",
    "cascade_mask_rcnn_mvitv2_l_in21k_lsj_50ep": "mvitv2_l_det",
    "cascade_mask_rcnn_mvitv2_h_in21k_lsj_3x": "mvitv2_h_det",
    "cascade_mask_rcnn_mvitv2_b_in21k_100ep": "mvitv2_b_det",
    "cascade_mask_rcnn_mvitv2_l_in21k_50ep": "mvitv2_l_det",
    "cascade_mask_rcnn_mvitv2_h_in21k_36ep": "mvitv2_h_det",
}
"""Configuration files of detectron2."""
DETECTORS = {
    "mask_rcnn_mvitv2_t": "mvitv2_t_det",
    **{f"cascade_mask_rcnn_mvitv2_{size}": f"mvitv2_{size}_det" for size in "tsblh"},
    **{f"vitdet_{data}_mvitv2_{size}": f"mvitv2_{size}_det" for data in ("coco", "lvis") for size in "blh"},
    "COCO/cascade_mask_rcnn_mvitv2_b_in21k_100ep": "mvitv2_b_det",
    "COCO/cascade_mask_rcnn_mvitv2_l_in21k_50ep": "mvitv2_l_det",
    "COCO/cascade_mask_rcnn_mvitv2_h_in21k_36ep": "mvitv2_h_det",
    "LVIS/cascade_mask_rcnn_mvitv2_b_in21k_100ep": "mvitv2_b_det",
    "LVIS/cascade_mask_rcnn_mvitv2_l_in21k_50ep": "mvitv2_l_det",
    "LVIS/cascade_mask_rcnn_mvitv2_h_in21k_50ep": "mvitv2_h_det",
}
"""Whole detectors of ``mvitv2.tasks.detect.variants``, and the backbones that they have."""
ALIASES: dict[str, str] = {
    **TIMM,
    **TORCHVISION,
    **OFFICIAL,
    **SLOWFAST,
    **PYTORCHVIDEO,
    **OPENMMLAB,
    **DETECTRON2,
    **DETECTORS,
}


def variant_name(name: str) -> str:
    """Our name of a variant, from ours or from one of the peers'.

    Raises:
        ValueError: Nobody calls a model so; the nearest names are offered.
    """
    if name in VARIANTS:
        return name
    if name in ALIASES:
        return ALIASES[name]
    # difflib costs 10 ms to import, and this is the only place that may need it
    from difflib import get_close_matches

    near = get_close_matches(name, [*VARIANTS, *ALIASES], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "mvitv2.list_models() names them all"
    raise ValueError(f"there is no model {name!r}; {hint}")
