"""How good a detector is: COCO's and LVIS's average precision of boxes and masks, and its results as COCO's JSON.

The arithmetic is faster-coco-eval's (equal to pycocotools; the extra ``detect``). Every picture counts once, however
many processes looked at it (:func:`gathered`).
"""

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvitv2.data.detection.annotations import Annotations
from mvitv2.data.detection.shapes import compressed
from mvitv2.extras import required

KINDS: Mapping[str, str] = MappingProxyType({"box": "bbox", "mask": "segm"})
"""What is compared, by our name and by COCO's."""

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's twelve, in its order: precision over IoU 0.50:0.95, at 0.5 and 0.75, of small (below 32 x 32 pixels), medium
and large (above 96 x 96) objects; recall with 1, 10 and 100 detections a picture, and by size."""
LVIS_FIGURES = (*FIGURES[:6], "APr", "APc", "APf", "AR300", *FIGURES[9:])
"""LVIS's: of rare, common and frequent classes too, with 300 detections a picture."""
LVIS_DETECTIONS = 300


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one picture, best first, in pixels of the picture as it is stored."""

    image_id: int
    """As the annotations number it."""
    boxes: Tensor
    """``(N, 4)``: left, top, right, bottom."""
    scores: Tensor
    """``(N,)`` in 0..1."""
    labels: Tensor
    """``(N,)`` int64."""
    masks: tuple[Mapping[str, Any], ...] | None = None
    """``N`` compressed run lengths; ``None`` for boxes alone."""

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        counts = {self.boxes.shape[0], self.scores.shape[0], self.labels.shape[0]}
        counts |= set() if self.masks is None else {len(self.masks)}
        if len(counts) > 1 or self.boxes.shape[1:] != (4,):
            raise ValueError(
                f"boxes {tuple(self.boxes.shape)}, scores {tuple(self.scores.shape)}, labels "
                f"{tuple(self.labels.shape)} and masks do not belong together; expected (N, 4), (N,), (N,)"
            )


@dataclass(frozen=True)
class ClassPrecision:
    """How one class is found."""

    name: str
    objects: int
    """In the data, crowds left out."""
    precision: float | None
    """AP over IoU 0.50:0.95; ``None`` without objects."""
    precision50: float | None
    """AP at IoU 0.5."""


@dataclass(frozen=True)
class DetectionMeasure:
    """How good a detector is on a data set, of boxes or of masks."""

    kind: str
    """``"box"`` or ``"mask"``."""
    figures: dict[str, float | None]
    """:data:`FIGURES` by name, in 0..1; ``None`` where there is nothing to measure on, as no small objects."""
    per_class: list[ClassPrecision]
    images: int
    """That were measured on."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def rle_masks(masks: Tensor) -> tuple[dict[str, Any], ...]:
    """Masks ``(N, H, W)`` bool as compressed run lengths, a thousandth of the memory."""
    return tuple(compressed(mask) for mask in masks.cpu().numpy())


def gathered(parts: Iterable[Sequence[Detections]]) -> list[Detections]:
    """The detections of several processes as one list in the order of the pictures' ids, each picture once.

    Samplers give some pictures to two processes so that all have as many; the first answer counts.
    """
    found: dict[int, Detections] = {}
    for part in parts:
        for one in part:
            found.setdefault(one.image_id, one)
    return [found[image_id] for image_id in sorted(found)]


def coco_results(found: Iterable[Detections], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """COCO's result format: a record per detection, ``bbox`` left, top, width, height.

    Args:
        found: Per picture.
        category_ids: Of the classes, as the annotations number them.
    """
    results = []
    for one in found:
        boxes = one.boxes.double().cpu()
        extents = torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), dim=1).tolist()
        rows = zip(extents, one.scores.tolist(), one.labels.tolist(), strict=True)
        for place, (box, score, label) in enumerate(rows):
            record = {"image_id": one.image_id, "category_id": category_ids[label], "bbox": box, "score": score}
            results.append(record if one.masks is None else {**record, "segmentation": dict(one.masks[place])})
    return results


def ground_truth(annotations: Annotations) -> dict[str, Any]:
    """Annotations as COCO's JSON, in which every object has an id of its own.

    Objects whose mask is missing or means nothing have that of their box.
    """
    extra = annotations.extra
    sizes = annotations.sizes.tolist()
    images = []
    for number, (height, width) in zip(annotations.image_ids.tolist(), sizes, strict=True):
        known = {field: list(extra[field].get(number, ())) for field in extra if field.endswith("_category_ids")}
        images.append({"id": number, "height": height, "width": width, **known})
    objects = []
    for place, number in enumerate(annotations.image_ids.tolist()):
        rows = annotations.objects(place)
        for row in range(rows.start, rows.stop):
            x, y, width, height = annotations.boxes[row].tolist()
            box = [x, y, x + width, y, x + width, y + height, x, y + height]
            objects.append(
                {
                    "id": row + 1,
                    "image_id": number,
                    "category_id": annotations.category_ids[int(annotations.labels[row])],
                    "bbox": [x, y, width, height],
                    "area": float(annotations.areas[row]),
                    "iscrowd": int(annotations.crowd[row]),
                    "segmentation": annotations.shape(row) or [box],
                }
            )
    names = zip(annotations.category_ids, annotations.classes, strict=True)
    rarity = extra.get("frequency", {})
    categories = [
        {"id": number, "name": name, **({"frequency": rarity.get(name, "f")} if rarity else {})}
        for number, name in names
    ]
    return {"images": images, "annotations": objects, "categories": categories}


