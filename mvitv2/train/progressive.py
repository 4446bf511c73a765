"""Small pictures first, large ones later (Tan and Le, arXiv 2104.00298): which size and which passes each epoch has."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mvitv2.train.recipe import Recipe


@dataclass(frozen=True)
class Phase:
    """Epochs of one size, counted from 0; ``last`` is the first one of the next phase."""

    first: int
    last: int
    img_size: int
    batch_size: int
    """Images in one forward pass of one process."""
    accumulation: int


def phases(recipe: Recipe) -> list[Phase]:
    """The phases of a run, in order; one where the size never changes."""
    sizes = {1: recipe.img_size, **sizes_by_epoch(recipe.progressive)}
    starts = [epoch - 1 for epoch in sorted(sizes) if epoch <= recipe.epochs]
    return [
        Phase(first, last, sizes[first + 1], *passes(recipe, sizes[first + 1]))
        for first, last in pairwise([*starts, recipe.epochs])
    ]


def sizes_by_epoch(progressive: Mapping[str, Any]) -> dict[int, int]:
    """``{"1": 128, "20": 224}`` as numbers, epochs counted from 1 as people see them."""
    return {int(epoch): int(size) for epoch, size in progressive.items()}


def passes(recipe: Recipe, img_size: int) -> tuple[int, int]:
    """``(batch_size, accumulation)`` at a size: the global batch stays, only its parts may be larger.

    With ``progressive_batch`` a forward pass takes as many more images as smaller ones leave room for: by pixels, and
    by whole parts of the accumulation.
    """
    room = (recipe.img_size / img_size) ** 2 if recipe.progressive_batch else 1.0
    more = max(k for k in range(1, recipe.accumulation + 1) if recipe.accumulation % k == 0 and k <= max(room, 1.0))
    return recipe.batch_size * more, recipe.accumulation // more
