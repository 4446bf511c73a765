"""Boxes, masks, names and scores drawn on a picture: for sheets, predictions and reports.

Colours are Okabe and Ito's, which people with any colour vision tell apart; every line has a dark one around it, so
that it shows on any ground. Lines and letters grow with the picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Orange, sky blue, green, yellow, blue, vermilion, purple (Okabe and Ito 2008, "Color Universal Design")."""

_DARK, _LIGHT = (20, 20, 20), (255, 255, 255)
_SMALLEST, _LARGEST = 10, 40  # pixels of letters
_SHARE = 36  # a picture is so many times as high as its letters
_MASK = 0.45  # how much of a mask's colour shows


@dataclass(frozen=True)
class Mark:
    """What is drawn for one object."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels."""
    text: str = ""
    """Above the box; empty: nothing."""
    colour: int = 0
    """A number; equal ones have the same colour."""
    mask: np.ndarray | None = None
    """``(H, W)`` bool of the whole picture."""


def drawn(image: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """A picture with marks, in RGB; large objects are drawn first, so that small ones stay visible.

    Args:
        image: Left as it is.
        marks: In any order.

    Raises:
        ValueError: A mask has another size than the picture.
    """
    ordered = sorted(marks, key=lambda mark: -_area(mark))
    canvas = _masked(image.convert("RGB"), ordered)
    letters = round(min(max(math.sqrt(image.width * image.height) / _SHARE, _SMALLEST), _LARGEST))
    line = max(1, round(letters / 7))
    pen = ImageDraw.Draw(canvas)
    for mark in ordered:
        _outline(pen, mark, canvas.size, line)
    taken: list[tuple[float, float, float, float]] = []
    for mark in reversed(ordered):  # small objects have the first choice of a place for their words
        if mark.text:
            _words(pen, mark, canvas.size, letters, taken)
    return canvas


def label_text(name: str, score: float | None = None) -> str:
    """``dog 87 %``."""
    return name if score is None else f"{name} {100 * score:.0f} %"


def colour_of(number: int) -> tuple[int, int, int]:
    """The colour of a class."""
    return PALETTE[number % len(PALETTE)]


def _area(mark: Mark) -> float:
    left, top, right, bottom = mark.box
    return max(right - left, 0) * max(bottom - top, 0)


def _masked(image: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """A picture with masks laid over it, their borders stronger."""
    if not any(mark.mask is not None for mark in marks):
        return image.copy()
    pixels = np.array(image, np.float32)
    for mark in marks:
        if mark.mask is None:
            continue
        if mark.mask.shape != pixels.shape[:2]:
            raise ValueError(f"a mask of {mark.mask.shape} does not fit a picture of {pixels.shape[:2]}")
        colour = np.asarray(colour_of(mark.colour), np.float32)
        pixels[mark.mask] = (1 - _MASK) * pixels[mark.mask] + _MASK * colour
        pixels[_border(mark.mask)] = colour
    return Image.fromarray(pixels.round().astype(np.uint8))


def _border(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask that have a neighbour outside."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return mask & ~inner


def _outline(pen: ImageDraw.ImageDraw, mark: Mark, size: tuple[int, int], line: int) -> None:
    """The box of a mark in its colour, with a dark line on either side."""
    left, top, right, bottom = _whole(mark.box, size)
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=_DARK, width=line + 2)
    pen.rectangle((left, top, right, bottom), outline=colour_of(mark.colour), width=line)


def _whole(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The first and last pixels of a box, within a picture of ``(width, height)``."""
    left, top = (min(max(math.floor(value), 0), side - 1) for value, side in zip(box[:2], size, strict=True))
    right, bottom = (min(max(math.ceil(value) - 1, 0), side - 1) for value, side in zip(box[2:], size, strict=True))
    return left, top, max(left, right), max(top, bottom)


def _words(
    pen: ImageDraw.ImageDraw,
    mark: Mark,
    size: tuple[int, int],
    letters: int,
    taken: list[tuple[float, float, float, float]],
) -> None:
    """The words of a mark on its colour: above the box, inside or below it, where no other words are yet."""
    font = font_of(letters)
    text = shortened(pen, font, mark.text, size[0] - 6)
    width, height = pen.textlength(text, font=font) + 6, letters + 4
    left, top, _, bottom = _whole(mark.box, size)
    x = min(max(left, 0), max(size[0] - width, 0))
    tops = [top - height, top, bottom - height, bottom + 1]
    fitting = [y for y in tops if 0 <= y <= size[1] - height] or [min(max(top, 0), max(size[1] - height, 0))]
    place = next(
        (y for y in fitting if not any(_touch((x, y, x + width, y + height), one) for one in taken)), fitting[0]
    )
    box = (x, place, x + width, place + height)
    taken.append(box)
    colour = colour_of(mark.colour)
    pen.rectangle(box, fill=colour)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 120
    middle = isinstance(font, ImageFont.FreeTypeFont)  # the old font knows no anchors
    place = (x + 3, box[1] + (height / 2 if middle else 2))
    pen.text(place, text, fill=_DARK if bright else _LIGHT, font=font, anchor="lm" if middle else None)


def _touch(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font_of(letters: int) -> Font:
    """A font that comes with Pillow, of so many pixels; of one size where Pillow has no FreeType."""
    return ImageFont.load_default(size=letters) if features.check("freetype2") else ImageFont.load_default()


def shortened(pen: ImageDraw.ImageDraw, font: Font, text: str, width: float) -> str:
    """As much of a text as fits; without FreeType there are Latin letters only."""
    if not isinstance(font, ImageFont.FreeTypeFont):
        text = text.encode("latin-1", "replace").decode("latin-1")
    while len(text) > 1 and pen.textlength(text, font=font) > width:
        text = text[:-2] + "…" if isinstance(font, ImageFont.FreeTypeFont) else text[:-1]
    return text
