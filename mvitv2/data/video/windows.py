"""Long files in bounded memory: windows of frames that slide over a clip, as a model is given them.

Frames are decoded once and kept only as long as a window needs them, so that memory does not grow with the length.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mvitv2.data.video.info import Clip, Frame
from mvitv2.data.video.sampling import Sampling, spread


@dataclass(frozen=True)
class Window:
    """A stretch of a clip for the model."""

    start: float
    """Seconds after the first frame."""
    stop: float
    """Where the last of its frames ends."""
    indices: tuple[int, ...]
    """Numbers of its frames."""
    frames: Tensor
    """``(T, 3, H, W)`` uint8."""


def windows(clip: Clip, sampling: Sampling, *, every: float | None = None) -> Iterator[Window]:
    """The windows of a clip, one after another; the last one ends with the clip.

    Args:
        clip: An open clip.
        sampling: How many frames a window has and how far apart; needs a rate.
        every: Seconds between the starts of two windows; ``None``: each begins where the one before ended.

    Raises:
        ClipError: A frame cannot be decoded; windows before it have come out.
        ValueError: Windows of equal parts of the whole, or ``every`` is not above 0.
    """
    if sampling.rate is None or (every is not None and not every > 0):
        raise ValueError(f"rate={sampling.rate} and every={every} must be above 0; windows have a length in time")
    info = clip.info
    fps = info.fps if info.fps > 0 else sampling.fps or 1.0
    size = sampling.span(fps)
    step = size if every is None else max(1.0, every * fps)
    kept: deque[Frame] = deque()
    coming = clip.stream()
    for start in window_starts(info.frames, size, step):
        wanted = spread(start, size, sampling.num_frames, info.frames)
        while kept and kept[0].index < wanted[0]:
            kept.popleft()
        while not kept or kept[-1].index < wanted[-1]:
            frame = next(coming, None)
            if frame is None:
                return
            if frame.index >= wanted[0]:
                kept.append(frame)
        by_number = {frame.index: frame for frame in kept}
        frames = torch.stack([by_number[index].pixels for index in wanted])
        yield Window(by_number[wanted[0]].time, by_number[wanted[-1]].time + 1 / fps, tuple(wanted), frames)


def window_starts(frames: int, size: float, step: float) -> list[float]:
    """First frames of windows ``step`` apart, and of one that ends with the clip where they leave frames over."""
    room = max(frames - size, 0.0)
    starts = [place * step for place in range(int(room / step) + 1)]
    return starts if room - starts[-1] < 1 else [*starts, room]
