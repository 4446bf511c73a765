"""Parts of a model that are not trained: they get no gradient, no optimiser state, and no stochastic depth."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from mvitv2.core.model import MViT
from mvitv2.train.optim import depths

STEM, BACKBONE = "stem", "backbone"


def freeze(model: MViT, parts: Sequence[str]) -> None:
    """Mark parts of a model as not trained.

    Args:
        model: Changed in place.
        parts: ``"stem"``, a number (the stem and so many blocks), ``"backbone"`` (all but the head), or a pattern of
            parameter names with ``*`` and ``?``.

    Raises:
        ValueError: A part matches nothing, or nothing would be left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    frozen = {name for part in parts for name in members(model, names, part)}
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"freeze={tuple(parts)} leaves nothing to train")


def members(model: MViT, names: Sequence[str], part: str) -> list[str]:
    """The parameters that belong to a part.

    Raises:
        ValueError: There are none; what the part may be is told.
    """
    depth = depths(list(names), model.group_matcher())
    top = max(depth.values())
    if part == BACKBONE:
        found = [name for name in names if depth[name] < top]
    elif part == STEM or part.isdecimal():
        deepest = 0 if part == STEM else int(part)
        if deepest >= top:
            raise ValueError(f"freeze={part!r}: the model has {top - 1} blocks; all of it but the head is 'backbone'")
        found = [name for name in names if depth[name] <= deepest]
    else:
        found = [name for name in names if fnmatchcase(name, part)]
    if not found:
        raise ValueError(
            f"freeze={part!r} matches no parameter; expected 'stem', a number of blocks, 'backbone', or a pattern of "
            f"names such as {names[len(names) // 2]!r}, with * for any letters"
        )
    return found


def train_mode(model: nn.Module) -> None:
    """Training mode, but for modules of which no parameter is trained: there nothing is dropped."""
    model.train()
    if not all(parameter.requires_grad for parameter in model.parameters()):
        _still(model)


def _still(module: nn.Module) -> None:
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    for child in module.children():
        _still(child)


def trained_of(model: nn.Module) -> tuple[int, int]:
    """Numbers that are trained, and numbers in all."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
