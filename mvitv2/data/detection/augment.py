"""What training does to a picture and its objects: the two published ways, and the resize of evaluation.

All are frozen data and draw from Python's generator; under :func:`mvitv2.data.samples.seeded` they are repeatable.
Roundings and the order of the steps are detectron2's, so that sizes equal its sizes for every input.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from mvitv2.data.detection.scene import Scene, Size, cropped, finished, flipped, padded, resized
from mvitv2.data.instances import Instances
from mvitv2.data.transforms import resized_size
from mvitv2.preprocessing import DETECTION, DETECTION_1024, Preprocessing

_LONGEST = 16
"""Pictures longer than so many times their width are not enlarged to be cropped: they would fill the memory."""


class SceneTransform(Protocol):
    """A picture in RGB and its objects to ``(3, H, W)`` uint8 and the objects in it."""

    def __call__(self, image: Image.Image, objects: Instances) -> tuple[Tensor, Instances]: ...


@dataclass(frozen=True, kw_only=True)
class MultiScale:
    """Shorter sides drawn from a list, half of the time after a random crop: MViTv2's T, S and B detectors.

    Raises:
        ValueError: A field is out of range.
    """

    sides: tuple[int, ...] = tuple(range(480, 801, 32))
    """Shorter sides, one of which is drawn."""
    longest: int | None = 1333
    """The longer side never exceeds this."""
    flip: float = 0.5
    """Probability of left and right changing places."""
    crop: float = 0.5
    """Probability of a crop before."""
    crop_sides: tuple[int, ...] = (400, 500, 600)
    """Shorter sides before the crop, one of which is drawn."""
    crop_range: tuple[int, int] = (384, 600)
    """Least and most of a crop's height and of its width, drawn each for itself; never more than there is."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        wrong = [name for name in ("sides", "crop_sides") if not _are_sides(getattr(self, name))]
        wrong += [name for name in ("flip", "crop") if not 0 <= getattr(self, name) <= 1]
        if not (_are_sides(self.crop_range) and len(self.crop_range) == 2 and self.crop_range[0] <= self.crop_range[1]):
            wrong.append("crop_range")
        if self.longest is not None and self.longest < 1:
            wrong.append("longest")
        _refuse(self, wrong, "sides are pixels above 0, probabilities within 0..1, a range has the smaller first")

    def __call__(self, image: Image.Image, objects: Instances) -> tuple[Tensor, Instances]:
        """Cropped, resized and flipped; boxes are cut at the edges."""
        scene = Scene(image, objects)
        if random.random() < self.crop and max(scene.size) <= _LONGEST * min(scene.size):
            scene = resized(scene, shorter_side(scene.size, random.choice(self.crop_sides), None))
            scene = self._cropped(scene)
        scene = resized(scene, shorter_side(scene.size, random.choice(self.sides), self.longest))
        if random.random() < self.flip:
            scene = flipped(scene)
        return finished(scene, boxes_from_masks=False)

    def _cropped(self, scene: Scene) -> Scene:
        """A part of drawn height and width, anywhere."""
        low, high = self.crop_range
        height, width = (random.randint(min(side, low), min(side, high)) for side in scene.size)
        top, left = random.randint(0, scene.size[0] - height), random.randint(0, scene.size[1] - width)
        return cropped(scene, top=top, left=left, size=(height, width))


