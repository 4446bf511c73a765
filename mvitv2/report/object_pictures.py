"""Pictures for the page of a detector: what is there, and beside it what was found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from mvitv2.data.detection.dataset import DetectionImages
from mvitv2.data.detection.shapes import pixels
from mvitv2.data.drawing import Mark, drawn, label_text
from mvitv2.report.pictures import data_address
from mvitv2.tasks.detect_evaluation import DetectionEvaluation
from mvitv2.tasks.detect_judged import Judged, Judgement

SIDE = 400
"""Longest side of a picture on the page, pixels."""


@dataclass(frozen=True)
class Pair:
    """A picture with what is there, and with what was found."""

    truth: str
    """``data:`` address."""
    found: str
    """The same."""
    name: str
    judged: Judged


def pairs(dataset: DetectionImages, evaluation: DetectionEvaluation, judgement: Judgement, most: int) -> list[Pair]:
    """The worst pictures, then some of the best."""
    every = judgement.pictures
    wrong = [one for one in every if one.missed or one.false]
    right = [one for one in every if not (one.missed or one.false)]
    good = min(len(right), max(most - len(wrong), most // 3))
    chosen = [*wrong[: most - good], *right[:: max(len(right) // good, 1)][:good]] if good else wrong[:most]
    index_of = {int(row): index for index, row in enumerate(dataset.places)}
    return [_pair(dataset, index_of[one.row], one, evaluation.results, judgement.threshold) for one in chosen]


def _pair(
    dataset: DetectionImages, index: int, one: Judged, results: Sequence[Mapping[str, Any]], threshold: float
) -> Pair:
    image, truth = dataset.read(index), dataset.annotations
    number, place = int(truth.image_ids[one.row]), truth.objects(one.row)
    rows = range(place.start, place.stop)
    labels = [int(truth.labels[row]) for row in rows]
    size = (image.height, image.width)
    there = [
        _mark(truth.boxes[row], dataset.classes[label], label, truth.shape(row) if dataset.masks else None, size)
        for row, label in zip(rows, labels, strict=True)
    ]
    found = []
    for result in results:
        if result["image_id"] == number and result["score"] >= threshold:
            label = truth.category_ids.index(result["category_id"])
            words = label_text(dataset.classes[label], result["score"])
            found.append(_mark(result["bbox"], words, label, result.get("segmentation"), size))
    return Pair(_shown(image, there), _shown(image, found), dataset.path(index).name, one)


def _mark(box: Any, words: str, label: int, shape: Any, size: tuple[int, int]) -> Mark:
    """A box of left, top, width, height, in pixels of a picture of ``(H, W)``."""
    left, top, width, height = (float(side) for side in box)
    return Mark((left, top, left + width, top + height), words, label, pixels(shape, size) if shape else None)


def _shown(image: Image.Image, marks: Sequence[Mark]) -> str:
    """A picture with marks, as large as the page shows it, so that words can be read."""
    scale = SIDE / max(image.size)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    scaled = [
        Mark(
            (box[0] * scale, box[1] * scale, box[2] * scale, box[3] * scale),
            mark.text,
            mark.colour,
            None
            if mark.mask is None
            else np.asarray(Image.fromarray(mark.mask).resize(size, Image.Resampling.NEAREST)),
        )
        for mark in marks
        for box in [mark.box]
    ]
    return data_address(drawn(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), scaled))
