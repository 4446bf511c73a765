"""What is known of a clip, and the contract that every reader of clips keeps."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

_AGREES = 0.05
"""Part by which a stored rate may differ from the times of the frames."""


@dataclass(frozen=True)
class ClipInfo:
    """A clip before its pixels: of its first frame and of the times of all."""

    frames: int
    """That are shown: those that an edit list cuts off do not count."""
    fps: float
    """Frames a second, on average; 0 where frames carry no times."""
    seconds: float
    """From the first frame to the end of the last; 0 where frames carry no times."""
    size: tuple[int, int]
    """``(H, W)`` upright, as frames come out."""
    codec: str
    """Such as ``"h264"``; ``"frames"`` for a folder of pictures."""
    container: str
    """Such as ``"mp4"``."""
    pixel_format: str
    """How colours are stored, such as ``"yuv420p"``."""
    rotation: int
    """Degrees counterclockwise by which stored frames were turned to be upright: 0, 90, 180 or 270."""
    streams: tuple[str, ...]
    """Kinds of all streams in the file."""
    variable_rate: bool | None
    """Whether frames last unequally long; ``None`` where the reader does not say."""
    reader: str
    """Library and version that read it."""
    notes: tuple[str, ...] = ()
    """What was chosen or left as it is, in sentences: which of several streams, pixels that are not square."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


class Frame(NamedTuple):
    """One frame of a stream."""

    index: int
    """From 0, in the order of display."""
    time: float
    """Seconds after the first frame."""
    pixels: Tensor
    """``(3, H, W)`` uint8, upright RGB."""


class Clip(Protocol):
    """An open clip. Frames are numbered from 0 in the order they are shown in."""

    @property
    def info(self) -> ClipInfo:
        """What is known of it."""
        ...

    @property
    def times(self) -> np.ndarray:
        """``(frames,)`` float64: seconds after the first frame."""
        ...

    def frames(self, indices: Sequence[int]) -> Tensor:
        """Some frames, in the order asked for, as ``(N, 3, H, W)`` uint8; the same number may come again.

        Raises:
            ClipError: One cannot be decoded.
            IndexError: There is none of that number.
        """
        ...

    def stream(self, start: int = 0) -> Iterator[Frame]:
        """The frames from ``start`` on, one at a time.

        Raises:
            ClipError: The next cannot be decoded; those before it have come out.
            RuntimeError: The clip was closed, or read at another place, since the last one came out. ``info`` and
                ``times`` may be asked for at any time.
        """
        ...

    def verify(self) -> None:
        """Decode every frame.

        Raises:
            ClipError: One cannot be decoded, or fewer come than the file says.
        """
        ...

    def close(self) -> None:
        """Give back the file and the decoder."""
        ...


def at_times(times: np.ndarray, wanted: Sequence[float]) -> list[int]:
    """The numbers of the frames that are on screen at some seconds after the first frame."""
    return (np.searchsorted(times, np.asarray(wanted) + 1e-9, side="right") - 1).clip(0, len(times) - 1).tolist()


def checked(indices: Sequence[int], frames: int, name: str) -> list[int]:
    """Numbers of frames that are there.

    Raises:
        IndexError: One is not.
    """
    plain = [int(index) for index in indices]
    wrong = [index for index in plain if not 0 <= index < frames]
    if wrong:
        raise IndexError(f"{name}: has {frames} frames, 0 to {frames - 1}, no frame {wrong[0]}")
    return plain


def rate(times: np.ndarray, seconds: float, stored: float) -> tuple[float, bool]:
    """Frames a second on average, and whether frames last unequally long.

    Args:
        times: ``(frames,)`` seconds.
        seconds: To the end of the last frame.
        stored: What the file says of its rate, 0 where it says nothing; believed as far as the times agree.
    """
    steps = np.diff(times)
    if not len(steps) or not times[-1] > times[0]:
        return stored, False
    usual = float(np.median(steps))
    uneven = bool((np.abs(steps - usual) > 0.2 * usual + 1.5e-3).any())  # Matroska rounds times to milliseconds
    measured = len(times) / seconds
    return (stored if abs(stored - measured) <= _AGREES * measured else measured), uneven