@dataclass(frozen=True, kw_only=True)
class LargeScaleJitter:
    """A square cut out of a picture at a drawn scale (Ghiasi et al. 2021, arXiv 2012.07177): the large detectors.

    Raises:
        ValueError: A field is out of range.
    """

    size: int = 1024
    """Side of the square."""
    scale: tuple[float, float] = (0.1, 2.0)
    """Of the picture that just fits the square, least and most."""
    flip: float = 0.5
    """Probability of left and right changing places."""
    pad: int | None = 128
    """Value of the pixels that fill the square up (MViTv2); ``None``: the picture stays smaller (ViTDet)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        wrong = [name for name, good in (("size", self.size > 0), ("flip", 0 <= self.flip <= 1)) if not good]
        if not 0 < self.scale[0] <= self.scale[1]:
            wrong.append("scale")
        if self.pad is not None and not 0 <= self.pad <= 255:
            wrong.append("pad")
        _refuse(self, wrong, "size is pixels above 0, scale two numbers above 0, flip within 0..1, pad 0..255 or none")

    def __call__(self, image: Image.Image, objects: Instances) -> tuple[Tensor, Instances]:
        """Flipped, scaled and cut; boxes are drawn anew around what is left of the masks."""
        scene = Scene(image, objects)
        if random.random() < self.flip:
            scene = flipped(scene)
        scene = resized(scene, fitted(scene.size, self.size, random.uniform(*self.scale)))
        share = random.random()  # one number places the crop along both axes
        size: Size = (min(scene.size[0], self.size), min(scene.size[1], self.size))
        top, left = (int(np.round((side - part) * share)) for side, part in zip(scene.size, size, strict=True))
        scene = cropped(scene, top=top, left=left, size=size)
        if self.pad is not None:
            scene = padded(scene, (self.size, self.size), self.pad)
        return finished(scene, boxes_from_masks=True)


@dataclass(frozen=True, kw_only=True)
class Resize:
    """The resize of evaluation, without any chance in it."""

    side: int = 800
    """Shorter side."""
    longest: int | None = 1333
    """The longer side never exceeds this."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        sides = (("side", self.side), ("longest", self.longest))
        _refuse(self, [name for name, side in sides if side is not None and side < 1], "sides are pixels above 0")

    def __call__(self, image: Image.Image, objects: Instances) -> tuple[Tensor, Instances]:
        """Resized; boxes are cut at the edges."""
        scene = Scene(image, objects)
        scene = resized(scene, shorter_side(scene.size, self.side, self.longest))
        return finished(scene, boxes_from_masks=False)


def resize_of(preprocessing: Preprocessing) -> Resize:
    """The resize that a record of a detector's preprocessing describes.

    Raises:
        ValueError: It crops, or does not resize by the shorter side.
    """
    if preprocessing.size is not None or not isinstance(preprocessing.resize, int):
        raise ValueError(
            f"size={preprocessing.size}, resize={preprocessing.resize} is no preprocessing of a detector; expected no "
            f"size and the shorter side, as size={DETECTION.size}, resize={DETECTION.resize}"
        )
    return Resize(side=preprocessing.resize, longest=preprocessing.longest)


def shorter_side(size: Size, side: int, longest: int | None) -> Size:
    """``(H, W)`` with the shorter side as asked for, unless the longer one becomes longer than ``longest``."""
    limit = longest if longest is not None else 2**31
    return resized_size(size, Preprocessing(size=None, resize=side, longest=limit, interpolation="bilinear"))


def fitted(size: Size, side: int, scale: float) -> Size:
    """``(H, W)`` at ``scale`` times the largest that fits a square of ``side``."""
    ratio = min(scale * side / length for length in size)
    return max(1, int(np.round(size[0] * ratio))), max(1, int(np.round(size[1] * ratio)))


def _are_sides(values: tuple[int, ...]) -> bool:
    return len(values) > 0 and all(value >= 1 for value in values)


def _refuse(record: object, wrong: list[str], expected: str) -> None:
    """Raise where fields are wrong."""
    if wrong:
        found = ", ".join(f"{name}={getattr(record, name)!r}" for name in wrong)
        raise ValueError(f"{type(record).__name__}: {found} cannot be used; {expected}")


KINDS: dict[str, Callable[..., SceneTransform]] = {
    "multi_scale": MultiScale,
    "large_scale_jitter": LargeScaleJitter,
    "resize": Resize,
}
"""Transforms by the name that recipes call them."""
TEST = {"detection": resize_of(DETECTION), "detection_1024": resize_of(DETECTION_1024)}
"""Resizes of evaluation, by the name of their preprocessing."""
