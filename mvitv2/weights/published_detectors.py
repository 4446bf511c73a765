"""Published detectors as data; the form is that of ``published``."""

from collections.abc import Iterator

from mvitv2.preprocessing import DETECTION, DETECTION_1024
from mvitv2.tasks.detect.variants import ALIASES, detector_name
from mvitv2.weights.published import DETECT, FB, GITHUB, Release

CLASSES = {"coco": 80, "lvis": 1203}


def _detectron2() -> Iterator[Release]:
    """detectron2: Mask R-CNN and Cascade Mask R-CNN on COCO and LVIS."""
    m, v = "MViTv2", "ViTDet"
    rows: tuple[tuple[str, str, str, str, str, float, float], ...] = (
        (m, "t", "coco", "mask_rcnn_3x", "mask_rcnn_mvitv2_t_3x/f307611773/model_final_1a1c30", 48.3, 43.8),
        (m, "t", "coco", "cascade_3x", "CASCADE_t_3x/f308344828/model_final_c6967a", 52.2, 45.0),
        (m, "s", "coco", "cascade_3x", "CASCADE_s_3x/f308344647/model_final_279baf", 53.2, 46.0),
        (m, "b", "coco", "cascade_3x", "CASCADE_b_3x/f308109448/model_final_421a91", 54.1, 46.7),
        (m, "b", "coco", "cascade_in21k_3x", "CASCADE_b_in12k_3x/f309003202/model_final_be5168", 54.9, 47.4),
        (m, "l", "coco", "cascade_in21k_50ep", "CASCADE_l_in12k_lsj_50ep/f308099658/model_final_c41c5a", 55.8, 48.3),
        (m, "h", "coco", "cascade_in21k_3x", "CASCADE_h_in12k_lsj_3x/f309013744/model_final_30d36b", 56.1, 48.5),
        (
            v,
            "b",
            "coco",
            "vitdet_cascade_in21k_100ep",
            "COCO/CASCADE_b_in21k/f325820315/model_final_8c3da3",
            55.6,
            48.1,
        ),
        (v, "l", "coco", "vitdet_cascade_in21k_50ep", "COCO/CASCADE_l_in21k/f325607715/model_final_2141b0", 55.7, 48.3),
        (v, "h", "coco", "vitdet_cascade_in21k_36ep", "COCO/CASCADE_h_in21k/f326187358/model_final_2234d7", 55.9, 48.3),
        (v, "b", "lvis", "vitdet_cascade_in21k_100ep", "LVIS/CASCADE_b_in21k/329477206/model_final_a00567", 46.3, 42.0),
        (v, "l", "lvis", "vitdet_cascade_in21k_50ep", "LVIS/CASCADE_l_in21k/329661552/model_final_7838a5", 49.4, 44.2),
        (v, "h", "lvis", "vitdet_cascade_in21k_50ep", "LVIS/CASCADE_h_in21k/330445165/model_final_ad4220", 49.5, 44.1),
    )
    for project, size, data, method, path, box_ap, mask_ap in rows:
        yield Release(
            name=f"mvitv2_{size}_det.detectron2_{data}_{method}",
            variant=f"mvitv2_{size}_det",
            dialect="detectron2",
            task=DETECT,
            num_classes=CLASSES[data],
            # the MViTv2 project tests at 800 by 1333 even where it trains at 1024 (common/coco_loader_lsj.py)
            preprocessing=DETECTION_1024 if project == v else DETECTION,
            url=f"{FB}/detectron2/{project}/{path.replace('CASCADE', 'cascade_mask_rcnn_mvitv2')}.pkl",
            reported={"box_ap": box_ap, "mask_ap": mask_ap},
            source=f"{GITHUB}/facebookresearch/detectron2/blob/main/projects/{project}/README.md",
            license="Apache-2.0 (the repository); its MODEL_ZOO.md puts the models listed there under CC BY-SA 3.0",
        )


DETECTORS = tuple(_detectron2())
"""Whole detectors of detectron2; their backbones are a part of each."""


def _folder(entry: Release) -> str:
    """The folder of a release's file, which has the name of its configuration but for the epochs; data before it."""
    *_, data, folder, _run, _file = (entry.url or "").split("/")
    return f"{data}/{folder}".replace("in12k", "in21k")


BY_FOLDER = {_folder(entry): entry.name for entry in DETECTORS}


def detector_release(name: str) -> str | None:
    """The release that the name of a detector means, ours or detectron2's; ``None`` for names of other models.

    Of several files of one architecture ours means the first, that from ImageNet-1k.
    """
    detector = detector_name(name)
    if detector is None:
        return None
    theirs = name if name in ALIASES else next(alias for alias, ours in ALIASES.items() if ours == detector)
    config = theirs.rpartition("/")[2]
    data = {"vitdet_coco": "COCO", "vitdet_lvis": "LVIS"}.get(detector.rpartition("_mvitv2_")[0], "MViTv2")
    return BY_FOLDER[f"{data}/{config if data == 'MViTv2' else config.rpartition('_')[0]}"]
