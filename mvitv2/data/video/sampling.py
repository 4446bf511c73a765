"""Which frames make a clip: SlowFast's rules, number for number, as pure functions of lengths and rates.

A rule is a frozen record; :meth:`Sampling.random` draws from the generators of ``random``, :meth:`Sampling.views` gives
the same every time. Frames are numbers from 0; where a clip is shorter than what is asked, its last frame is repeated.
"""

import math
import random
from dataclasses import dataclass

import torch

from mvitv2.preprocessing import Preprocessing


@dataclass(frozen=True)
class Sampling:
    """How many frames a clip gives to the model, and which.

    Raises:
        ValueError: A field is out of range.
    """

    num_frames: int = 16
    """Of one clip for the model."""
    rate: int | None = 4
    """Distance of two of them, in frames at ``fps``; ``None``: one from each of that many equal parts of the whole."""
    fps: float | None = 30.0
    """Frames a second that ``rate`` counts in, SlowFast's ``TARGET_FPS``; ``None``: those of the file."""

    def __post_init__(self) -> None:
        """Refuse what gives no clip."""
        if self.num_frames < 1 or (self.rate is not None and self.rate < 1) or (self.fps is not None and self.fps <= 0):
            raise ValueError(f"num_frames={self.num_frames}, rate={self.rate} and fps={self.fps} must be above 0")

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> "Sampling":
        """The rule of a model.

        Raises:
            ValueError: It is one for pictures.
        """
        if preprocessing.num_frames is None:
            raise ValueError("this preprocessing is for pictures: it has no num_frames; take one for clips")
        return cls(preprocessing.num_frames, preprocessing.sampling_rate, preprocessing.fps)

    def random(self, frames: int, fps: float) -> list[int]:
        """A clip for training from a file of ``frames`` frames at ``fps``.

        With a rate, the start is uniform over all that fit, between frames as well (``decoder.py``,
        ``get_start_end_idx``); of equal parts, one frame of each is drawn (``ssv2.py``, ``get_seq_frames``).
        """
        _check(frames)
        if self.rate is None:
            return [random.randint(low, high) for low, high in parts(frames, self.num_frames)]
        size = self.span(fps)
        return spread(random.uniform(0, max(frames - size, 0)), size, self.num_frames, frames)

    def views(self, frames: int, fps: float, clips: int = 1) -> list[list[int]]:
        """The clips that a file is evaluated on.

        With a rate, their starts are ``clip * floor(room / (clips - 1))`` frames apart; a single one lies in the middle
        (SlowFast with ``USE_OFFSET_SAMPLING``, as all MViTv2 are tested). Of equal parts, the middle of each.

        Raises:
            ValueError: Several clips of equal parts: all would be the same.
        """
        _check(frames)
        if clips < 1 or (self.rate is None and clips > 1):
            raise ValueError(f"clips={clips}: expected 1, or more where a rate is set; of equal parts all are the same")
        if self.rate is None:
            return [[(low + high) // 2 for low, high in parts(frames, self.num_frames)]]
        size = self.span(fps)
        return [spread(start, size, self.num_frames, frames) for start in starts(frames, size, clips)]

    def span(self, fps: float) -> float:
        """Frames of a file at ``fps`` that a clip reaches over: ``rate * num_frames`` at our fps (``decoder.py``)."""
        size = float((self.rate or 1) * self.num_frames)
        return max(1.0, size / self.fps * fps if self.fps is not None and fps > 0 else size)


def starts(frames: int, size: float, clips: int) -> list[int]:
    """The first frames of clips that cover a file evenly (SlowFast ``decoder.py``, ``use_offset=True``)."""
    room = max(frames - size, 0)
    if clips == 1:
        return [math.floor(room / 2)]
    return [clip * math.floor(room / (clips - 1)) for clip in range(clips)]


def spread(start: float, size: float, num_frames: int, frames: int) -> list[int]:
    """``num_frames`` frames from ``start`` to ``start + size - 1``, within the file (``temporal_sampling``).

    In float32 and cut off, as there: that decides which of two neighbours it is.
    """
    places = torch.linspace(start, start + size - 1, num_frames)
    return places.clamp(0, frames - 1).long().tolist()


def parts(frames: int, num_frames: int) -> list[tuple[int, int]]:
    """The first and the last frame of equal parts, which share their borders (SlowFast ``ssv2.py``)."""
    size = (frames - 1) / num_frames
    return [(round(size * part), round(size * (part + 1))) for part in range(num_frames)]


def _check(frames: int) -> None:
    """Refuse a file of no frames.

    Raises:
        ValueError: It has none.
    """
    if frames < 1:
        raise ValueError(f"a clip of {frames} frames has none to sample")
