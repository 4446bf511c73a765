"""What the scores of a classifier owe to its tokens: the start of a rollout, and Grad-CAM."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mvitv2.core.attention import MultiScaleAttention
from mvitv2.core.features import chosen_stages
from mvitv2.core.grid import Grid, num_prefix
from mvitv2.core.heads import READOUTS
from mvitv2.core.model import MViT, Tokens
from mvitv2.explain.rollout import block_attention, eval_mode, on_pixels, rollout

Target = int | Tensor | None
"""A class, a class for each image ``(B,)``, or ``None`` for those the model predicts."""


def attention_map(model: MViT, pixels: Tensor, target: Target = None) -> Tensor:
    """Attention rollout as a picture: ``(B, H, W)`` or ``(B, T, H, W)`` on the pixels, not negative.

    Windows of strided poolings overlap, so that some patches weigh more than others whatever the model does. The map
    is how many times more a patch weighs in :func:`~mvitv2.explain.rollout.rollout` than it would with attention that
    looks everywhere alike; 1 is no preference.

    Args:
        model: A classifier.
        pixels: Images or clips, any size.
        target: Which class.
    """
    records, start = block_attention(model, pixels), readout_weights(model, pixels, target)
    weights = rollout(records, start)
    alike = [replace(r, weights=torch.full_like(r.weights[:1], 1 / r.weights.shape[-1])) for r in records]
    usual = rollout(alike, even_weights(model, start[:1], records[-1].q_grid))
    return on_pixels(weights / usual.clamp_min(1e-12), tuple(pixels.shape[2:]))


def readout_weights(model: MViT, pixels: Tensor, target: Target = None) -> Tensor:
    """How much each token that left the last block weighs in a score, ``(B, L')``, sum 1.

    A class token weighs all. Where the classifier reads a mean, a token weighs what it adds to the score of the class
    over the mean score of all classes, if it adds and does not take away; where no token adds, all weigh the same.

    Args:
        model: A classifier.
        pixels: Images or clips.
        target: Which class.
    """
    found = read(model, pixels)
    value = found.tokens.detach()
    if model.config.readout == "class_token":
        return even_weights(model, value[..., 0], found.grid)
    added = (value * score_gradient(found.scores, found.tokens, target)).sum(dim=-1).clamp_min(0)
    total = added.sum(dim=1, keepdim=True)
    return torch.where(total > 0, added / total.clamp_min(1e-30), even_weights(model, added, found.grid))


def even_weights(model: MViT, tokens: Tensor, grid: Grid) -> Tensor:
    """The same weight for every token that the classifier reads, none for the others: ``(B, L)``, sum 1."""
    even, p = torch.ones_like(tokens), num_prefix(tokens[..., None], grid)
    if model.config.readout == "class_token":
        even[:, p:] = 0
    elif model.config.readout != "tokens":
        even[:, :p] = 0
    return even / even.sum(dim=1, keepdim=True)


def grad_cam(model: MViT, pixels: Tensor, target: Target = None, *, stage: int = -1) -> Tensor:
    """Grad-CAM of a stage's map (Selvaraju et al. 2017, arXiv 1610.02391): ``(B, *size of the pixels)``, not negative.

    Of the last stage it is the map as the classifier reads it, normed. A class token has read the grid before, so there
    it is what enters the last block, normed.

    Args:
        model: A classifier.
        pixels: Images or clips.
        target: Which class.
        stage: Whose map; the last if not given.

    Raises:
        ValueError: There is no such stage, or the scores do not depend on its map.
    """
    number = chosen_stages((stage,), model.config.num_stages)[0]
    found = read(model, pixels)
    value, grid = found.levels[number]
    if number == model.config.num_stages - 1:
        value, grid = found.entering if model.config.readout == "class_token" else (found.tokens, found.grid)
    gradient = score_gradient(found.scores, value, target)
    p = num_prefix(value, grid)
    channel = gradient[:, p:].mean(dim=1, keepdim=True)
    lattice = (value.detach()[:, p:] * channel).sum(dim=-1).clamp_min(0).unflatten(1, grid)
    return on_pixels(lattice, tuple(pixels.shape[2:]))


@dataclass(frozen=True)
class Reading:
    """A forward pass with gradients, and the tokens it went through."""

    scores: Tensor
    """``(B, num_classes)``."""
    tokens: Tensor
    """What the classifier reads, ``(B, L', C)``: normed, unless it norms their mean."""
    grid: Grid
    levels: list[Tokens]
    """Tokens that left each stage, not normed."""
    entering: Tokens
    """What entered the attention of the last block, normed."""


def read(model: MViT, pixels: Tensor) -> Reading:
    """A forward pass in eval mode, kept for gradients.

    Gradient times value means nothing *before* a norm: a norm does not care how long a token is, so that it is 0 there.

    Raises:
        ValueError: The model has no classifier.
    """
    readout = model.config.readout
    if model.config.num_classes == 0 or readout == "tokens":
        raise ValueError("the model has no classifier whose scores could be explained; load one with num_classes")
    entered: list[Tokens] = []
    last = [m for m in model.modules() if isinstance(m, MultiScaleAttention)][-1]
    hook = last.register_forward_pre_hook(lambda _, given: entered.append((given[0], given[1])))
    try:
        with torch.enable_grad(), eval_mode(model):
            levels = model.trunk(pixels.detach().requires_grad_())
            x, grid = levels[-1]
            means = readout == "mean_norm"
            tokens = x if means else model.norm(x)
            scores = model.head(READOUTS[readout](tokens, grid, model.norm if means else nn.Identity()))
    finally:
        hook.remove()
    return Reading(scores, tokens, grid, levels, entered[-1])


def score_gradient(scores: Tensor, tokens: Tensor, target: Target) -> Tensor:
    """The gradient to tokens of how far each image's class scores above the mean of all classes; shape of the tokens.

    Raises:
        ValueError: The scores do not depend on these tokens.
    """
    chosen = scores.argmax(dim=1) if target is None else torch.as_tensor(target, device=scores.device)
    above = scores.gather(1, chosen.expand(len(scores))[:, None]) - scores.mean(dim=1, keepdim=True)
    gradient = torch.autograd.grad(above.sum(), tokens, allow_unused=True)[0]
    if gradient is None:
        raise ValueError("the scores do not depend on the map of this stage: it is a copy with a norm of its own")
    return gradient
