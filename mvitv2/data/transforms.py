"""Pictures to tensors for evaluation: a :class:`Preprocessing` record and a few pure functions that follow it.

Resizing and cropping are Pillow's, with the roundings of torchvision and timm, so that the numbers a released model
sees are theirs bit for bit. Training transforms are in :mod:`mvitv2.data.augment`.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mvitv2.data.colours import to_rgb
from mvitv2.preprocessing import Preprocessing

Size = tuple[int, int]

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

# A resized picture this many times longer than the crop is never made; the crop alone is drawn. A scan line of
# 1 x 3000 pixels would grow to 256 x 768000.
_LONG = 8


@dataclass(frozen=True)
class EvalTransform:
    """A picture of any mode and size to the tensor a model is evaluated on.

    Frozen and picklable: ``DataLoader`` workers get it as it is. A clip's frames go through it one by one.
    """

    preprocessing: Preprocessing

    def __call__(self, image: Image.Image) -> Tensor:
        """``image`` as ``(C, H, W)`` float32, resized, cropped at the centre and normalised.

        Raises:
            ValueError: Nothing bounds the resized picture and it would be absurdly long.
        """
        return normalised(
            cropped(in_channels(image, self.preprocessing.channels), self.preprocessing), self.preprocessing
        )


def in_channels(image: Image.Image, channels: str) -> Image.Image:
    """``image`` as RGB, or as L for ``"gray"``; transparency over white as everywhere (:mod:`mvitv2.data.colours`)."""
    rgb = to_rgb(image)
    return rgb.convert("L") if channels == "gray" else rgb


def resized_size(size: Size, preprocessing: Preprocessing) -> Size:
    """``(H, W)`` that a picture of ``size`` is resized to before the crop.

    Three roundings, each its peer's: a shorter side as torchvision's ``Resize``; a pair to cover as timm's
    ``ResizeKeepRatio``; with a limit on the longer side as detectron2's ``ResizeShortestEdge``.
    """
    height, width = size
    target = preprocessing.resize
    if target is None:
        return size
    if isinstance(target, tuple):
        ratio = min(height / target[0], width / target[1])
        return max(1, round(height / ratio)), max(1, round(width / ratio))
    if preprocessing.longest is not None:
        scale = target / min(size)
        scale = min(1.0, preprocessing.longest / (scale * max(size))) * scale
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    longer = int(target * max(size) / min(size))
    return (target, longer) if height <= width else (longer, target)


def cropped(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """``image`` resized, then its centre of ``preprocessing.size``; black borders where it is smaller than that."""
    height, width = resized_size((image.height, image.width), preprocessing)
    method = _RESAMPLING[preprocessing.interpolation]
    if preprocessing.size is None:
        if max(height, width) > _LONG * min(height, width) and preprocessing.longest is None:
            raise ValueError(
                f"a picture of {image.width} x {image.height} would be resized to {width} x {height}; "
                "set `longest` or `size` in its preprocessing"
            )
        return resized(image, (height, width), preprocessing.interpolation)
    crop_height, crop_width = preprocessing.size
    top, left = crop_corner((height, width), preprocessing.size)
    if height > _LONG * crop_height or width > _LONG * crop_width:
        box = (max(left, 0), max(top, 0), min(left + crop_width, width), min(top + crop_height, height))
        image = _drawn(image, (height, width), box, method)
        left, top = min(left, 0), min(top, 0)
    else:
        image = resized(image, (height, width), preprocessing.interpolation)
    return image.crop((left, top, left + crop_width, top + crop_height))


def crop_corner(size: Size, crop: Size) -> Size:
    """``(top, left)`` of the centre crop, negative where it reaches beyond; the roundings of torchvision's CenterCrop.

    Banker's rounding inside the picture, and the smaller half of the border first outside it.
    """
    top, left = (
        round((side - part) / 2) if side >= part else -((part - side) // 2)
        for side, part in zip(size, crop, strict=True)
    )
    return top, left


def normalised(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """``image`` (RGB or L) as ``(C, H, W)`` float32: values / 255, minus mean, by deviation, channels as declared."""
    pixels = torch.from_numpy(np.array(image))
    tensor = (pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)).contiguous().float().div_(255)
    if preprocessing.channels == "bgr":
        tensor = tensor.flip(0)
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    return tensor.sub_(mean).div_(std)


def denormalised(tensor: Tensor, preprocessing: Preprocessing) -> Image.Image:
    """The picture (RGB or L) that ``tensor`` ``(C, H, W)`` shows: what the model saw, for people to look at."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    values = tensor.detach().float().cpu() * std + mean
    if preprocessing.channels == "bgr":
        values = values.flip(0)
    pixels = (values.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def resized(image: Image.Image, size: Size, interpolation: str) -> Image.Image:
    """``image`` at ``(H, W)``; unchanged where it has that size already."""
    height, width = size
    return image if (image.height, image.width) == size else image.resize((width, height), _RESAMPLING[interpolation])


def _drawn(image: Image.Image, size: Size, box: tuple[int, int, int, int], method: Image.Resampling) -> Image.Image:
    """The part ``box`` (left, top, right, bottom) of ``image`` resized to ``(H, W)``, without making the rest.

    Equal to cutting it out of the whole, but for rounding, and for bicubic overshoot, which Pillow cuts off to 0..255
    between its two passes: here along the rows first; there, newer versions choose the order by the sizes.
    """
    left, top, right, bottom = box
    across, down = image.width / size[1], image.height / size[0]
    x, y = _window(left, right, across, image.width), _window(top, bottom, down, image.height)
    image = image.crop((x[0], y[0], x[1], y[1]))  # whole pixels, all that the filter can reach
    columns = (left * across - x[0], 0, min(right * across - x[0], image.width), image.height)
    rows = image.resize((right - left, image.height), method, box=columns)
    part = (0, top * down - y[0], rows.width, min(bottom * down - y[0], image.height))
    return rows.resize((rows.width, bottom - top), method, box=part)


def _window(start: int, stop: int, step: float, length: int) -> tuple[int, int]:
    """The source pixels that ``start..stop`` are drawn from, ``step`` apart: a bicubic filter reaches two steps out."""
    reach = math.ceil(2 * max(1.0, step)) + 1
    return max(0, math.floor(start * step) - reach), min(length, math.ceil(stop * step) + reach)
