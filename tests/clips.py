"""Small clips whose frames tell their own number, written by PyAV."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

STEP = 8
"""Gray levels between neighbouring frames, so that a lossy codec cannot make one of another."""


def level(index: int) -> int:
    """The gray of a frame; it repeats after 24."""
    return 30 + STEP * (index % 24)


def picture(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """``(H, W, 3)`` uint8: gray, with a bright upper left corner that tells which way is up."""
    pixels = np.full((height, width, 3), level(index), np.uint8)
    pixels[: height // 4, : width // 4] = 250
    return pixels


def write_clip(
    path: Path,
    frames: int = 24,
    *,
    fps: int = 10,
    size: tuple[int, int] = (48, 64),
    times: list[int] | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    rotation: int = 0,
    pixel_format: str = "yuv420p",
    movflags: str = "",
) -> Path:
    """A clip of numbered frames.

    Args:
        path: Its suffix says the container.
        frames: How many.
        fps: Frames a second; with ``times``, ticks a second.
        size: ``(H, W)``.
        times: When each frame is shown, in ticks; ``None``: one after another.
        codec: FFmpeg's name of the encoder.
        options: Of the encoder.
        rotation: Degrees counterclockwise that players turn it by.
        pixel_format: How colours are stored.
        movflags: Of the container, for MP4.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        stream: Any = container.add_stream(codec, rate=fps, options={"g": "8", **(options or {})})
        stream.height, stream.width, stream.pix_fmt = *size, pixel_format
        stream.codec_context.time_base = Fraction(1, fps)
        stream.codec_context.thread_count = 1
        if rotation:
            stream.set_display_rotation(rotation)
        for index in range(frames):
            frame: Any = av.VideoFrame.from_ndarray(picture(index, *size), format="rgb24")
            frame.pts, frame.time_base = (index if times is None else times[index]), Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers(frames: Tensor) -> list[int]:
    """The numbers, up to multiples of 24, that frames ``(N, 3, H, W)`` tell."""
    middle = frames[:, :, frames.shape[2] // 3 :, frames.shape[3] // 3 :].float().mean(dim=(1, 2, 3))
    return [round((value - 30) / STEP) for value in middle.tolist()]
