"""What the scores of a classifier owe to its tokens: the start of a rollout, and Grad-CAM."""

from dataclasses import replace

import torch
from torch import Tensor

from mvitv2.core.features import chosen_stages
from mvitv2.core.grid import Grid, num_prefix
from mvitv2.core.heads import READOUTS
from mvitv2.core.model import MViT
from mvitv2.explain.rollout import block_attention, eval_mode, on_pixels, rollout


def attention_map(model: MViT, pixels: Tensor, target: int | Tensor | None = None) -> Tensor:
    """Attention rollout as a picture: ``(B, H, W)`` or ``(B, T, H, W)`` on the pixels, not negative.

    Windows of strided poolings overlap, so that some patches weigh more than others whatever the model does. The map
    is how many times more a patch weighs in :func:`~mvitv2.explain.rollout.rollout` than it would with attention that
    looks everywhere alike; 1 is no preference.

    Args:
        model: A classifier.
        pixels: Images or clips, any size.
        target: Class, or classes ``(B,)``; ``None`` for those the model predicts.
    """
    records, start = block_attention(model, pixels), readout_weights(model, pixels, target)
    weights = rollout(records, start)
    alike = [replace(r, weights=torch.full_like(r.weights[:1], 1 / r.weights.shape[-1])) for r in records]
    usual = rollout(alike, even_weights(model, start[:1], records[-1].q_grid))
    return on_pixels(weights / usual.clamp_min(1e-12), tuple(pixels.shape[2:]))


def even_weights(model: MViT, tokens: Tensor, grid: Grid) -> Tensor:
    """The same weight for every token that the classifier reads, none for the others: ``(B, L)``, sum 1."""
    even, p = torch.ones_like(tokens), num_prefix(tokens[..., None], grid)
    if model.config.readout == "class_token":
        even[:, p:] = 0
    elif model.config.readout != "tokens":
        even[:, :p] = 0
    return even / even.sum(dim=1, keepdim=True)


def readout_weights(model: MViT, pixels: Tensor, target: int | Tensor | None = None) -> Tensor:
    """How much each token that left the last block weighs in the scores, ``(B, L')``, sum 1.

    Args:
        model: A classifier.
        pixels: Images or clips.
        target: Class, or classes ``(B,)``; ``None`` for those the model predicts. A token weighs what it adds to that
            score (gradient times value), if it adds and does not take away; where none adds, all weigh the same.
    """
    value, gradient, grid = score_gradient(model, pixels, target, stage=-1)
    added = (value * gradient).sum(dim=-1).clamp_min(0)
    total = added.sum(dim=1, keepdim=True)
    return torch.where(total > 0, added / total.clamp_min(1e-30), even_weights(model, added, grid))


def grad_cam(model: MViT, pixels: Tensor, target: int | Tensor | None = None, *, stage: int = -1) -> Tensor:
    """Grad-CAM of a stage's map (Selvaraju et al. 2017, arXiv 1610.02391): ``(B, *size of the pixels)``, not negative.

    Args:
        model: A classifier.
        pixels: Images or clips.
        target: Class, or classes ``(B,)``; ``None`` for those the model predicts.
        stage: Whose map; the last if not given.

    Raises:
        ValueError: There is no such stage, or the scores do not depend on its map.
    """
    value, gradient, grid = score_gradient(model, pixels, target, stage=stage)
    p = num_prefix(value, grid)
    channel = gradient[:, p:].mean(dim=1, keepdim=True)
    lattice = (value[:, p:] * channel).sum(dim=-1).clamp_min(0).unflatten(1, grid)
    return on_pixels(lattice, tuple(pixels.shape[2:]))


def score_gradient(
    model: MViT, pixels: Tensor, target: int | Tensor | None, *, stage: int
) -> tuple[Tensor, Tensor, Grid]:
    """Tokens ``(B, L, C)`` of a stage, the gradient of the targets' scores to them, and their grid."""
    if model.config.num_classes == 0 or model.config.readout == "tokens":
        raise ValueError("the model has no classifier whose scores could be explained; load one with num_classes")
    number = chosen_stages((stage,), model.config.num_stages)[0]
    with torch.enable_grad(), eval_mode(model):
        levels = model.trunk(pixels.detach().requires_grad_())
        scores = model.head(READOUTS[model.config.readout](*levels[-1], model.norm))
        chosen = (
            scores.argmax(dim=1)
            if target is None
            else torch.as_tensor(target, device=scores.device).expand(len(scores))
        )
        x, grid = levels[number]
        gradient = torch.autograd.grad(scores.gather(1, chosen[:, None]).sum(), x, allow_unused=True)[0]
    if gradient is None:
        raise ValueError(f"the scores do not depend on the map of stage {number}: it is a copy with a norm of its own")
    return x.detach(), gradient, grid
