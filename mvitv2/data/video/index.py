"""When each frame of a file is shown and where decoding can start: what makes reading by number exact and quick."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mvitv2.data.video.faults import Caps, ClipError

Row = tuple[int | None, bool, int]
"""Of a packet: presentation time in ticks, whether it is a key frame, duration in ticks."""

_LENGTH_EVERY = 1 << 16  # packets between two looks at the limits


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a file in the order they are shown in."""

    pts: np.ndarray
    """``(frames,)`` int64 ticks; of a file without times, the numbers of its frames."""
    keys: np.ndarray
    """``(K,)`` int64, increasing: numbers of the key frames."""
    times: np.ndarray
    """``(frames,)`` float64: seconds after the first frame."""
    seconds: float
    """To the end of the last frame."""
    timed: bool
    """Whether every frame has a time of its own."""

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def seekable(self) -> bool:
        """Whether decoding can start anywhere but at the start."""
        return len(self.keys) > 0

    def key_before(self, index: int) -> int:
        """The key frame that a frame is decoded from; the first frame where none comes before it."""
        place = int(np.searchsorted(self.keys, index, side="right")) - 1
        return int(self.keys[place]) if place >= 0 else 0

    @classmethod
    def of(cls, rows: Iterable[Row], base: Fraction | None, caps: Caps, name: str) -> "FrameIndex":
        """The index of packets in the order of the file.

        Args:
            rows: See :data:`Row`.
            base: Seconds of one tick.
            caps: Limits of length.
            name: In errors.

        Raises:
            ClipError: There are none, or too many.
        """
        pts, keyed, duration = _columns(rows, caps, name)
        if not len(pts):
            raise ClipError("holds no frames; copy or download it again", name)
        timed = base is not None and bool((pts != _NONE).all()) and len(np.unique(pts)) == len(pts)
        if not timed:
            count = np.arange(len(pts))
            return cls(count, np.flatnonzero(keyed), np.zeros(len(pts)), 0.0, False)
        order = np.argsort(pts)
        shown = pts[order]
        tick = float(base or 0)
        times = (shown - shown[0]) * tick
        last = int(duration[order[-1]]) or (int(np.median(np.diff(shown))) if len(shown) > 1 else 0)
        seconds = float(times[-1]) + last * tick
        caps.check_length(len(shown), seconds, name)
        return cls(shown, np.flatnonzero(keyed[order]), times, seconds, True)


_NONE = np.iinfo(np.int64).min


def _columns(rows: Iterable[Row], caps: Caps, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, key frames and durations, looked at for length on the way."""
    pts: list[int] = []
    keyed: list[bool] = []
    duration: list[int] = []
    for time, key, length in rows:
        pts.append(_NONE if time is None else time)
        keyed.append(key)
        duration.append(length)
        if len(pts) % _LENGTH_EVERY == 0 or len(pts) > caps.max_frames:
            caps.check_length(len(pts), 0.0, name)
    return np.asarray(pts, np.int64), np.asarray(keyed, bool), np.asarray(duration, np.int64)
