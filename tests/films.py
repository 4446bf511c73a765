"""Small films that tests make themselves."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest


def write_film(path: Path, frames: np.ndarray, fps: int = 10) -> Path:
    """``(T, H, W, 3)`` uint8 as an .mp4 file."""
    av = pytest.importorskip("av", reason="films are written by PyAV: the extra video")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as film:
        stream = film.add_stream("mpeg4", rate=Fraction(fps))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode())
    return path


def moving_square(right: bool, frames: int = 16, size: tuple[int, int] = (32, 48), seed: int = 0) -> np.ndarray:
    """A bright square that moves to the right or to the left over noise."""
    chance = np.random.default_rng(seed)
    height, width = size
    film = chance.integers(0, 60, (1, height, width, 3)).repeat(frames, axis=0).astype(np.uint8)
    top = int(chance.integers(0, height - 10))
    for place in range(frames):
        left = round(place / (frames - 1) * (width - 10))
        left = left if right else width - 10 - left
        film[place, top : top + 10, left : left + 10] = (230, 200, 90)
    return film


def two_classes(folder: Path, splits: Sequence[tuple[str, int]] = (("train", 6), ("val", 3))) -> Path:
    """Class folders ``left`` and ``right`` of squares that move so."""
    for number, (split, count) in enumerate(splits):
        for right in (False, True):
            for item in range(count):
                name = folder / split / ("right" if right else "left") / f"{item}.mp4"
                write_film(name, moving_square(right, seed=100 * number + item))
    return folder
