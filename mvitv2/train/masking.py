"""Which patches are hidden: cubes at random until a share of all is covered (SlowFast ``MaskingGenerator3D``)."""

import math
from random import Random

import numpy as np

from mvitv2.core.grid import Grid

ATTEMPTS = 100
"""Cubes that are tried before what is covered is taken for enough."""
LEAST = 5
"""The smallest cube covers one part in so many of a frame."""
FLATTEST = 0.3
"""Least height by width of a cube; the most is its inverse."""


def cube_mask(window: Grid, ratio: float, random: Random) -> np.ndarray:
    """Cells that are hidden, as a bool array of shape ``window``.

    Args:
        window: ``(T, H, W)``, or ``(H, W)`` for images; ``(8, 7, 7)`` in the published recipes.
        ratio: Part of the cells to hide, 0 to 1; no more are hidden, seldom a few less.
        random: Where chance comes from.
    """
    deep = (1,) * (3 - len(window)) + tuple(window)
    mask = np.zeros(deep, dtype=bool)
    wanted = round(math.prod(deep) * ratio)
    while (left := wanted - int(mask.sum())) > 0:
        if not _hide_one(mask, left, random):
            break
    return mask.reshape(window)


def _hide_one(mask: np.ndarray, most: int, random: Random) -> bool:
    """Hide one more cube that adds 1 to ``most`` cells; ``False`` if none was found."""
    depth, height, width = mask.shape
    area = height * width
    for _ in range(ATTEMPTS):
        size = random.uniform(area // LEAST, area)
        aspect = math.exp(random.uniform(math.log(FLATTEST), -math.log(FLATTEST)))
        h, w = round(math.sqrt(size * aspect)), round(math.sqrt(size / aspect))
        t = random.randint(1, depth)
        if not (0 < h < height and 0 < w < width):
            continue
        top, left, front = random.randint(0, height - h), random.randint(0, width - w), random.randint(0, depth - t)
        cube = mask[front : front + t, top : top + h, left : left + w]
        if 0 < cube.size - int(cube.sum()) <= most:
            cube[...] = True
            return True
    return False
