"""scikit-learn's handwritten digits as a data set: real data that is there without a download, for first steps."""

import functools
import io
import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mvitv2.data.labelled import LabelledImages, Transform

SPLITS = ("train", "val", "test")
PARTS = (0.7, 0.15, 0.15)
"""How much of each class goes to each split."""
SIDE = 32
"""Pixels that the 8 x 8 digits are drawn at."""


class Digits(LabelledImages):
    """1797 digits, 8 x 8 with 17 shades, drawn at 32 x 32 in RGB.

    The splits are fixed by ``seed`` alone, hold every class in one proportion, and share no sample.

    Attributes:
        classes: ``"0"`` to ``"9"``.
        class_names: The same.
        labels: ``(N,)`` int64.
        indices: ``(N,)`` which of the 1797 these are.
    """

    def __init__(self, split: str, transform: Transform | None = None, *, seed: int = 0) -> None:
        """Load one split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
            transform: A picture to a tensor; without one, items hold the RGB picture itself.
            seed: Which way the digits are dealt out.

        Raises:
            ImportError: scikit-learn is missing; the message names the extra.
            ValueError: There is no such split.
        """
        if split not in SPLITS:
            raise ValueError(f"split={split!r} must be one of {list(SPLITS)}")
        super().__init__(transform)
        shades, labels = _all_digits()
        self.split = split
        self.name_classes([str(digit) for digit in range(10)], None)
        self.indices = np.asarray(stratified(labels.tolist(), PARTS, seed=seed)[SPLITS.index(split)], dtype=np.int64)
        self.labels = labels[self.indices]
        self._shades = shades[self.indices]

    def __str__(self) -> str:
        return f"the built-in digits ({self.split})"

    def path(self, index: int) -> Path:
        """A name that tells which of the 1797 it is."""
        return Path("digits") / self.split / f"{self.indices[index]}.png"

    def source(self, index: int) -> bytes:
        """The digit as a PNG file."""
        stream = io.BytesIO()
        self.read(index).save(stream, "PNG")
        return stream.getvalue()

    def stamp(self, index: int) -> str:
        """Which of the 1797 it is."""
        return f"digits\0{self.indices[index]}"

    def read(self, index: int) -> Image.Image:
        """One digit, bright on black, RGB."""
        small = Image.fromarray(np.rint(self._shades[index] * (255 / 16)).astype(np.uint8))
        return small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")


def stratified(labels: Sequence[int], parts: Sequence[float], *, seed: int) -> list[list[int]]:
    """Indices of ``labels`` dealt out so that every class is in every part in the proportion of ``parts``.

    The same for one seed on every machine: Python promises the sequence of ``random.Random.random``.
    """
    chance = random.Random(seed)
    dealt: list[list[int]] = [[] for _ in parts]
    for label in sorted(set(labels)):
        members = [index for index, other in enumerate(labels) if other == label]
        members.sort(key=lambda _: chance.random())
        ends = [round(len(members) * part) for part in np.cumsum([0, *parts]) / sum(parts)]
        for part, (start, stop) in zip(dealt, itertools.pairwise(ends), strict=True):
            part.extend(members[start:stop])
    return [sorted(part) for part in dealt]


@functools.cache
def _all_digits() -> tuple[np.ndarray, np.ndarray]:
    """``(1797, 8, 8)`` shades 0..16 and their ``(1797,)`` labels.

    Raises:
        ImportError: scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            f"the handwritten digits come with scikit-learn, which is missing ({error}): pip install 'mvitv2[train]'"
        ) from error
    shades, labels = load_digits(return_X_y=True)
    return shades.reshape(-1, 8, 8), np.asarray(labels, np.int64)
