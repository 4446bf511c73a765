"""Every colour mode Pillow decodes, as 8-bit RGB: one rule per kind of picture, the same for training and prediction.

- Alpha (RGBA, LA, palette or colour-key transparency): laid over white, which is what people see in a browser.
  ``background=None`` drops it as ``convert("RGB")`` does, so that what lies hidden under transparent pixels shows.
- 16 bits per channel: the high byte, 0..65535 -> 0..255, which is Pillow's own rule for 16-bit RGB. Never clipped.
  12-bit TIFF likewise: 0..4095 -> 0..255.
- 32-bit integers and floats have no fixed white: floats within 0..1 are scaled by 255; within 0..255 both are taken as
  they are; integers within 0..65535 are 16-bit; anything else is stretched from its own minimum..maximum to 0..255.
  Values that are no number (NaN, infinities) are black.
- CMYK, YCbCr, Lab, HSV: Pillow's conversion (CMYK in JPEG is stored inverted, which Pillow undoes). Colour profiles
  are not applied: the peers do not, and their numbers are the reference.
"""

import numpy as np
from PIL import Image

WHITE = (255, 255, 255)

_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_BITS_PER_SAMPLE = 258  # TIFF tag


def to_rgb(image: Image.Image, background: tuple[int, int, int] | None = WHITE) -> Image.Image:
    """``image`` in mode RGB by the rules above.

    Args:
        image: A decoded picture of any mode.
        background: What lies behind transparent pixels; ``None`` drops alpha.
    """
    if image.mode in _DEEP_MODES:
        image = _deep_to_gray(image)
    if background is None or not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    # La and RGBa hold colours multiplied by alpha; Pillow undoes that only on the way to LA and RGBA
    image = image.convert({"La": "LA"}.get(image.mode, "RGBA")).convert("RGBA")
    behind = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(behind, image).convert("RGB")


def _deep_to_gray(image: Image.Image) -> Image.Image:
    """A one-channel picture of more than 8 bits as L, or as LA where a colour key makes some of it transparent."""
    values = np.asarray(image)
    gray = Image.fromarray(_eight_bits(values, image))
    key = image.info.get("transparency")
    if isinstance(key, int):
        gray.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return gray


def _eight_bits(values: np.ndarray, image: Image.Image) -> np.ndarray:
    """``values`` ``(H, W)`` of ``image`` as uint8 by the rules of this module."""
    if image.mode.startswith("I;16"):
        return (values >> (4 if _is_twelve_bit(image) else 8)).clip(0, 255).astype(np.uint8)
    if image.mode == "I" and image.format == "PPM":  # Pillow has scaled any maximum above 255 to 65535
        return (values >> 8).clip(0, 255).astype(np.uint8)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = float(values[finite].min()), float(values[finite].max())
    if image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    elif image.mode == "I" and low >= 0 and high <= 65535:
        return (values >> 8).astype(np.uint8)
    elif low == high:  # one value only: nothing to stretch
        return np.zeros(values.shape, np.uint8)
    scaled = (np.where(finite, values, low).astype(np.float64) - low) * (255 / (high - low))
    return np.where(finite, np.rint(scaled), 0).astype(np.uint8)


def _is_twelve_bit(image: Image.Image) -> bool:
    """Whether ``image`` is a TIFF of 12 bits per sample, which Pillow hands out unscaled in 16."""
    tags = getattr(image, "tag_v2", None)
    return tags is not None and tuple(tags.get(_BITS_PER_SAMPLE, ())) == (12,)
