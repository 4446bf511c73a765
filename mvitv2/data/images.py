"""One file, whatever is in it, to one RGB picture, or one line that says why not.

Nothing here hangs, warns or prints: special files are refused before they are opened, pixels are counted before they
are decoded, and every way in which Pillow gives up becomes an :class:`ImageError`. How colours are converted is
written in :mod:`mvitv2.data.colours`.
"""

import io
import os
import re
import stat
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError

from mvitv2.data.colours import WHITE, to_rgb
from mvitv2.data.quiet import Quiet, silence_decoders
from mvitv2.data.signatures import HEAD_BYTES, content_name

MAX_PIXELS = 89_478_485
"""Pictures of more pixels are refused (256 MiB as RGB; above it Pillow itself warns of a decompression bomb)."""

MAX_STREAM_BYTES = 1 << 29
"""How much is read from a source that cannot be rewound, such as a pipe or a socket."""

FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "DIB", "TIFF", "PPM", "ICO", "JPEG2000", "PSD", "SGI", "PCX", "QOI",
)  # fmt: skip
"""Known by content, never by name: pictures with a signature, decoded by Pillow alone (EPS would start a program).

JPEG includes MPO; AVIF is there where Pillow was built with it.
"""

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THEIR_SIDE = (5, 6, 7, 8)
# What Pillow's decoders raise on damaged data; seen on fuzzed files of every format above.
_DECODE_ERRORS = (
    OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, EOFError, AttributeError,
    AssertionError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip


class ImageError(ValueError):
    """One line: which source, what it is, what was expected or what to do.

    Attributes:
        source: The name of the file, printable.
        reason: The rest of the line.
    """

    def __init__(self, reason: str, source: str = "") -> None:
        # one positional argument is enough to build it: DataLoader rebuilds errors of its workers so
        super().__init__(one_line(f"{source}: {reason}" if source else reason))
        self.source = source
        self.reason = one_line(reason)


class Traits(NamedTuple):
    """What a file was before it became an upright RGB picture."""

    format: str
    """As Pillow calls it."""
    mode: str
    """Pillow's mode, with ``+alpha`` where parts are transparent by a palette or a colour key."""
    frames: int = 1
    """More than one where a clip is looked at as a picture of some of its frames."""
    fps: float = 0.0
    """Of such a clip; 0 where nothing says it."""


def read_image(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    channels: str = "RGB",
    background: tuple[int, int, int] | None = WHITE,
    name: str | None = None,
) -> Image.Image:
    """The picture in ``source``, upright, 8 bits per channel; of an animation or several pages, the first.

    Args:
        source: A path, the bytes of a file, or a binary file object (left open).
        max_pixels: A picture whose header says more is refused before it is decoded.
        channels: ``"RGB"``, or ``"L"`` for models of one input channel.
        background: What lies behind transparent pixels; ``None`` drops alpha as ``convert("RGB")`` does.
        name: What to call the source in errors, where it has no name of its own.

    Raises:
        ImageError: It cannot be read as an image; the message is one line.
        ValueError: ``channels`` is neither.
    """
    return read_with_traits(source, max_pixels=max_pixels, channels=channels, background=background, name=name)[0]


def read_with_traits(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    channels: str = "RGB",
    background: tuple[int, int, int] | None = WHITE,
    name: str | None = None,
) -> tuple[Image.Image, Traits]:
    """As :func:`read_image`, with what the file was before."""
    if channels not in ("RGB", "L"):
        raise ValueError(f'channels={channels!r} must be "RGB" or "L"')
    name = source_name(source) if name is None else one_line(name)
    try:
        if isinstance(source, str | os.PathLike):
            with opened(Path(source), name) as file:
                return _decoded(file, name, max_pixels, channels, background)
        return _decoded(rewindable(source, name), name, max_pixels, channels, background)
    except MemoryError as error:
        raise ImageError("needs more memory than there is to decode; lower max_pixels or free memory", name) from error


def read_size(path: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width of the upright picture in a file; only its header is read.

    Raises:
        ImageError: As :func:`read_image`, but for damage behind the header.
    """
    name = source_name(path)
    with opened(path, name) as file, _QUIET:
        head = file.read(HEAD_BYTES)
        if not head:
            raise ImageError("is empty (0 bytes); copy or download it again", name)
        image = _identified(file, head, name, max_pixels)
        return image.size if _orientation(image) in _ON_THEIR_SIDE else (image.height, image.width)


def source_name(source: ImageSource) -> str:
    """A printable name of ``source`` on one line; undecodable and control characters are escaped."""
    if isinstance(source, str | os.PathLike):
        return one_line(os.fspath(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return f"<{len(source)} bytes>"
    name = getattr(source, "name", None)
    return one_line(name) if isinstance(name, str) and name else "<file>"


def one_line(text: str) -> str:
    """``text`` that can be printed on one line of any terminal: what cannot is written as an escape."""
    clean = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in clean)


def opened(path: Path, name: str | None = None, wanted: str = "an image file") -> io.BufferedReader:
    """``path`` opened for reading, once it is known to be a plain file: opening a FIFO would wait for ever.

    Raises:
        ImageError: There is no such file, it is of another kind, or it may not be read.
    """
    name = source_name(path) if name is None else name
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"is {_kind_name(status.st_mode)}, not {wanted}", name)
        return path.open("rb")
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ImageError(f"is a link to {os.fspath(path.readlink())!r}, which does not exist", name) from error
        raise ImageError("does not exist; check the spelling and the current folder", name) from error
    except PermissionError as error:
        raise ImageError("may not be read (permission denied); change its mode or owner", name) from error
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # too long a name, a loop of links, a zero byte in the name
        raise ImageError(f"cannot be opened ({_short(error)})", name) from error


def _kind_name(mode: int) -> str:
    """What a file that is not a plain one is, and what to do instead where there is something."""
    if stat.S_ISDIR(mode):
        return "a folder (name the files in it, or give it to a command that takes folders)"
    if stat.S_ISFIFO(mode):
        return "a pipe (read its bytes and pass those)"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"


def rewindable(source: bytes | bytearray | memoryview | BinaryIO, name: str) -> BinaryIO:
    """``source`` as a file object that can seek.

    Raises:
        TypeError: It is neither bytes nor a binary file.
        ImageError: A stream that cannot seek holds too much.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if not hasattr(source, "read"):
        raise TypeError(f"an image is read from a path, bytes or a binary file, got {type(source).__name__}")
    if source.seekable():
        return source
    data = source.read(MAX_STREAM_BYTES + 1)
    if len(data) > MAX_STREAM_BYTES:
        raise ImageError(f"streams more than {MAX_STREAM_BYTES} bytes; save it to a file first", name)
    return io.BytesIO(data)


def _decoded(
    file: BinaryIO, name: str, max_pixels: int, channels: str, background: tuple[int, int, int] | None
) -> tuple[Image.Image, Traits]:
    """The first picture of ``file``, refused by its header where that is enough."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if not head:
        raise ImageError("is empty (0 bytes); copy or download it again", name)
    with _QUIET:
        image = _identified(file, head, name, max_pixels)
        try:
            image.load()
        except _DECODE_ERRORS as error:
            reason = f"is a damaged or cut off {image.format} ({_short(error)}); copy or download it again"
            raise ImageError(reason, name) from error
        except Image.DecompressionBombError as error:
            raise ImageError(f"is too large once decoded ({_short(error)})", name) from error
        see_through = image.has_transparency_data and "A" not in image.mode
        traits = Traits(image.format or "", image.mode + ("+alpha" if see_through else ""))
        turn = _UPRIGHT.get(_orientation(image))
        try:
            picture = to_rgb(image, background)
        except (OSError, ValueError) as error:
            reason = f"has colours of mode {image.mode!r} that do not convert to RGB ({_short(error)}); save it as PNG"
            raise ImageError(reason, name) from error
        picture = picture if turn is None else picture.transpose(turn)
    return picture if channels == "RGB" else picture.convert(channels), traits


def _identified(file: BinaryIO, head: bytes, name: str, max_pixels: int) -> Image.Image:
    """``file`` opened by the reader its content asks for; only its header is read."""
    try:
        silence_decoders()
        Image.init()  # fills OPEN, once
        image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError as error:
        raise ImageError(content_name(head), name) from error
    except Image.DecompressionBombError as error:
        count = re.search(r"\d+", str(error))  # Pillow's own limit comes before the size is known here
        limit = f"max_pixels={max_pixels} (at most {2 * (Image.MAX_IMAGE_PIXELS or 0)} by Pillow)"
        raise ImageError(f"has {count.group() if count else 'far'} pixels, more than {limit}", name) from error
    except _DECODE_ERRORS as error:
        raise ImageError(f"is damaged near its start ({_short(error)}); copy or download it again", name) from error
    if not all(image.size):
        raise ImageError(f"has {image.size[0]} x {image.size[1]} pixels: there is nothing in it", name)
    width, height = image.size
    if width * height > max_pixels:
        reason = f"has {width} x {height} pixels, more than max_pixels={max_pixels}; shrink it or raise the limit"
        raise ImageError(reason, name)
    return image


def _orientation(image: Image.Image) -> int:
    """The EXIF (or XMP) orientation of a loaded picture, 1 where there is none or it makes no sense.

    Readers of photos show a picture whose EXIF block is damaged; so do we, as it is stored.
    """
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _DECODE_ERRORS:
        return 1
    return value if isinstance(value, int) else 1


def _short(error: BaseException) -> str:
    """The first line of what ``error`` says, at most 120 characters, without the file object's address."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


_QUIET = Quiet()
