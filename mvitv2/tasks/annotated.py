"""A picture with what a model says about it, for people."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, SOFT, BAR = "#fbfaf7", "#1d2327", "#e3e0d8", "#8fbfd4"
NARROWEST = 240
"""Pixels that a name and a bar need; smaller pictures are enlarged."""
LONGEST = 120
"""Characters of a name that may be written below a picture."""


def annotated(picture: Image.Image, scored: Sequence[tuple[str, float]]) -> Image.Image:
    """The picture, RGB, and below it a bar for each class with its name and score.

    Args:
        picture: Of any size; one that is narrower than 240 pixels is enlarged.
        scored: Names and scores of 0 to 1, likeliest first.
    """
    picture = picture.convert("RGB")
    if picture.width < NARROWEST:
        height = max(1, round(picture.height * NARROWEST / picture.width))
        picture = picture.resize((NARROWEST, height), Image.Resampling.BICUBIC)
    size = max(13, min(picture.width // 28, 40))
    font = ImageFont.load_default(size)
    row, edge = round(1.7 * size), size // 2
    page = Image.new("RGB", (picture.width, picture.height + row * len(scored) + edge * bool(scored)), PAPER)
    page.paste(picture, (0, 0))
    draw = ImageDraw.Draw(page)
    for place, (name, score) in enumerate(scored):
        top = picture.height + edge // 2 + place * row
        width = page.width - 2 * edge
        draw.rectangle((edge, top + 2, edge + width, top + row - 3), fill=SOFT)
        draw.rectangle(
            (edge, top + 2, edge + max(1, round(width * min(max(score, 0.0), 1.0))), top + row - 3), fill=BAR
        )
        number = f"{100 * score:.1f} %"
        right = page.width - edge - size // 3
        told = fitting(f"{name}", font, right - draw.textlength(number, font) - 2 * size)
        draw.text((edge + size // 3, top + row / 2), told, INK, font, anchor="lm")
        draw.text((right, top + row / 2), number, INK, font, anchor="rm")
    return page


def fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """The text on one line, cut to a width in pixels."""
    text = " ".join(text.split())[:LONGEST]
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
