"""Any clip, opened by the reader that is there: PyAV, else torchcodec, which ``info.reader`` then says.

A clip is a path, the bytes of a file, a binary file object, a stretch of a file (:class:`ByteRange`), a folder of
pictures, or a list of their files.
"""

import contextlib
import io
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from torch import Tensor

from mvitv2.data.images import ImageError, opened, rewindable, source_name
from mvitv2.data.video.codec import TorchcodecClip, loaded
from mvitv2.data.video.faults import CAPS, Caps, ClipError
from mvitv2.data.video.info import Clip, ClipInfo
from mvitv2.data.video.pictures import FPS, PictureClip, pictures_in
from mvitv2.data.video.pyav import PyavClip
from mvitv2.extras import MissingExtra

READERS = ("auto", "pyav", "torchcodec")
"""``"auto"``: PyAV, or torchcodec where PyAV is not installed."""


@dataclass(frozen=True)
class ByteRange:
    """A clip that lies inside of a larger file, such as a tar."""

    path: Path
    offset: int
    size: int


ClipSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | ByteRange | Sequence[Path]


class OpenClip(Clip, AbstractContextManager["OpenClip"], Protocol):
    """A clip for ``with``."""


def open_clip(
    source: ClipSource,
    *,
    reader: str = "auto",
    caps: Caps = CAPS,
    threads: int = 1,
    stream: int | None = None,
    fps: float = FPS,
    name: str | None = None,
) -> OpenClip:
    """A clip, to be closed (``with``).

    Args:
        source: See this module.
        reader: One of :data:`READERS`; pictures are read by Pillow.
        caps: Limits it is refused by.
        threads: Of the decoder; loading processes want 1.
        stream: Number among its video streams; ``None``: the first.
        fps: Of pictures, which carry no times.
        name: What to call it in errors, where it has no name of its own.

    Raises:
        ClipError: It cannot be opened; one line says why.
        ImageError: So does this, of files that are not there or are none.
        MissingExtra: No reader is installed.
        ValueError: ``reader`` is unknown.
    """
    if reader not in READERS:
        raise ValueError(f"reader={reader!r} must be one of {list(READERS)}")
    if isinstance(source, list | tuple):
        files = [Path(file) for file in source]
        return PictureClip(
            files, name or f"{len(files)} frames in {files[0].parent if files else '?'}", caps=caps, fps=fps
        )
    if isinstance(source, str | os.PathLike) and Path(source).is_dir():
        return PictureClip(pictures_in(Path(source)), name or source_name(source), caps=caps, fps=fps)
    file, known = _file(cast("ClipSource", source), name)
    with contextlib.ExitStack() as failed:
        failed.callback(file.close)
        clip = _opener(reader)(file, known, caps=caps, threads=threads, stream=stream)
        failed.pop_all()  # the clip closes it now
    return clip


def probe(source: ClipSource, *, reader: str = "auto", caps: Caps = CAPS, name: str | None = None) -> ClipInfo:
    """What is known of a clip; its packets are read, and its first frame is decoded.

    Raises:
        ClipError: As :func:`open_clip`, or nothing in it can be decoded.
    """
    with open_clip(source, reader=reader, caps=caps, name=name) as clip:
        return clip.info


def read_frames(source: ClipSource, indices: Sequence[int], *, name: str | None = None, caps: Caps = CAPS) -> Tensor:
    """Some frames of a clip, ``(N, 3, H, W)`` uint8."""
    with open_clip(source, caps=caps, name=name) as clip:
        return clip.frames(indices)


def _opener(reader: str) -> Callable[..., OpenClip]:
    """The class that reads.

    Raises:
        MissingExtra: It cannot be imported.
    """
    if reader == "torchcodec":
        return TorchcodecClip
    try:
        import av  # noqa: F401
    except ImportError:
        if reader == "auto" and _works():
            return TorchcodecClip
    return PyavClip


def _works() -> bool:
    """Whether torchcodec is there with all that it needs."""
    try:
        loaded()
    except MissingExtra:
        return False
    return True


class _Stretch(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(22, "Invalid argument")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._offset + self._at)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Borrowed(io.RawIOBase):
    """A file object of somebody else, which stays open when the clip is closed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _file(source: ClipSource, name: str | None) -> tuple[BinaryIO, str]:
    """A source as a file that can seek, and what to call it.

    Raises:
        ClipError: It is not there, is of another kind, or may not be read.
    """
    try:
        if isinstance(source, ByteRange):
            known = name or f"{source_name(source.path)}[{source.offset}:{source.offset + source.size}]"
            return cast(
                "BinaryIO", _Stretch(opened(source.path, known, "a video file"), source.offset, source.size)
            ), known
        if isinstance(source, str | os.PathLike):
            known = name or source_name(source)
            return opened(Path(source), known, "a video file"), known
        known = name or source_name(cast("BinaryIO", source))
        file = rewindable(cast("BinaryIO", source), known)
        return (cast("BinaryIO", _Borrowed(file)) if file is source else file), known
    except ClipError:
        raise
    except ImageError as error:
        raise ClipError(error.reason, error.source) from error
