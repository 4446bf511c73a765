"""Picture by picture: which objects a detector finds, which it misses, and what it makes up.

COCO's figures say how good a detector is; this says where to look. A detection is right that overlaps an object of its
class by at least a half, each object once, the best detections first, as COCO matches at IoU 0.5.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mvitv2.data.detection.annotations import Annotations
from mvitv2.tasks.detect.boxes import overlaps

IOU = 0.5
"""Overlap from which a detection stands for an object."""


@dataclass(frozen=True)
class Judged:
    """What a detector makes of one picture, of the detections that score enough."""

    row: int
    """Of the annotations."""
    found: int
    """Objects."""
    missed: int
    """Objects."""
    false: int
    """Detections that stand for no object, or for one that a better one stands for."""

    @property
    def f1(self) -> float:
        """0 to 1; 1 where there is nothing, and nothing is found."""
        errors = self.missed + self.false
        return 2 * self.found / (2 * self.found + errors) if self.found or errors else 1.0


@dataclass(frozen=True)
class Judgement:
    """All pictures, and the score from which detections count."""

    threshold: float
    """Where F1 over all pictures is highest: what counts here, and is drawn."""
    pictures: list[Judged]
    """Worst first: by F1, then by the number of errors."""


def judged(truth: Annotations, results: Sequence[Mapping[str, Any]], image_ids: Sequence[int]) -> Judgement:
    """Judge a detector picture by picture; crowds are no objects, and what lies in them is no error.

    Args:
        truth: Of the data set.
        results: What was found, in COCO's format.
        image_ids: Pictures that were looked at.
    """
    by_image: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for result in results:
        by_image[result["image_id"]].append(result)
    wanted, rows = set(image_ids), {}
    for row, number in enumerate(truth.image_ids.tolist()):
        if number in wanted:
            rows[row] = _matched(truth, row, by_image[number])
    objects = sum(count for _, count in rows.values())
    threshold = best_threshold([pair for matches, _ in rows.values() for pair in matches], objects)
    pictures = []
    for row, (matches, count) in rows.items():
        kept = [right for score, right in matches if score >= threshold]
        pictures.append(Judged(row, sum(kept), count - sum(kept), len(kept) - sum(kept)))
    return Judgement(threshold, sorted(pictures, key=lambda one: (one.f1, -one.missed - one.false, one.row)))


def best_threshold(matches: Sequence[tuple[float, bool]], objects: int) -> float:
    """The score from which detections are taken so that F1 is highest.

    Where none is right, that from which there are as many as objects; 1 where there are none.
    """
    ranked = sorted(matches, key=lambda pair: -pair[0])
    scores, right = np.array([score for score, _ in ranked]), np.cumsum([good for _, good in ranked])
    if not len(right) or not right[-1]:
        return float(scores[min(objects, len(scores)) - 1]) if len(scores) and objects else 1.0
    f1 = 2 * right / (np.arange(1, len(right) + 1) + objects)
    last = np.append(scores[1:] < scores[:-1], True)  # equal scores are taken together
    return float(scores[np.where(last, f1, -1.0).argmax()])


def _matched(
    truth: Annotations, row: int, results: Sequence[Mapping[str, Any]]
) -> tuple[list[tuple[float, bool]], int]:
    """Score and whether it is right, of every detection that counts; and how many objects there are."""
    place = truth.objects(row)
    boxes, crowd = corners(truth.boxes[place]), truth.crowd[place]
    labels = [truth.category_ids[label] for label in truth.labels[place].tolist()]
    taken, matches = crowd.copy(), []
    ranked = sorted(results, key=lambda result: -result["score"])
    shares = overlaps(corners([r["bbox"] for r in ranked]), boxes).numpy() if ranked and len(boxes) else None
    for number, result in enumerate(ranked):
        free = [i for i, label in enumerate(labels) if label == result["category_id"] and not taken[i]]
        best = max(free, key=lambda i: shares[number, i], default=None) if shares is not None else None
        right = best is not None and shares is not None and shares[number, best] >= IOU
        if right:
            taken[best] = True
        if right or not _in_crowd(result, boxes[torch.from_numpy(crowd)]):
            matches.append((float(result["score"]), bool(right)))
    return matches, int((~crowd).sum())


def corners(boxes: Any) -> torch.Tensor:
    """``(N, 4)`` left, top, width, height as left, top, right, bottom."""
    given = torch.as_tensor(np.asarray(boxes, np.float64).reshape(-1, 4))
    return torch.cat((given[:, :2], given[:, :2] + given[:, 2:]), dim=1)


def _in_crowd(result: Mapping[str, Any], crowds: torch.Tensor) -> bool:
    """Whether a half of a detection lies in the box of a crowd, of any class."""
    if not len(crowds):
        return False
    box = corners(result["bbox"])[0]
    low, high = torch.maximum(box[:2], crowds[:, :2]), torch.minimum(box[2:], crowds[:, 2:])
    inside = (high - low).clamp(min=0).prod(dim=1)
    return bool(inside.max() >= IOU * (box[2:] - box[:2]).prod())
