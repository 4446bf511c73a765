"""Which object a box stands for in training, and which boxes are asked at all."""

from collections.abc import Callable

import torch
from torch import Tensor

from mvitv2.tasks.detect.boxes import overlaps

IGNORED, NEGATIVE, POSITIVE = -1, 0, 1
Order = Callable[[int, torch.device], Tensor]
"""An order of ``n`` candidates, as a permutation of their numbers, on a device."""


def random_order(count: int, device: torch.device) -> Tensor:
    """The order that training uses, from torch's generator of that device."""
    return torch.randperm(count, device=device)


def given_order(count: int, device: torch.device) -> Tensor:
    """The order that candidates have; for comparing implementations."""
    return torch.arange(count, device=device)


def matched(
    objects: Tensor, boxes: Tensor, *, negative: float, positive: float, best_too: bool = False
) -> tuple[Tensor, Tensor]:
    """The object that every box overlaps most, and whether that is enough.

    Args:
        objects: ``(M, 4)``; there may be none.
        boxes: ``(N, 4)``.
        negative: Boxes that overlap less are background.
        positive: Boxes that overlap at least so much stand for their object; in between they are ignored.
        best_too: Boxes that overlap some object as much as any box does, ties included, stand for *their* object, which
            may be another (detectron2 ``matcher.py``, low-quality matches).

    Returns:
        Number of an object, 0 where there is none, and one of ``NEGATIVE``, ``IGNORED``, ``POSITIVE``; int64 ``(N,)``.
    """
    if objects.shape[0] == 0:
        none = torch.zeros(boxes.shape[0], dtype=torch.int64, device=boxes.device)
        return none, none.clone()
    iou = overlaps(objects, boxes)
    best, index = iou.max(dim=0)
    labels = torch.where(best < negative, NEGATIVE, torch.where(best < positive, IGNORED, POSITIVE))
    if best_too:
        reached = (iou == iou.max(dim=1, keepdim=True).values).any(dim=0)
        labels = torch.where(reached, POSITIVE, labels)
    return index, labels


def sampled(
    positive: Tensor, negative: Tensor, *, count: int, fraction: float, order: Order = random_order
) -> tuple[Tensor, Tensor]:
    """Indices of the positive and of the negative boxes that losses are computed for.

    Args:
        positive: bool ``(N,)``.
        negative: bool ``(N,)``.
        count: How many to take, if there are so many.
        fraction: Largest share of positive ones among ``count``.
        order: Which ones come first.
    """
    candidates = positive.nonzero().flatten(), negative.nonzero().flatten()
    num_positive = min(candidates[0].shape[0], int(count * fraction))
    numbers = num_positive, min(candidates[1].shape[0], count - num_positive)
    chosen = [c[order(c.shape[0], c.device)[:n]] for c, n in zip(candidates, numbers, strict=True)]
    return chosen[0], chosen[1]
