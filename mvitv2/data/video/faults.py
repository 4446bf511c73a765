"""What can be wrong with a clip, in one line, and how much of one is taken at most."""

from dataclasses import dataclass

from mvitv2.data.images import ImageError
from mvitv2.data.signatures import content_name

_PICTURES = ((b"\xff\xd8", "JPEG"), (b"\x89PNG", "PNG"), (b"BM", "BMP"), (b"II*\x00", "TIFF"), (b"MM\x00*", "TIFF"))
_PLAYLISTS = ((b"#EXTM3U", "HLS"), (b"ffconcat", "ffconcat"), (b"<MPD", "DASH"), (b"v=0", "SDP"))


class ClipError(ImageError):
    """One line: which clip, what is wrong with it, what was expected or what to do."""


@dataclass(frozen=True, kw_only=True)
class Caps:
    """Limits that a clip is refused by, before memory or hours are spent on it."""

    max_pixels: int = 8192 * 4320
    """Of one frame."""
    max_frames: int = 2_000_000
    """Of a whole file; 18 hours at 30 a second."""
    max_seconds: float = 24 * 3600.0
    """Of a whole file."""
    max_bytes: int = 2 << 30
    """Of the frames that are asked for at a time, as RGB."""
    max_streams: int = 64
    """Of any kind in a file."""

    def __post_init__(self) -> None:
        """Refuse limits that would refuse everything."""
        wrong = [f"{name}={value}" for name, value in vars(self).items() if not value > 0]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} must be above 0")

    def check_size(self, height: int, width: int, name: str) -> None:
        """Refuse a frame of too many pixels.

        Raises:
            ClipError: It has.
        """
        if height * width > self.max_pixels:
            limit = f"more than max_pixels={self.max_pixels}"
            raise ClipError(f"has frames of {width} x {height} pixels, {limit}; shrink it or raise the limit", name)
        if not height * width:
            raise ClipError(f"has frames of {width} x {height} pixels: there is nothing in them", name)

    def check_length(self, frames: int, seconds: float, name: str) -> None:
        """Refuse a file that is too long.

        Raises:
            ClipError: It is.
        """
        if frames > self.max_frames:
            raise ClipError(f"has more than max_frames={self.max_frames} frames; cut it or raise the limit", name)
        if seconds > self.max_seconds:
            limit = f"more than max_seconds={self.max_seconds:g}"
            raise ClipError(f"lasts {seconds:.0f} seconds, {limit}; cut it or raise the limit", name)

    def check_request(self, frames: int, height: int, width: int, name: str) -> None:
        """Refuse to hold too many frames at a time.

        Raises:
            ClipError: They would take more than ``max_bytes``.
        """
        needed = frames * height * width * 3
        if needed > self.max_bytes:
            limit = f"more than max_bytes={self.max_bytes}"
            raise ClipError(f"{frames} frames of {width} x {height} take {needed} bytes, {limit}; stream them", name)


CAPS = Caps()
"""What no file of any known data set exceeds."""


def not_a_video(head: bytes, reason: str) -> str:
    """What a file that no reader takes really is, as the rest of a sentence that begins with its name.

    Args:
        head: Its first :data:`mvitv2.data.signatures.HEAD_BYTES` bytes, or all there are.
        reason: The library's own words, for what starts like a video.
    """
    if not head:
        return "is empty (0 bytes); copy or download it again"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, kind in _PLAYLISTS:
        if start.startswith(magic):
            return f"is a playlist ({kind}), not a video; give the file that it names"
    for magic, kind in _PICTURES:
        if head.startswith(magic):
            return f"is a {kind} picture, not a video; pictures of one clip are read from a folder of their own"
    told = content_name(head)
    if "video" in told or "AVIF" in told or "no image format" in told:
        return f"cannot be read as a video ({reason}): it is cut off, damaged, or of a format not known here"
    return told.replace("the image itself", "the video itself").replace("not an image", "not a video")


def short(error: BaseException) -> str:
    """A library's own words on one line, without the name of the file object."""
    words = str(getattr(error, "strerror", None) or error).strip().splitlines() or [type(error).__name__]
    return words[0][:120]
