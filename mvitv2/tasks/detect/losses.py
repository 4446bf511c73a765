"""Losses of scores and boxes, in float32 or better, as the released models were trained with.

Their divisors are part of the recipe: boxes are summed over objects but divided by *all* sampled rows, and the RPN's
two losses by the number of anchors that should have been sampled.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mvitv2.tasks.detect.boxes import encoded, precise


def exclusive_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, the mean over rows.

    Args:
        logits: ``(N, classes + 1)``, background last.
        labels: ``(N,)``, ``classes`` for background.
    """
    if not labels.numel():
        return logits.sum() * 0.0
    return F.cross_entropy(precise(logits), labels)


def separate_loss(logits: Tensor, labels: Tensor, asked: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of every class but background, summed, over the number of rows.

    Args:
        logits: ``(N, classes + 1)``; the last column is not used.
        labels: ``(N,)``, ``classes`` for background.
        asked: bool ``(classes,)``, the classes that count; all if not given.
    """
    if not labels.numel():
        return logits.sum() * 0.0
    logits = precise(logits)
    truth = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    each = F.binary_cross_entropy_with_logits(logits[:, :-1], truth[:, :-1], reduction="none")
    return (each if asked is None else each * asked).sum() / logits.shape[0]


def federated(labels: Tensor, weights: Tensor, count: int) -> Tensor:
    """Classes that a batch of a federated data set is asked for, bool ``(classes,)`` (LVIS; Zhou et al. 2021).

    Images of LVIS are labelled for some classes only; a class that nobody looked for is no evidence of its absence.

    Args:
        labels: Classes of the batch, ``classes`` for background, which is drawn as one of them.
        weights: ``(classes,)`` probabilities of the others, up to a factor.
        count: How many to ask for, if the batch has not more.
    """
    here = labels.unique()
    chances = torch.cat((weights.float(), weights.new_zeros(1, dtype=torch.float32)))
    chances[here] = 0
    missing = min(count - here.numel(), int((chances > 0).sum()))
    drawn = [torch.multinomial(chances, missing, replacement=False)] if missing > 0 else []
    asked = torch.zeros(chances.shape[0], dtype=torch.bool, device=labels.device)
    asked[torch.cat((here, *drawn))] = True
    return asked[:-1]


def steps_loss(predicted: Tensor, boxes: Tensor, targets: Tensor, weights: tuple[float, ...]) -> Tensor:
    """L1 between what was regressed and what would arrive at the targets, summed.

    Args:
        predicted: ``(N, 4)``.
        boxes: ``(N, 4)`` that it starts from.
        targets: ``(N, 4)``.
        weights: See :func:`~mvitv2.tasks.detect.boxes.encoded`.
    """
    return (precise(predicted) - encoded(boxes, targets, weights)).abs().sum()
