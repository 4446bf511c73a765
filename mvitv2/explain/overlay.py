"""Maps as pictures."""

import numpy as np
from PIL import Image
from torch import Tensor

from mvitv2.explain.rollout import on_pixels

COLOURS = ((10, 7, 34), (80, 18, 123), (182, 54, 121), (251, 136, 97), (252, 253, 191))
"""From nothing to much: dark to light, readable without telling hues apart."""


def overlay(image: Image.Image, weights: Tensor, *, opacity: float = 0.65) -> Image.Image:
    """A picture with a map ``(H, W)`` of any size laid over it in colours, its strongest place lightest.

    Args:
        image: Any mode; the result is RGB of its size.
        weights: Not negative; scaled to its own range.
        opacity: Of the map where it is strongest; what weighs nothing only dims the picture.
    """
    picture = image.convert("RGB")
    drawn = on_pixels(weights.detach().cpu()[None], (picture.height, picture.width))[0]
    low, high = float(drawn.min()), float(drawn.max())
    even = high - low <= 1e-5 * max(abs(high), abs(low))  # no more than rounding
    strength = np.zeros(drawn.shape) if even else ((drawn - low) / (high - low)).numpy()
    stops = np.linspace(0, 1, len(COLOURS))
    heat = np.stack([np.interp(strength, stops, channel) for channel in zip(*COLOURS, strict=True)], axis=-1)
    alpha = (0.35 + (opacity - 0.35) * strength)[..., None]
    mixed = np.asarray(picture) * (1 - alpha) + heat * alpha
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))
