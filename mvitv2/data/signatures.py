"""What a file is by its first bytes, for telling people why it is no readable image."""

import json

HEAD_BYTES = 2048
"""How much of a file :func:`content_name` wants to see."""

# (offset, magic bytes, what it is and what to do)
_SIGNATURES = (
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the image itself: run `git lfs pull`"),
    (0, b"%PDF", "is a PDF document: export its pages as PNG or JPEG"),
    (0, b"%!PS", "is a PostScript drawing: export it as PNG"),
    (0, b"PK\x03\x04", "is a ZIP archive (or an office document): unpack it first"),
    (0, b"\x1f\x8b", "is a gzip archive: unpack it first"),
    (257, b"ustar", "is a tar archive: unpack it first"),
    (0, b"Rar!", "is a RAR archive: unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive: unpack it first"),
    (0, b"\xd0\xcf\x11\xe0", "is an old office document: save the picture in it as PNG or JPEG"),
    (0, b"\x93NUMPY", "is a NumPy array: save it as PNG"),
    (4, b"ftypheic", "is a HEIC photo: convert it to JPEG, PNG or AVIF"),
    (4, b"ftypheix", "is a HEIC photo: convert it to JPEG, PNG or AVIF"),
    (4, b"ftypmif1", "is a HEIF photo: convert it to JPEG, PNG or AVIF"),
    (4, b"ftypavif", "starts as AVIF but cannot be read: it is damaged, or Pillow is older than 11.3"),
    (4, b"ftyp", "is a video (MP4 or MOV): give an image, or a frame of it"),
    (8, b"AVI ", "is a video (AVI): give an image, or a frame of it"),
    (0, b"\x1a\x45\xdf\xa3", "is a video (MKV or WebM): give an image, or a frame of it"),
    (8, b"WEBP", "starts as WebP but its header is damaged: copy or download it again"),
    (0, b"\xff\xd8", "starts as JPEG but its header is damaged: copy or download it again"),
    (0, b"\x89PNG", "starts as PNG but its header is damaged: copy or download it again"),
    (0, b"GIF8", "starts as GIF but its header is damaged: copy or download it again"),
    (0, b"BM", "starts as BMP but its header is damaged: copy or download it again"),
    (0, b"II*\x00", "starts as TIFF but its header is damaged: copy or download it again"),
    (0, b"MM\x00*", "starts as TIFF but its header is damaged: copy or download it again"),
)


def content_name(head: bytes) -> str:
    """What a file that no image reader takes really is, as the rest of a sentence that begins with its name.

    Args:
        head: Its first :data:`HEAD_BYTES` bytes, or all there are.
    """
    for offset, magic, name in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return name
    if not head.strip(b"\x00"):
        return "holds nothing but zero bytes: copy or download it again"
    if head[:1] == b"P" and head[1:2] in tuple(b"%d" % number for number in range(1, 8)) and head[2:3].isspace():
        return "starts as PPM, PGM or PBM but its header is damaged: copy or download it again"
    text = _text(head)
    if text is not None:
        return f"is {_text_name(text)}, not an image"
    return "is in no image format known here: expected JPEG, PNG, WebP, GIF, AVIF, BMP, TIFF or the like"


def _text(head: bytes) -> str | None:
    """``head`` as text, or ``None`` where it holds bytes that no text has."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        cut = len(head) >= HEAD_BYTES and error.start >= len(head) - 3
        if not cut:  # a character cut in two by the end of the head is no reason against text
            return None
        text = head[: error.start].decode("utf-8")
    printable = all(char.isprintable() or char in "\t\r\n\f\ufeff" for char in text)
    return text if printable else None


def _text_name(text: str) -> str:
    """Which kind of text ``text`` is, with what to do about the common ones."""
    start = text.lstrip("\ufeff \t\r\n").lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<body")):
        return "an HTML page (often an error page saved by a download)"
    if start.startswith("<svg") or (start.startswith("<?xml") and "<svg" in start):
        return "an SVG drawing (export it as PNG)"
    if start.startswith("<?xml"):
        return "XML text"
    if start.startswith(("{", "[")) and _is_json(text):
        return "JSON text (often an error answer saved by a download)"
    return "text"


def _is_json(text: str) -> bool:
    """Whether ``text`` reads as JSON; a long document is cut off here and then judged by its start alone."""
    if len(text) >= HEAD_BYTES:
        return True
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