def measured(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    kind: str = "box",
    image_ids: Sequence[int] | None = None,
) -> DetectionMeasure:
    """Average precision and recall of results in COCO's format.

    LVIS's measure is taken where the pictures say which categories were looked for (``neg_category_ids``).

    Args:
        truth: COCO's JSON, as of :func:`ground_truth`.
        results: As of :func:`coco_results`, or the content of a result file.
        kind: ``"box"`` or ``"mask"``.
        image_ids: Pictures to measure on; ``None``: all of ``truth``.

    Raises:
        ValueError: There is no picture, results are of pictures that ``truth`` has not, or have no masks.
        mvitv2.extras.MissingExtra: The extra ``detect`` is missing.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} must be one of {list(KINDS)}")
    known = {image["id"] for image in truth["images"]}
    chosen = sorted(known if image_ids is None else set(image_ids))
    strangers = {result["image_id"] for result in results} - known
    if strangers or not chosen or not set(chosen) <= known:
        raise ValueError(f"results of {len(strangers)} unknown pictures, {len(chosen)} to measure on of {len(known)}")
    if kind == "mask" and any("segmentation" not in result for result in results):
        raise ValueError("results without masks (segmentation) cannot be measured by masks; measure boxes")
    lvis = any("neg_category_ids" in image for image in truth["images"])
    return _summary(_evaluated(truth, results, chosen, kind, lvis), truth, kind, lvis)


def _evaluated(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], image_ids: list[int], kind: str, lvis: bool
) -> Any:
    """faster-coco-eval's evaluator after its work."""
    library = required("faster_coco_eval", extra="detect")
    inside = set(image_ids)
    # COCO takes the area of the box where there is one, even of a mask: sizes of masks are those of masks
    unwanted = {"mask": "bbox", "box": "segmentation"}[kind]
    rows = [
        {k: v for k, v in row.items() if k != unwanted or (kind == "mask" and "segmentation" not in row)}
        for row in results
        if row["image_id"] in inside
    ]
    expected = library.COCO(copy.deepcopy(dict(truth)))
    found = expected.loadRes(_best(rows, LVIS_DETECTIONS) if lvis else rows)
    evaluator = library.COCOeval_faster(expected, found, KINDS[kind], lvis_style=lvis, print_function=_nothing)
    evaluator.params.imgIds = image_ids
    if lvis:
        evaluator.params.maxDets = [LVIS_DETECTIONS]
    evaluator.run()
    return evaluator


def _best(rows: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The best detections of every picture, over all classes."""
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_image[row["image_id"]].append(row)
    return [row for own in by_image.values() for row in sorted(own, key=lambda row: -row["score"])[:most]]


def _summary(evaluator: Any, truth: Mapping[str, Any], kind: str, lvis: bool) -> DetectionMeasure:
    """Figures by name, and of every class."""
    stats = [None if value < 0 else float(value) for value in evaluator.all_stats]
    figures: dict[str, float | None]
    if lvis:  # AP, sizes; AR in three places for one limit, sizes, two IoUs; rare, common, frequent
        figures = dict(zip(map(str, LVIS_FIGURES), [*stats[:6], *stats[14:17], stats[6], *stats[9:12]], strict=True))
    else:
        figures = dict(zip(map(str, FIGURES), stats[:12], strict=True))
    precision = np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1]  # IoU, recall, class
    order = list(evaluator.params.catIds)
    counts: dict[int, int] = defaultdict(int)
    wanted = set(evaluator.params.imgIds)
    for one in truth["annotations"]:
        counts[one["category_id"]] += int(not one.get("iscrowd") and one["image_id"] in wanted)
    per_class = []
    for category in truth["categories"]:
        own = precision[:, :, order.index(category["id"])]
        per_class.append(ClassPrecision(category["name"], counts[category["id"]], _mean(own), _mean(own[0])))
    return DetectionMeasure(kind, figures, per_class, len(evaluator.params.imgIds))


def _mean(values: np.ndarray) -> float | None:
    """Mean of what is known."""
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _nothing(*_: object) -> None:
    """Says nothing where the library would print."""
