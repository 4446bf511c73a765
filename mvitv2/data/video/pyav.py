"""Clips through PyAV, which brings FFmpeg in its wheel: every frame by its number, whatever the container.

One pass over the packets, without decoding, tells the time of every frame; a frame is then found from the last key
frame before it, and known by its time. Where times are missing, double or not kept, frames are counted from the start.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from mvitv2.data.video.container import Container, turns
from mvitv2.data.video.faults import CAPS, Caps, ClipError
from mvitv2.data.video.index import FrameIndex
from mvitv2.data.video.info import ClipInfo, Frame, checked, rate


class PyavClip:
    """An open clip; see :class:`mvitv2.data.video.info.Clip`."""

    def __init__(
        self, file: BinaryIO, name: str, *, caps: Caps = CAPS, threads: int = 1, stream: int | None = None
    ) -> None:
        """Open the container; no frame is decoded.

        Args:
            file: Can seek; closed with the clip.
            name: In errors.
            caps: Limits.
            threads: Of the decoder.
            stream: Number of a video stream; ``None``: the first.

        Raises:
            ClipError: It is no video, or is over a limit.
            MissingExtra: PyAV is not there.
        """
        self._container = Container(file, name, caps=caps, threads=threads, stream=stream or 0)
        self._name, self._caps = name, caps
        self._info: ClipInfo | None = None
        self._index: FrameIndex | None = None

    def close(self) -> None:
        """Give back the decoder and the file."""
        self._container.close()

    def __enter__(self) -> "PyavClip":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # what is known of it

    @property
    def index(self) -> FrameIndex:
        """The times of all frames."""
        if self._index is None:
            rows = self._container.rows()
            self._index = FrameIndex.of(rows, self._container.stream.time_base, self._caps, self._name)
        return self._index

    @property
    def times(self) -> np.ndarray:
        """``(frames,)`` float64: seconds after the first frame."""
        return self.index.times

    @property
    def info(self) -> ClipInfo:
        """What is known of it; its first frame is decoded for that.

        Raises:
            ClipError: No frame can be decoded.
        """
        if self._info is None:
            index = self.index
            self._container.rewind()
            frame = next(self._container.decoded(), None)
            if frame is None:
                raise ClipError("holds no frame that can be decoded; copy or download it again", self._name)
            self._info = self._described(frame, index)
        return self._info

    def _described(self, frame: Any, index: FrameIndex) -> ClipInfo:
        """What a frame and the index tell."""
        stream, turned = self._container.stream, turns(frame)
        size = (frame.height, frame.width) if turned % 2 == 0 else (frame.width, frame.height)
        fps, uneven = rate(index.times, index.seconds, float(stream.average_rate or 0))
        aspect = stream.sample_aspect_ratio
        notes = list(self._container.notes)
        if aspect and aspect != 1:
            notes.append(
                f"its pixels are {aspect.numerator}:{aspect.denominator}, not square; they are left as they are"
            )
        if frame.interlaced_frame:
            notes.append("is interlaced; both fields of a frame are left as they are")
        if not index.timed:
            notes.append("its frames carry no usable times; they are counted from the start")
        return ClipInfo(
            frames=len(index),
            fps=fps,
            seconds=index.seconds,
            size=size,
            codec=str(stream.codec_context.name),
            container=self._container.format,
            pixel_format=str(frame.format.name),
            rotation=turned * 90,
            streams=self._container.kinds(),
            variable_rate=uneven,
            reader=f"pyav {self._container.version}",
            notes=tuple(notes),
        )

    # frames

    def frames(self, indices: Sequence[int]) -> Tensor:
        """Some frames by number, ``(N, 3, H, W)`` uint8; see :class:`mvitv2.data.video.info.Clip`."""
        asked = checked(indices, len(self.index), self._name)
        order = sorted(set(asked))
        place = {index: row for row, index in enumerate(order)}
        found: np.ndarray | None = None
        for index, frame in self._found(order):
            pixels = self._container.pixels(frame)
            if found is None:
                self._caps.check_request(len(order), pixels.shape[0], pixels.shape[1], self._name)
                found = np.empty((len(order), *pixels.shape), np.uint8)
            if pixels.shape != found.shape[1:]:
                sides = f"from {_sides(found[0])} to {_sides(pixels)}"
                raise ClipError(f"changes its size {sides} at frame {index}; convert it to one size", self._name)
            found[place[index]] = pixels
        if found is None:
            return torch.empty(0, 3, 0, 0, dtype=torch.uint8)
        rows = [place[index] for index in asked]
        picked = found if rows == list(range(len(order))) else found[rows]
        return torch.from_numpy(picked).permute(0, 3, 1, 2)

    def stream(self, start: int = 0) -> Iterator[Frame]:
        """The frames from ``start`` on; see :class:`mvitv2.data.video.info.Clip`."""
        index = self.index
        if start >= len(index):
            return
        _ = self.info  # decodes a frame itself: asked for now, it is there while frames are streamed
        first = True
        for number, frame in self._onward(start):
            if first:
                self._caps.check_request(1, frame.height, frame.width, self._name)
                first = False
            time = float(index.times[min(number, len(index) - 1)])
            yield Frame(number, time, torch.from_numpy(self._container.pixels(frame)).permute(2, 0, 1))

    def verify(self) -> None:
        """Decode every frame, without making pictures of them.

        Raises:
            ClipError: One cannot be decoded, or fewer come than the file says.
        """
        self._container.rewind()
        count = sum(1 for _ in self._container.decoded())
        if count < len(self.index):
            raise ClipError(f"gives {count} frames of the {len(self.index)} it says; copy it again", self._name)

    def _onward(self, start: int) -> Iterator[tuple[int, Any]]:
        """Every frame from one on, with its number."""
        index = self.index
        if start and index.timed and index.seekable:
            places = {int(pts): place for place, pts in enumerate(index.pts)}
            self._container.seek(int(index.pts[index.key_before(start)]))
            numbered = ((places.get(frame.pts, -1), frame) for frame in self._container.decoded())
            onward = itertools.dropwhile(lambda pair: pair[0] < start, numbered)
            if (first := next(onward, None)) is not None and first[0] == start:
                yield first
                yield from onward
                return
        self._container.rewind()
        yield from itertools.islice(enumerate(self._container.decoded()), start, None)

    def _found(self, order: list[int]) -> Iterator[tuple[int, Any]]:
        """Frames by increasing number, from key frames where the file has what it takes."""
        done = 0
        if self.index.timed and self.index.seekable:
            for index, frame in self._by_time(order):
                yield index, frame
                done += 1
        if done < len(order):
            yield from self._by_count(order[done:])

    def _by_time(self, order: list[int]) -> Iterator[tuple[int, Any]]:
        """Frames known by their times; ends early where one does not come."""
        index = self.index
        decoded: Iterator[Any] = iter(())
        at = -1  # the frame that was decoded last
        for number in order:
            key = index.key_before(number)
            if at < 0 or key > at + 1:
                self._container.seek(int(index.pts[key]))
                decoded = self._container.decoded()
            target = int(index.pts[number])
            for frame in decoded:
                if frame.pts is None or frame.pts >= target:
                    break
            else:
                return
            if frame.pts != target:
                return
            at = number
            yield number, frame

    def _by_count(self, order: list[int]) -> Iterator[tuple[int, Any]]:
        """Frames counted from the start.

        Raises:
            ClipError: The file ends before one of them.
        """
        self._container.rewind()
        wanted, number = iter(order), -1
        following = next(wanted)
        for number, frame in enumerate(self._container.decoded()):
            if number == following:
                yield number, frame
                if (following := next(wanted, -1)) < 0:
                    return
        said = len(self.index)
        raise ClipError(f"gives {number + 1} frames of the {said} it says; frame {following} is missing", self._name)


def _sides(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
