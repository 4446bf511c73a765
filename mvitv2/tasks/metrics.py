"""How good a classifier is: exact counts that add up over batches of any size, and what follows from them."""

import math
from dataclasses import dataclass, field
from statistics import NormalDist

import torch
from torch import Tensor

from mvitv2.tasks.processes import Processes

BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017 (arXiv 1706.04599)."""
MOST_CLASSES = 4096
"""Above it no confusion matrix is kept: it would need hundreds of megabytes."""


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval in which the true rate lies with ``confidence`` (Wilson 1927); it also holds near 0 and 1.

    Args:
        correct: Successes.
        total: Trials; without any, nothing is known: ``(0, 1)``.
        confidence: Above 0 and below 1.

    Raises:
        ValueError: Numbers that no experiment gives.
    """
    if not 0 <= correct <= total or not 0 < confidence < 1:
        raise ValueError(f"correct={correct} must be within 0..total={total}, confidence={confidence} within 0..1")
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate, weight = correct / total, z * z / total
    centre = (rate + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(rate * (1 - rate) / total + weight / (4 * total))
    return max(centre - half, 0.0), min(centre + half, 1.0)


@dataclass
class Tally:
    """Running counts over batches. Two tallies of parts of the images add up to the tally of all.

    Args:
        num_classes: Columns of the scores.
    """

    num_classes: int
    top1: int = 0
    top5: int = 0
    loss: float = 0.0
    """Sum of ``-log p`` of the true class."""
    not_numbers: int = 0
    """Images with a score that is no number; they count as wrong."""
    seen: Tensor = field(init=False)
    """Images of each class, ``(C,)``."""
    right: Tensor = field(init=False)
    """Those of them that were recognised."""
    predicted: Tensor = field(init=False)
    """Images taken for each class."""
    confusion: Tensor | None = field(init=False)
    """``(C, C)``: true class by row, predicted class by column; ``None`` for more than ``MOST_CLASSES``."""
    bins: Tensor = field(init=False)
    """``(3, BINS)``: images, sum of confidences, images that were right, by confidence."""

    def __post_init__(self) -> None:
        """Start with nothing seen."""
        count = self.num_classes
        self.seen, self.right, self.predicted = (torch.zeros(count, dtype=torch.int64) for _ in range(3))
        self.confusion = torch.zeros(count, count, dtype=torch.int64) if count <= MOST_CLASSES else None
        self.bins = torch.zeros(3, BINS, dtype=torch.float64)

    @property
    def total(self) -> int:
        """Images counted."""
        return int(self.seen.sum())

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            scores: Probabilities ``(B, C)``.
            labels: True classes ``(B,)``.
        """
        scores, labels = scores.detach().double().cpu(), labels.cpu()
        sound = scores.isfinite().all(dim=1)
        confidence, guess = scores.max(dim=1)
        mine = scores.gather(1, labels[:, None])
        behind = (scores > mine).sum(dim=1)
        hit = (guess == labels) & sound
        self.top1 += int(hit.sum())
        self.top5 += int(((behind < 5) & sound).sum())
        self.not_numbers += int((~sound).sum())
        self.loss -= float(mine[sound, 0].clamp_min(1e-30).log().sum())
        self.seen += torch.bincount(labels, minlength=self.num_classes)
        self.right += torch.bincount(labels[hit], minlength=self.num_classes)
        self.predicted += torch.bincount(guess, minlength=self.num_classes)
        if self.confusion is not None:
            pairs = torch.bincount(labels * self.num_classes + guess, minlength=self.num_classes**2)
            self.confusion += pairs.view(self.num_classes, self.num_classes)
        self._calibrate(confidence[sound], hit[sound])

    def _calibrate(self, confidence: Tensor, hit: Tensor) -> None:
        place = (confidence * BINS).long().clamp(0, BINS - 1)
        for row, weight in enumerate((torch.ones_like(confidence), confidence, hit.double())):
            self.bins[row] += torch.bincount(place, weights=weight, minlength=BINS)

    def __add__(self, other: "Tally") -> "Tally":
        """The tally of the images of both."""
        if self.num_classes != other.num_classes:
            raise ValueError(f"tallies of {self.num_classes} and {other.num_classes} classes do not add up")
        both = Tally(self.num_classes)
        for name in ("top1", "top5", "loss", "not_numbers", "seen", "right", "predicted", "bins"):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        if self.confusion is not None and other.confusion is not None:
            both.confusion = self.confusion + other.confusion
        return both

    def merged(self, processes: Processes) -> "Tally":
        """The tally of the images of all processes."""
        if processes.count == 1:
            return self
        whole = Tally(self.num_classes)
        counts = torch.tensor([self.top1, self.top5, self.not_numbers])
        whole.top1, whole.top5, whole.not_numbers = processes.summed(counts).tolist()
        whole.loss = math.fsum(row[0] for row in processes.table([self.loss]))
        for name in ("seen", "right", "predicted", "bins"):
            setattr(whole, name, processes.summed(getattr(self, name)))
        if self.confusion is not None:
            whole.confusion = processes.summed(self.confusion)
        return whole

    def calibration_error(self) -> float:
        """Expected calibration error: how far confidence is from the rate of being right, averaged over images."""
        images, confidence, right = self.bins
        total = float(images.sum())
        return float((confidence - right).abs().sum() / total) if total else 0.0


@dataclass(frozen=True)
class ClassResult:
    """How one class is recognised."""

    name: str
    images: int
    correct: int
    predicted: int
    """Images taken for this class."""

    @property
    def recall(self) -> float | None:
        """Part of its images that were recognised; ``None`` without images."""
        return self.correct / self.images if self.images else None

    @property
    def precision(self) -> float | None:
        """Part of the images taken for it that are of it; ``None`` where none was."""
        return self.correct / self.predicted if self.predicted else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of the two; ``None`` without images."""
        return 2 * self.correct / (self.images + self.predicted) if self.images else None


def class_results(tally: Tally, names: list[str]) -> list[ClassResult]:
    """One result per class."""
    counts = zip(names, tally.seen.tolist(), tally.right.tolist(), tally.predicted.tolist(), strict=True)
    return [ClassResult(*numbers) for numbers in counts]
