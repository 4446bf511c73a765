"""Clips through torchcodec, where it and the FFmpeg that it needs are installed: the same frames, and times of frames.

It opens whatever FFmpeg takes for media, playlists included, so text is refused before it sees the file.
"""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from mvitv2.data.signatures import HEAD_BYTES
from mvitv2.data.video.faults import CAPS, Caps, ClipError, not_a_video, short
from mvitv2.data.video.info import ClipInfo, Frame, checked
from mvitv2.extras import MissingExtra, required

_FAULTS = (RuntimeError, ValueError, OSError, IndexError)
"""What torchcodec raises on damaged files."""


class TorchcodecClip:
    """An open clip; see :class:`mvitv2.data.video.info.Clip`."""

    def __init__(
        self, file: BinaryIO, name: str, *, caps: Caps = CAPS, threads: int = 1, stream: int | None = None
    ) -> None:
        """Open and index a file; arguments and errors as those of :class:`mvitv2.data.video.pyav.PyavClip`."""
        decoders = loaded()
        self._file, self._name, self._caps = file, name, caps
        self._version: str = required("torchcodec", extra="codec").__version__
        file.seek(0)
        head = file.read(HEAD_BYTES)
        if not head or _is_text(head):
            raise ClipError(not_a_video(head, "it is text"), name)
        self._head = head
        self._decoder: Any
        self._decoder, self._number = self._opened(decoders, max(1, threads), stream or 0)
        self._about: Any = self._decoder.metadata
        caps.check_size(self._about.height or 1, self._about.width or 1, name)
        caps.check_length(len(self._decoder), float(self._about.duration_seconds or 0), name)
        if not len(self._decoder):
            raise ClipError("holds no frames; copy or download it again", name)
        self._times: np.ndarray | None = None

    def _opened(self, decoders: Any, threads: int, stream: int) -> tuple[Any, int]:
        """The decoder of a video stream, by its place among the video streams, and its place among all.

        torchcodec takes the stream it likes best; the first is what the other reader takes.

        Raises:
            ClipError: There is none.
        """
        why = ""
        for number in range(self._caps.max_streams):
            self._file.seek(0)
            try:
                decoder = decoders.VideoDecoder(self._file, stream_index=number, num_ffmpeg_threads=threads)
            except _FAULTS as error:
                if "not a video stream" in str(error):
                    continue
                why = "" if "not a valid stream" in str(error) else short(error)
                break
            if stream == 0:
                return decoder, number
            stream -= 1
        if why:
            raise ClipError(not_a_video(self._head, why), self._name)
        raise ClipError("has no video, or not so many video streams; give a file with moving pictures", self._name)

    def close(self) -> None:
        """Give back the decoder and the file."""
        self._decoder = None
        self._file.close()

    def __enter__(self) -> "TorchcodecClip":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._about.num_frames)

    @property
    def times(self) -> np.ndarray:
        """``(frames,)`` float64: seconds after the first frame. torchcodec tells them only by decoding all frames."""
        if self._times is None:
            self._times = np.asarray([frame.time for frame in self.stream()], np.float64)
        return self._times

    @property
    def info(self) -> ClipInfo:
        """What is known of it."""
        about = self._about
        aspect = about.pixel_aspect_ratio
        notes = [f"stream {self._number} of the file is read"] if self._number else []
        if aspect and aspect != 1:
            notes.append(
                f"its pixels are {aspect.numerator}:{aspect.denominator}, not square; they are left as they are"
            )
        return ClipInfo(
            frames=len(self),
            fps=float(about.average_fps or 0),
            seconds=float(about.duration_seconds or 0),
            size=(about.height, about.width),
            codec=str(about.codec),
            container="",
            pixel_format=str(about.pixel_format),
            rotation=round(about.rotation or 0) % 360,
            streams=("video",),
            variable_rate=None,
            reader=f"torchcodec {self._version}",
            notes=tuple(notes),
        )

    def frames(self, indices: Sequence[int]) -> Tensor:
        """Some frames by number, ``(N, 3, H, W)`` uint8; see :class:`mvitv2.data.video.info.Clip`."""
        asked = checked(indices, len(self), self._name)
        if not asked:
            return torch.empty(0, 3, 0, 0, dtype=torch.uint8)
        self._caps.check_request(len(asked), self._about.height, self._about.width, self._name)
        try:
            return self._decoder.get_frames_at(asked).data
        except _FAULTS as error:
            raise ClipError(f"is damaged ({short(error)}); copy or download it again", self._name) from error

    def verify(self) -> None:
        """Decode every frame.

        Raises:
            ClipError: One cannot be decoded.
        """
        for _ in self.stream():
            pass

    def stream(self, start: int = 0) -> Iterator[Frame]:
        """The frames from ``start`` on; see :class:`mvitv2.data.video.info.Clip`."""
        first: float | None = None
        for number in range(start, len(self)):
            try:
                if first is None:
                    first = float(self._decoder.get_frame_at(0).pts_seconds)
                frame = self._decoder.get_frame_at(number)
            except _FAULTS as error:
                reason = f"is damaged: frame {number} cannot be decoded ({short(error)}); copy or download it again"
                raise ClipError(reason, self._name) from error
            yield Frame(number, float(frame.pts_seconds) - first, frame.data)
            if self._decoder is None:
                raise RuntimeError(f"{self._name}: was closed while its frames were streamed; open it once more")


def loaded() -> Any:
    """``torchcodec.decoders`` that works; without an FFmpeg of the system it can be imported, and fails at first use.

    Raises:
        MissingExtra: It is not there, or finds no FFmpeg.
    """
    decoders: Any = required("torchcodec.decoders", extra="codec")
    try:
        decoders.VideoDecoder(b"\0")
    except _FAULTS as error:
        if "libtorchcodec" in str(error):
            advice = "install FFmpeg, or pip install 'mvitv2[video]'"
            raise MissingExtra(f"torchcodec is there and finds no FFmpeg ({short(error)}); {advice}") from error
    return decoders


def _is_text(head: bytes) -> bool:
    """Whether a file begins like text, as playlists do and no video does."""
    return all(byte >= 32 or byte in (9, 10, 13) for byte in head[:64])
