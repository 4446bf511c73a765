"""AVA's measure: average precision of boxes with actions at an overlap of one half, and its mean over actions.

The rules are those of the official evaluation (``get_ava_performance.py``, the Pascal evaluator of TensorFlow's object
detection): within a keyframe and an action, detections by falling score are compared with the true box they overlap
most; it is found if the overlap is at least 0.5 and it was not found before. Precision is the largest at that recall or
any higher one. Actions without a true box do not count.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

OVERLAP = 0.5


@dataclass
class _Action:
    """What is known of one action: true boxes in all, and for every detection its score and whether it found one."""

    true: int = 0
    scores: list[float] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)


class BoxAP:
    """Counts keyframes one after another.

    Args:
        num_classes: Actions.
        overlap: From which a true box is found.
    """

    def __init__(self, num_classes: int, overlap: float = OVERLAP):
        self.actions = [_Action() for _ in range(num_classes)]
        self.overlap = overlap

    def add(
        self, boxes: np.ndarray, scores: np.ndarray, true_boxes: np.ndarray, true_actions: Sequence[Sequence[int]]
    ) -> None:
        """Count a keyframe.

        Args:
            boxes: ``(K, 4)`` left, top, right, bottom.
            scores: ``(K, actions)``.
            true_boxes: ``(G, 4)``.
            true_actions: Of every true box.
        """
        cover = overlaps(np.asarray(boxes, float).reshape(-1, 4), np.asarray(true_boxes, float).reshape(-1, 4))
        for number, action in enumerate(self.actions):
            mine = [row for row, actions in enumerate(true_actions) if number in actions]
            action.true += len(mine)
            action.scores += scores[:, number].tolist()
            action.found += found(cover[:, mine], scores[:, number], self.overlap)

    def add_lists(
        self,
        detections: Iterable[tuple[np.ndarray, int, float]],
        true: Iterable[tuple[np.ndarray, int]],
    ) -> None:
        """Count a keyframe given as single boxes: ``(box, action, score)`` and ``(box, action)``."""
        by_action: dict[int, tuple[list[Any], list[float]]] = {}
        for box, number, score in detections:
            boxes, scores = by_action.setdefault(number, ([], []))
            boxes.append(box)
            scores.append(score)
        wanted: dict[int, list[np.ndarray]] = {}
        for box, number in true:
            wanted.setdefault(number, []).append(box)
        for number in set(by_action) | set(wanted):
            boxes, scores = by_action.get(number, ([], []))
            action, mine = self.actions[number], wanted.get(number, [])
            action.true += len(mine)
            action.scores += scores
            cover = overlaps(np.array(boxes, float).reshape(-1, 4), np.array(mine, float).reshape(-1, 4))
            action.found += found(cover, np.array(scores), self.overlap)

    def average_precision(self, number: int) -> float | None:
        """Of one action; ``None`` without a true box."""
        action = self.actions[number]
        return average_precision(action.scores, action.found, action.true)

    def mean(self, counted: Iterable[int] | None = None) -> float:
        """Over actions that have a true box, of those that count.

        Raises:
            ValueError: None has.
        """
        numbers = range(len(self.actions)) if counted is None else counted
        each = [ap for number in numbers if (ap := self.average_precision(number)) is not None]
        if not each:
            raise ValueError("there is no true box of any action that counts")
        return sum(each) / len(each)

    def to_dict(self, names: Mapping[int, str]) -> dict[str, Any]:
        """Plain JSON values, a row per action that counts."""
        rows = [
            {"action": name, "true_boxes": self.actions[n].true, "average_precision": self.average_precision(n)}
            for n, name in sorted(names.items())
        ]
        return {"map": self.mean(names), "overlap": self.overlap, "actions": rows}


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every two boxes: ``(K, 4)`` and ``(G, 4)`` to ``(K, G)``."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def found(cover: np.ndarray, scores: np.ndarray, overlap: float) -> list[bool]:
    """Whether each detection ``(K, G)`` finds the true box it overlaps most, those of high score first."""
    result, taken = [False] * len(cover), set[int]()
    if cover.shape[1] == 0:
        return result
    for row in np.argsort(-scores, kind="stable"):
        best = int(cover[row].argmax())
        if cover[row, best] >= overlap and best not in taken:
            taken.add(best)
            result[row] = True
    return result


def average_precision(scores: Sequence[float], hits: Sequence[bool], true: int) -> float | None:
    """The area under precision, made to fall, over recall; ``None`` without a true box."""
    if true == 0:
        return None
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    right = np.asarray(hits, bool)[order].cumsum()
    recall = np.concatenate(([0.0], right / true, [1.0]))
    precision = np.concatenate(([0.0], right / np.arange(1, len(right) + 1), [0.0]))
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * falling[1:]).sum())
