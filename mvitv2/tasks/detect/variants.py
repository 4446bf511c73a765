"""The published detectors, as data; the names of their configuration files in detectron2 are in ``ALIASES``.

``mask_rcnn_mvitv2_t``, ``cascade_mask_rcnn_mvitv2_*``: the MViTv2 project. ``vitdet_coco_mvitv2_*``,
``vitdet_lvis_mvitv2_*``: the ViTDet project, with layer norm and square images.
"""

from typing import Any

from mvitv2.tasks.detect.config import MASK_RCNN, DetectorConfig, ProposalConfig, Selection
from mvitv2.variants import VARIANTS


def _cascade(size: str, **fields: Any) -> DetectorConfig:
    return DetectorConfig(backbone=VARIANTS[f"mvitv2_{size}_det"], **fields)


def _vitdet(size: str, **fields: Any) -> DetectorConfig:
    return _cascade(size, pyramid_norm="LN", head_norm="LN", square=1024, **fields)


def _lvis(size: str) -> DetectorConfig:
    selection = Selection(min_score=0.02, max_detections=300)
    return _vitdet(size, num_classes=1203, scoring="sigmoid", federated_classes=50, selection=selection)


DETECTORS: dict[str, DetectorConfig] = {
    "mask_rcnn_mvitv2_t": _cascade(
        "t",
        stages=MASK_RCNN,
        class_agnostic=False,
        box_convs=(),
        box_layers=(1024, 1024),
        head_norm="",
        proposals=ProposalConfig(convs=1),
    ),
    **{f"cascade_mask_rcnn_mvitv2_{size}": _cascade(size) for size in "tsblh"},
    **{f"vitdet_coco_mvitv2_{size}": _vitdet(size) for size in "blh"},
    **{f"vitdet_lvis_mvitv2_{size}": _lvis(size) for size in "blh"},
}
ALIASES: dict[str, str] = {
    "mask_rcnn_mvitv2_t_3x": "mask_rcnn_mvitv2_t",
    "cascade_mask_rcnn_mvitv2_t_3x": "cascade_mask_rcnn_mvitv2_t",
    "cascade_mask_rcnn_mvitv2_s_3x": "cascade_mask_rcnn_mvitv2_s",
    "cascade_mask_rcnn_mvitv2_b_3x": "cascade_mask_rcnn_mvitv2_b",
    "cascade_mask_rcnn_mvitv2_b_in21k_3x": "cascade_mask_rcnn_mvitv2_b",
    "cascade_mask_rcnn_mvitv2_l_in21k_lsj_50ep": "cascade_mask_rcnn_mvitv2_l",
    "cascade_mask_rcnn_mvitv2_h_in21k_lsj_3x": "cascade_mask_rcnn_mvitv2_h",
    "cascade_mask_rcnn_mvitv2_b_in21k_100ep": "vitdet_coco_mvitv2_b",
    "cascade_mask_rcnn_mvitv2_l_in21k_50ep": "vitdet_coco_mvitv2_l",
    "cascade_mask_rcnn_mvitv2_h_in21k_36ep": "vitdet_coco_mvitv2_h",
    "COCO/cascade_mask_rcnn_mvitv2_b_in21k_100ep": "vitdet_coco_mvitv2_b",
    "COCO/cascade_mask_rcnn_mvitv2_l_in21k_50ep": "vitdet_coco_mvitv2_l",
    "COCO/cascade_mask_rcnn_mvitv2_h_in21k_36ep": "vitdet_coco_mvitv2_h",
    "LVIS/cascade_mask_rcnn_mvitv2_b_in21k_100ep": "vitdet_lvis_mvitv2_b",
    "LVIS/cascade_mask_rcnn_mvitv2_l_in21k_50ep": "vitdet_lvis_mvitv2_l",
    "LVIS/cascade_mask_rcnn_mvitv2_h_in21k_50ep": "vitdet_lvis_mvitv2_h",
}
"""Two files of one name, one for COCO and one for LVIS: the bare name means COCO."""


def detector_name(name: str) -> str | None:
    """Our name of a detector, from ours or from detectron2's; ``None`` for names of other models."""
    return name if name in DETECTORS else ALIASES.get(name)
