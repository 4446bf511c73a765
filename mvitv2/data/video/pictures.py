"""Clips that lie as pictures: a folder of frames, or a list of their files, as RawFrames of the peers do."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, __version__
from torch import Tensor

from mvitv2.data.images import ImageError, read_image
from mvitv2.data.sources import IMAGE_SUFFIXES, natural_key
from mvitv2.data.video.faults import CAPS, Caps, ClipError
from mvitv2.data.video.info import ClipInfo, Frame, checked

FPS = 30.0
"""Frames a second that pictures are taken to have where nobody says it: SlowFast's frames of Something-Something."""


class PictureClip:
    """Pictures of one size as the frames of a clip; see :class:`mvitv2.data.video.info.Clip`."""

    def __init__(self, files: Sequence[Path], name: str, *, caps: Caps = CAPS, fps: float = FPS) -> None:
        """Take files in the order they are given; none is opened.

        Args:
            files: One per frame.
            name: In errors.
            caps: Limits.
            fps: Frames a second.

        Raises:
            ClipError: There are none, or too many.
        """
        if not files:
            raise ClipError("holds no pictures; a folder of frames has one file per frame, such as 00001.jpg", name)
        self._files, self._name, self._caps, self._fps = files, name, caps, fps
        caps.check_length(len(files), len(files) / fps, name)
        self._size: tuple[int, int] | None = None

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> "PictureClip":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def times(self) -> np.ndarray:
        """``(frames,)`` float64: seconds after the first frame."""
        return np.arange(len(self._files)) / self._fps

    @property
    def info(self) -> ClipInfo:
        """What is known of it; its first picture is opened for that."""
        first = self._picture(0)
        return ClipInfo(
            frames=len(self._files),
            fps=self._fps,
            seconds=len(self._files) / self._fps,
            size=(first.height, first.width),
            codec="frames",
            container="folder",
            pixel_format=self._files[0].suffix.lstrip(".").lower(),
            rotation=0,
            streams=("video",),
            variable_rate=False,
            reader=f"pillow {__version__}",
        )

    def frames(self, indices: Sequence[int]) -> Tensor:
        """Some frames by number, ``(N, 3, H, W)`` uint8; see :class:`mvitv2.data.video.info.Clip`."""
        asked = checked(indices, len(self._files), self._name)
        if not asked:
            return torch.empty(0, 3, 0, 0, dtype=torch.uint8)
        found = {index: self._pixels(index) for index in sorted(set(asked))}
        return torch.stack([found[index] for index in asked])

    def verify(self) -> None:
        """Decode every picture.

        Raises:
            ClipError: One cannot be decoded.
        """
        for _ in self.stream():
            pass

    def stream(self, start: int = 0) -> Iterator[Frame]:
        """The frames from ``start`` on; see :class:`mvitv2.data.video.info.Clip`."""
        for index in range(start, len(self._files)):
            yield Frame(index, index / self._fps, self._pixels(index))

    def _picture(self, index: int) -> Image.Image:
        """One frame.

        Raises:
            ClipError: It cannot be read, or has another size than those before.
        """
        try:
            picture = read_image(self._files[index], max_pixels=self._caps.max_pixels)
        except ImageError as error:
            raise ClipError(f"frame {index}, {self._files[index].name}, {error.reason}", self._name) from error
        size = (picture.height, picture.width)
        if self._size is None:
            self._size = size
        if size != self._size:
            sides = f"{picture.width} x {picture.height} where others have {self._size[1]} x {self._size[0]}"
            raise ClipError(
                f"frame {index}, {self._files[index].name}, has {sides} pixels; make all one size", self._name
            )
        return picture

    def _pixels(self, index: int) -> Tensor:
        """One frame as ``(3, H, W)`` uint8."""
        return torch.from_numpy(np.array(self._picture(index))).permute(2, 0, 1)


def pictures_in(folder: Path) -> list[Path]:
    """The frames in a folder in the order people count; hidden files and others than pictures are left out.

    Raises:
        ClipError: It cannot be listed.
    """
    try:
        names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise ClipError(f"cannot be listed ({error.strerror})", str(folder)) from error
    kept = sorted((name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES), key=natural_key)
    return [folder / name for name in kept]
