"""Which pictures with boxes an epoch sees: rare classes more often, and pictures of one shape in one batch.

A pure function of seed and epoch, as :class:`mvitv2.train.order.Shuffle` asks, so a run can go on from any step.
"""

from dataclasses import dataclass, field

import numpy as np

from mvitv2.data.detection.dataset import DetectionImages
from mvitv2.data.samples import sample_seed

LVIS_THRESHOLD = 0.001
"""Classes in a smaller part of the pictures come more often when LVIS is trained on."""
_SHUFFLE = -2
"""Stands for a sample's index in the seed of an epoch's order."""


@dataclass(frozen=True, eq=False)
class DetectionOrder:
    """As many indices an epoch as there are pictures."""

    factors: np.ndarray | None = field(repr=False)
    """``(N,)``: how many times as often as others a picture comes, at least 1; ``None``: each once."""
    wide: np.ndarray | None = field(repr=False)
    """``(N,)`` bool: shape of the pictures; those of a batch have one. ``None``: they are mixed."""
    size: int
    """Pictures."""
    batch_size: int
    """Pictures of a batch."""

    def __call__(self, *, seed: int, epoch: int) -> list[int]:
        """The indices of an epoch; the last two batches may mix shapes, so that no picture is left out for its."""
        chance = np.random.default_rng(sample_seed(seed, epoch, _SHUFFLE))
        indices = np.arange(self.size)
        if self.factors is not None:
            whole = np.floor(self.factors).astype(np.int64)
            extra = chance.random(self.size) < self.factors - whole
            indices = np.repeat(indices, whole + extra)
        drawn = chance.permutation(indices)[: self.size]
        return drawn.tolist() if self.wide is None else self._by_shape(drawn)

    def _by_shape(self, drawn: np.ndarray) -> list[int]:
        """Batch by batch, as soon as one of a shape is full; what fills none comes last."""
        waiting: dict[bool, list[int]] = {True: [], False: []}
        found: list[int] = []
        wide = self.wide if self.wide is not None else np.zeros(self.size, bool)
        for index in drawn.tolist():
            own = waiting[bool(wide[index])]
            own.append(index)
            if len(own) == self.batch_size:
                found += own
                own.clear()
        return found + waiting[True] + waiting[False]


def detection_order(
    dataset: DetectionImages, *, batch_size: int, threshold: float | None = None, by_shape: bool = True
) -> DetectionOrder:
    """The order for a data set.

    Args:
        dataset: Of training.
        batch_size: Pictures of a batch.
        threshold: Classes in a smaller part of the pictures come more often (LVIS: 0.001); ``None``: none do.
        by_shape: Wide pictures with wide ones, tall with tall, so that less is padded.

    Raises:
        ValueError: The threshold is no part.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} must be a part of the pictures, above 0 and at most 1")
    sizes = dataset.annotations.sizes[dataset.places]
    return DetectionOrder(
        factors=None if threshold is None else repeat_factors(dataset, threshold),
        wide=sizes[:, 1] >= sizes[:, 0] if by_shape else None,
        size=len(dataset),
        batch_size=batch_size,
    )


def repeat_factors(dataset: DetectionImages, threshold: float) -> np.ndarray:
    """``(N,)``: the largest of ``max(1, sqrt(threshold / f))`` over a picture's classes (Gupta et al. 2019).

    ``f`` is the part of the pictures that have the class (arXiv 1908.03195, B.2).
    """
    pairs = classes_of_pictures(dataset)
    pictures = np.bincount(pairs[1], minlength=len(dataset.classes))
    rate = np.maximum(pictures, 1) / max(len(dataset), 1)
    by_class = np.maximum(1.0, np.sqrt(threshold / rate))
    factors = np.ones(len(dataset))
    np.maximum.at(factors, pairs[0], by_class[pairs[1]])
    return factors


def classes_of_pictures(dataset: DetectionImages) -> np.ndarray:
    """``(2, P)``: a picture and a class that is in it, each pair once; crowds do not count."""
    found = dataset.annotations
    owner = np.repeat(np.arange(len(found)), np.diff(found.starts))
    place_of = np.full(len(found), -1)
    place_of[dataset.places] = np.arange(len(dataset))
    inside = (place_of[owner] >= 0) & ~found.crowd
    return np.unique(np.stack((place_of[owner][inside], found.labels[inside])), axis=1)


def federated_weights(dataset: DetectionImages) -> np.ndarray:
    """``(classes,)`` float32: how likely each class is asked about where it is not, the root of its pictures' number.

    The federated loss of LVIS (detectron2 ``get_fed_loss_cls_weights`` with power 0.5; Zhou et al. 2021).
    """
    pictures = np.bincount(classes_of_pictures(dataset)[1], minlength=len(dataset.classes))
    return np.sqrt(pictures).astype(np.float32)
