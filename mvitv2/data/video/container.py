"""One video stream through PyAV, which brings FFmpeg in its wheel: packets, decoded frames, upright RGB.

FFmpeg opens nothing by itself here: it reads a file object, knows formats of media alone (no playlists, no lists of
pictures), and may use no protocol.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from mvitv2.data.signatures import HEAD_BYTES
from mvitv2.data.video.faults import Caps, ClipError, not_a_video, short
from mvitv2.data.video.index import Row
from mvitv2.extras import required

FORMATS = (
    "mov", "matroska", "webm", "avi", "mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v", "ivf", "obu", "av1", "ogg",
    "flv", "asf", "gif", "mjpeg", "mxf", "nut", "y4m", "yuv4mpegpipe", "wav", "mp3", "flac", "aac",
)  # fmt: skip
"""FFmpeg's readers that are used; the last are told as sound without pictures."""

_OPTIONS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "none"}
_RIGHT_ANGLE = 90


class Container:
    """An open file and one of its video streams.

    Attributes:
        stream: PyAV's.
        notes: Which of several streams it is.
        version: Of PyAV.
    """

    def __init__(self, file: BinaryIO, name: str, *, caps: Caps, threads: int, stream: int) -> None:
        """Open a file at its start; no frame is decoded.

        Args:
            file: Can seek; closed with the container.
            name: In errors.
            caps: Limits.
            threads: Of the decoder.
            stream: Number among the video streams.

        Raises:
            ClipError: It is no video, or is over a limit.
            MissingExtra: PyAV is not there.
        """
        self._av: Any = required("av", extra="video")
        self.version: str = self._av.__version__
        self._file, self._name, self._caps = file, name, caps
        self._threads, self._wanted = max(1, threads), stream
        self._moves = 0
        self._open()

    def _open(self) -> None:
        """Open the container at its start, and choose the stream."""
        self._file.seek(0)
        try:
            self._container: Any = self._av.open(
                self._file, mode="r", options=dict(_OPTIONS), metadata_errors="replace"
            )
        except (self._av.FFmpegError, OSError) as error:
            self._file.seek(0)
            raise ClipError(not_a_video(self._file.read(HEAD_BYTES), short(error)), self._name) from error
        try:
            self.stream, self.notes = self._chosen()
        except ClipError:
            self._container.close()
            raise
        context = self.stream.codec_context
        context.thread_count = self._threads
        context.thread_type = "AUTO" if self._threads > 1 else "SLICE"

    def rewind(self) -> None:
        """Go to the start, by opening the container again: that is exact for every format."""
        self._moves += 1
        self._container.close()
        self._open()

    def close(self) -> None:
        """Give back the decoder and the file."""
        self._moves += 1
        self._container.close()
        self._file.close()

    def _chosen(self) -> tuple[Any, tuple[str, ...]]:
        """The video stream that is read, and a note where there are several.

        Raises:
            ClipError: There is none, or none of that number.
        """
        kinds = self.kinds()
        if len(kinds) > self._caps.max_streams:
            raise ClipError(f"has {len(kinds)} streams, more than max_streams={self._caps.max_streams}", self._name)
        cover = self._av.stream.Disposition.attached_pic
        there = [one for one in self._container.streams.video if not one.disposition & cover]
        if not there:
            what = f"has no video, only {' and '.join(sorted(set(kinds)))}" if kinds else "has no streams"
            raise ClipError(f"{what}; give a file with moving pictures", self._name)
        if not 0 <= self._wanted < len(there):
            raise ClipError(f"has {len(there)} video streams, no stream {self._wanted}", self._name)
        chosen = there[self._wanted]
        if getattr(chosen, "codec_context", None) is None:
            raise ClipError("is stored by a codec that this FFmpeg has no decoder for; convert it to H.264", self._name)
        context = chosen.codec_context
        self._caps.check_size(context.height or 1, context.width or 1, self._name)  # 0: told by the first frame
        several = (f"has {len(there)} video streams; number {self._wanted} is read",) if len(there) > 1 else ()
        return chosen, several

    def kinds(self) -> tuple[str, ...]:
        """Kinds of all streams."""
        return tuple(str(one.type) for one in self._container.streams)

    @property
    def format(self) -> str:
        """FFmpeg's name of the container's format."""
        return str(self._container.format.name)

    def rows(self) -> Iterator[Row]:
        """Every packet, from here on, that becomes a frame that is shown.

        Raises:
            ClipError: The file cannot be read to its end.
        """
        try:
            for packet in self._container.demux(self.stream):
                if packet.size and not packet.is_discard:
                    yield packet.pts, packet.is_keyframe, packet.duration or 0
        except (self._av.FFmpegError, OSError) as error:
            raise ClipError(f"cannot be read to its end ({short(error)}); copy it again", self._name) from error

    def decoded(self) -> Iterator[Any]:
        """Decoded frames, from here on.

        Raises:
            ClipError: The data are damaged, or a frame has too many pixels.
            RuntimeError: The place was changed meanwhile; FFmpeg would decode from there, or crash once it is closed.
        """
        count, moves = 0, self._moves
        try:
            for frame in self._container.decode(self.stream):
                self._caps.check_size(frame.height, frame.width, self._name)
                count += 1
                yield frame
                if self._moves != moves:
                    raise RuntimeError(
                        f"{self._name}: was closed or read elsewhere while its frames were streamed; open it once more "
                        "for that, or take the frames first"
                    )
        except (self._av.FFmpegError, OSError) as error:
            reason = f"is damaged: decoding stops after {count} frames ({short(error)}); copy or download it again"
            raise ClipError(reason, self._name) from error

    def pixels(self, frame: Any) -> np.ndarray:
        """A frame as ``(H, W, 3)`` RGB, upright; colours by the matrix and range that the file says.

        Raises:
            ClipError: They do not convert.
        """
        try:
            pixels = frame.to_ndarray(format="rgb24", threads=1)
        except (self._av.FFmpegError, ValueError) as error:
            raise ClipError(f"has colours {frame.format.name} that do not convert to RGB", self._name) from error
        turned = turns(frame)
        return np.ascontiguousarray(np.rot90(pixels, turned)) if turned else pixels

    def seek(self, pts: int) -> None:
        """Go to the key frame at or before a time in ticks; to the start where the format cannot seek."""
        self._moves += 1
        with contextlib.suppress(self._av.FFmpegError, OSError):
            self._container.seek(pts, stream=self.stream, backward=True, any_frame=False)
            return
        self.rewind()


def turns(frame: Any) -> int:
    """Quarter turns counterclockwise that make a frame upright; 0 where the file says no multiple of one."""
    quarters, rest = divmod(int(frame.rotation), _RIGHT_ANGLE)
    return quarters % 4 if rest == 0 else 0
