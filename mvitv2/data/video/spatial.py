"""Where clips are cropped and how frames are resized: SlowFast's and torchvision's rules, for ``(T, C, H, W)`` tensors.

SlowFast resizes floats without antialiasing and cuts the centre at ``ceil``; torchvision resizes and rounds to whole
levels, and cuts the centre at the even half. Both are kept, because released weights were measured with one or the
other; ``"antialiased"`` is SlowFast's with a filter, for files much larger than the crop.
"""

import math
import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mvitv2.preprocessing import Preprocessing

Size = tuple[int, int]
Box = tuple[int, int, int, int]
"""Top, left, height, width."""

_TRIES = 10


def resized(frames: Tensor, size: Size, rule: str) -> Tensor:
    """``frames`` bilinearly at ``(H, W)``: float32 of 0..255, whole levels by torchvision's rule."""
    values = frames.float()
    if tuple(frames.shape[-2:]) == size:
        return values
    values = F.interpolate(values, size, mode="bilinear", align_corners=False, antialias=rule == "antialiased")
    return values.round().clamp(0, 255) if rule == "torchvision" else values


def short_side(size: Size, target: int, rule: str = "slowfast") -> Size:
    """``(H, W)`` with the shorter side at ``target``, the longer one cut off to whole pixels by its own formula."""
    height, width = size
    if rule == "torchvision":  # transforms/functional.py, _compute_resized_output_size
        longer = int(target * max(size) / min(size))
    else:  # SlowFast transform.py, random_short_side_scale_jitter
        longer = math.floor(max(size) / min(size) * target)
    return (longer, target) if width < height else (target, longer)


def centre(size: Size, crop: Size, rule: str = "slowfast") -> Size:
    """``(top, left)`` of the centre crop."""
    halves = [(side - part) / 2 for side, part in zip(size, crop, strict=True)]
    top, left = (round(half) if rule == "torchvision" else math.ceil(half) for half in halves)
    return top, left


def crop_corners(size: Size, crop: Size, crops: int) -> list[Size]:
    """``(top, left)`` of one crop at the centre, or of three along the longer side (SlowFast ``uniform_crop``).

    Raises:
        ValueError: Neither one nor three.
    """
    top, left = centre(size, crop)
    if crops == 1:
        return [(top, left)]
    if crops != 3:
        raise ValueError(f"crops={crops} must be 1 (the centre) or 3 (along the longer side)")
    if size[0] > size[1]:
        return [(0, left), (top, left), (size[0] - crop[0], left)]
    return [(top, 0), (top, left), (top, size[1] - crop[1])]


def normalised(frames: Tensor, preprocessing: Preprocessing) -> Tensor:
    """``(T, C, H, W)`` of 0..255 to the numbers a model sees, ``(C, T, H, W)`` float32."""
    values = frames.float() / 255
    if preprocessing.channels == "bgr":
        values = values.flip(1)
    if preprocessing.channels == "gray":
        values = (values * values.new_tensor((0.299, 0.587, 0.114))[:, None, None]).sum(1, keepdim=True)
    mean, std = (values.new_tensor(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    return values.sub_(mean).div_(std).transpose(0, 1).contiguous()


def random_box(size: Size, scale: Sequence[float], ratio: Sequence[float]) -> Box:
    """An inception-style crop: a random part of the area, of a random shape (SlowFast ``_get_param_spatial_crop``)."""
    height, width = size
    for _ in range(_TRIES):
        area = random.uniform(scale[0], scale[1]) * height * width
        aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            return random.randint(0, height - tall), random.randint(0, width - wide), tall, wide
    shape = width / height
    if shape < min(ratio):
        tall, wide = min(height, round(width / min(ratio))), width
    elif shape > max(ratio):
        tall, wide = height, min(width, round(height * max(ratio)))
    else:
        tall, wide = height, width
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def random_side(low: int, high: int, *, inverse: bool) -> int:
    """A shorter side to resize to, uniform in it or in its inverse (SlowFast ``INV_UNIFORM_SAMPLE``)."""
    if inverse:
        return round(1 / random.uniform(1 / high, 1 / low))
    return round(random.uniform(low, high))


def cut(frames: Tensor, corner: Size, crop: Size) -> Tensor:
    """A part of ``(T, C, H, W)``; zeros where it reaches beyond."""
    (top, left), (height, width) = corner, frames.shape[-2:]
    below, right = top + crop[0] - height, left + crop[1] - width
    if min(top, left) < 0 or max(below, right) > 0:
        frames = F.pad(frames, (max(0, -left), max(0, right), max(0, -top), max(0, below)))
        top, left = max(0, top), max(0, left)
    return frames[..., top : top + crop[0], left : left + crop[1]]


def flipped(frames: Tensor, chance: float) -> Tensor:
    """Left and right changed places in all frames, or in none."""
    return frames.flip(-1) if chance and random.random() < chance else frames


def erased(clip: Tensor, probability: float, mode: str, count: int) -> Tensor:
    """Rectangles at the same place of every frame of ``(C, T, H, W)`` replaced (SlowFast ``RandomErasing``, cube)."""
    if not probability or random.random() >= probability:
        return clip
    height, width = clip.shape[-2:]
    number = 1 if count == 1 else random.randint(1, count)
    for _ in range(number):
        box = erased_box((height, width), number)
        if box is None:
            continue
        top, left, tall, wide = box
        part = clip[..., top : top + tall, left : left + wide]
        shape = {"const": None, "rand": (part.shape[0], 1, 1, 1), "pixel": tuple(part.shape)}[mode]
        part.copy_(torch.zeros_like(part) if shape is None else torch.randn(shape).to(part.device).expand_as(part))
    return clip


def erased_box(size: Size, count: int) -> Box | None:
    """A rectangle to erase: 2 % to a third of the area, height by width 0.3 to 1 / 0.3; ``None`` after ten misfits."""
    height, width = size
    for _ in range(_TRIES):
        area = random.uniform(0.02, 1 / 3) * height * width / count
        aspect = math.exp(random.uniform(math.log(0.3), math.log(1 / 0.3)))
        tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if wide < width and tall < height:
            return random.randint(0, height - tall), random.randint(0, width - wide), tall, wide
    return None
