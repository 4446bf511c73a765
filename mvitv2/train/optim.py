"""Which parameters decay, at what part of the rate each depth learns, and the optimiser over those groups."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mvitv2.core.model import MViT
from mvitv2.tasks.detect.detector import Detector
from mvitv2.train.parallel import whole
from mvitv2.train.recipe import Recipe

FUSED = ("cpu", "cuda", "mps", "xpu")
"""Devices for which torch has fused optimisers."""
WITH_THE_ONE_BEFORE = 99999
"""In ``group_matcher``: belongs to the group before it, as in timm (``models/_manipulate.py``, MATCH_PREV_GROUP)."""


@dataclass(frozen=True)
class Group:
    """Parameters that share weight decay and part of the learning rate."""

    names: tuple[str, ...]
    depth: int
    lr_scale: float
    weight_decay: float


def parameter_groups(model: MViT | Detector, *, weight_decay: float, layer_decay: float = 1.0) -> list[Group]:
    """Every parameter that is trained, in exactly one group.

    Parameters of one axis, position tables and the class token do not decay. With layer decay, the classifier learns at
    the full rate, each block below at ``layer_decay`` of the one above, its position tables with it, the stem last.

    Raises:
        ValueError: Layer decay is asked for, and the depth of some blocks' parameters is unknown.
    """
    parameters, decaying = dict(model.named_parameters()), decaying_in(model)
    # of all of them, so that a block's rate does not depend on what else is frozen
    depth = depths(list(parameters), model.group_matcher()) if layer_decay < 1 else dict.fromkeys(parameters, 0)
    deepest = max(depth.values(), default=0)
    groups: dict[tuple[int, bool], list[str]] = {}
    for name, parameter in parameters.items():
        if not parameter.requires_grad:
            continue
        groups.setdefault((depth[name], name in decaying), []).append(name)
    return [
        Group(tuple(names), d, layer_decay ** (deepest - d), weight_decay if decays else 0.0)
        for (d, decays), names in groups.items()
    ]


def decaying_in(model: MViT | Detector) -> set[str]:
    """Names of the parameters that decay: of a detector by detectron2's rule, in which biases do."""
    if isinstance(model, Detector):
        from mvitv2.train.detection_schedule import detection_groups

        return {name for group in detection_groups(model) if group.weight_decay for name in group.names}
    still = model.no_weight_decay()
    return {name for name, parameter in model.named_parameters() if parameter.ndim > 1 and name not in still}


def depths(names: list[str], matcher: Mapping[str, Any]) -> dict[str, int]:
    """The depth of every parameter, 0 for the stem, by a ``group_matcher``; what matches nothing is the head, on top.

    Raises:
        ValueError: No name matches the blocks.
    """
    blocks: list[tuple[str, Any]] = matcher["blocks"]
    ordinals: dict[str, float] = {}
    for name in names:
        if re.match(matcher["stem"], name):
            ordinals[name] = -1.0
            continue
        found = next(((m, place) for pattern, place in blocks if (m := re.match(pattern, name))), None)
        if found is not None:
            match, place = found
            ordinals[name] = float(place[0]) if place is not None else float(match.group(1))
    inside = sorted({o for o in ordinals.values() if o not in (-1.0, float(WITH_THE_ONE_BEFORE))})
    if not inside:
        raise ValueError(f"no parameter matches the blocks of group_matcher() {blocks}; use layer_decay=1")
    rank = {-1.0: 0, **{o: i + 1 for i, o in enumerate(inside)}, float(WITH_THE_ONE_BEFORE): len(inside)}
    return {name: rank[ordinals[name]] if name in ordinals else len(inside) + 1 for name in names}


def optimizer_of(model: MViT | Detector, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of a recipe; its groups carry ``lr_scale``, which :func:`set_rate` multiplies the rate by."""
    parameters = dict(model.named_parameters())
    groups = [
        {
            "params": [parameters[name] for name in group.names],
            "lr_scale": group.lr_scale,
            "weight_decay": group.weight_decay,
        }
        for group in parameter_groups(model, weight_decay=recipe.weight_decay, layer_decay=recipe.layer_decay)
    ]
    fused = next(model.parameters()).device.type in FUSED
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=fused)
    return torch.optim.AdamW(groups, lr=0.0, betas=recipe.betas, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its part of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def clip(model: nn.Module, recipe: Recipe) -> torch.Tensor:
    """Clip the gradients as the recipe says; gives their norm before that."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    if recipe.clip_norm is not None:
        return whole(nn.utils.clip_grad_norm_(parameters, recipe.clip_norm))
    norm = whole(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    if recipe.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, recipe.clip_value)
    return norm
