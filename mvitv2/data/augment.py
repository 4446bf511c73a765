"""Training transforms: the published augmentation from timm, and a light one that needs Pillow and torch alone.

Both are frozen data and draw from the global generators of ``random``, NumPy and torch; under
:func:`mvitv2.data.samples.seeded` they are repeatable.
"""

import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from mvitv2.data.transforms import cropped, in_channels, normalised
from mvitv2.preprocessing import Preprocessing

_ERASE_MODES = ("const", "rand", "pixel")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What happens to a training picture; the defaults are the authors' (mvit ``configs``, T/S/B from scratch).

    Raises:
        ValueError: A field is out of range.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    """Part of the picture's area that a random crop takes, least and most."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width by height of a random crop, least and most."""
    flip: float = 0.5
    """Probability of left and right changing places."""
    vertical_flip: float = 0.0
    """Probability of top and bottom changing places."""
    policy: str | None = "rand-m9-n6-mstd0.5-inc1"
    """RandAugment, AutoAugment or AugMix in timm's notation; ``None`` for none."""
    color_jitter: float = 0.0
    """Strength of random brightness, contrast and saturation; also applied beside a policy, where timm drops it."""
    erase_probability: float = 0.25
    """Probability that a rectangle is erased after normalisation."""
    erase_mode: str = "pixel"
    """``"const"`` (0), ``"rand"`` (one normal colour) or ``"pixel"`` (normal noise)."""
    erase_count: int = 1
    """At most this many rectangles."""

    def __post_init__(self) -> None:
        """Refuse what timm would only fail on while training."""
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}={getattr(self, name)} must be two numbers above 0, the smaller first")
        if self.scale[1] > 1:
            raise ValueError(f"scale={self.scale} must not exceed 1: a crop is a part of the picture")
        for name in ("flip", "vertical_flip", "erase_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be a probability, 0 to 1")
        if self.color_jitter < 0 or self.erase_count < 1:
            raise ValueError(f"color_jitter={self.color_jitter} must be >= 0, erase_count={self.erase_count} >= 1")
        if self.erase_mode not in _ERASE_MODES:
            raise ValueError(f"erase_mode={self.erase_mode!r} must be one of {list(_ERASE_MODES)}")
        if self.policy is not None and self.policy.split("-")[0] not in _POLICIES:
            raise ValueError(f"policy={self.policy!r} must start with one of {list(_POLICIES)}, as timm writes them")


_POLICIES = ("rand", "augmix", "original", "originalr", "v0", "v0r", "3a")

AUTHORS = Augmentation()
"""ImageNet-1K from scratch: RandAugment 9/6, random erasing 0.25 (mixup and cutmix work on batches, elsewhere)."""
PLAIN = Augmentation(policy=None, erase_probability=0.0)
"""Random crops and flips alone: linear probes and short fine-tuning."""


@dataclass(frozen=True)
class TrainTransform:
    """A picture to an augmented tensor by timm's transforms: the extra ``train``.

    Equal to ``timm.data.create_transform(is_training=True, ...)`` number for number under one seed.
    """

    preprocessing: Preprocessing
    augmentation: Augmentation = AUTHORS

    def __post_init__(self) -> None:
        """Fail here rather than in a worker."""
        if self.preprocessing.size is None:
            raise ValueError("training on crops needs a size in the preprocessing, got size=None (detection)")
        _stages(self.preprocessing, self.augmentation)

    def __call__(self, image: Image.Image) -> Tensor:
        """``image`` as ``(C, H, W)`` float32. Gray models see colour augmentation before it becomes gray."""
        erase = _stages(self.preprocessing, self.augmentation)[1]
        picture = drawn(image, self.preprocessing, self.augmentation)
        if self.preprocessing.channels == "gray":
            picture = picture.convert("L")
        return erase(normalised(picture, self.preprocessing))


def drawn(image: Image.Image, preprocessing: Preprocessing, augmentation: Augmentation) -> Image.Image:
    """``image`` in RGB, cropped, flipped and changed by the policy: all that is done before it is a tensor."""
    return _stages(preprocessing, augmentation)[0](in_channels(image, "rgb"))


@dataclass(frozen=True)
class ShiftTransform:
    """The evaluation picture moved by up to ``shift`` pixels each way, its edge repeated, and perhaps flipped.

    For small pictures such as digits, which random crops and RandAugment would make unreadable.
    """

    preprocessing: Preprocessing
    shift: int = 2
    flip: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.preprocessing.size is None or self.shift < 0 or not 0 <= self.flip <= 1:
            raise ValueError(
                f"shift={self.shift} must be >= 0, flip={self.flip} within 0..1, and the preprocessing needs a size "
                f"(it has {self.preprocessing.size})"
            )

    def __call__(self, image: Image.Image) -> Tensor:
        """``image`` as ``(C, H, W)`` float32."""
        picture = cropped(in_channels(image, self.preprocessing.channels), self.preprocessing)
        down, right = (random.randint(-self.shift, self.shift) for _ in range(2))
        picture = shifted(picture, down, right)
        if random.random() < self.flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return normalised(picture, self.preprocessing)


def shifted(image: Image.Image, down: int, right: int) -> Image.Image:
    """``image`` moved by whole pixels; its edge pixels are repeated where nothing was."""
    pixels = np.asarray(image)
    rows = np.clip(np.arange(image.height) - down, 0, image.height - 1)
    columns = np.clip(np.arange(image.width) - right, 0, image.width - 1)
    return Image.fromarray(pixels[rows][:, columns])


@functools.lru_cache(maxsize=32)
def _stages(
    preprocessing: Preprocessing, augmentation: Augmentation
) -> tuple[Callable[[Image.Image], Image.Image], Callable[[Tensor], Tensor]]:
    """timm's transforms on pictures and on normalised tensors. Built once per process: the records hold no closures."""
    timm = _timm()
    mean = preprocessing.mean * 3 if preprocessing.channels == "gray" else preprocessing.mean
    try:
        first, second, _ = timm.transforms_factory.transforms_imagenet_train(
            preprocessing.size,
            scale=augmentation.scale,
            ratio=augmentation.ratio,
            hflip=augmentation.flip,
            vflip=augmentation.vertical_flip,
            color_jitter=augmentation.color_jitter or None,
            force_color_jitter=True,
            auto_augment=augmentation.policy,
            interpolation=preprocessing.interpolation,
            mean=mean[::-1] if preprocessing.channels == "bgr" else mean,  # policies fill with the mean colour, in RGB
            separate=True,
        )
    except (AssertionError, ValueError, LookupError) as error:
        example = AUTHORS.policy
        raise ValueError(f"timm cannot read policy={augmentation.policy!r} ({error}); one is {example!r}") from error
    for step in second.transforms:
        for operation in operations(step):
            if operation.aug_fn is timm.auto_augment.posterize:
                operation.aug_fn = posterized
    erase: Any = timm.random_erasing.RandomErasing(
        augmentation.erase_probability,
        mode=augmentation.erase_mode,
        max_count=augmentation.erase_count,
        device="cpu",
    )
    return (lambda image: second(first(image))), erase if augmentation.erase_probability else (lambda tensor: tensor)


@functools.lru_cache(maxsize=64)
def policy_of(policy: str, shorter: int, interpolation: str) -> Callable[[Image.Image], Image.Image]:
    """A policy alone, for pictures whose shorter side is ``shorter``; gray where nothing was, as SlowFast fills.

    Raises:
        ValueError: timm cannot read it.
    """
    timm = _timm()
    method = timm.transforms.str_to_pil_interp(interpolation)
    fields = {"translate_const": int(shorter * 0.45), "interpolation": method}
    try:
        made = {"rand": timm.auto_augment.rand_augment_transform, "augmix": timm.auto_augment.augment_and_mix_transform}
        transform = made.get(policy.split("-", maxsplit=1)[0], timm.auto_augment.auto_augment_transform)(policy, fields)
    except (AssertionError, ValueError, LookupError) as error:
        raise ValueError(f"timm cannot read policy={policy!r} ({error}); one is {AUTHORS.policy!r}") from error
    for operation in operations(transform):
        if operation.aug_fn is timm.auto_augment.posterize:
            operation.aug_fn = posterized
    return transform


def posterized(image: Image.Image, bits_to_keep: int, **_: object) -> Image.Image:
    """``image`` with only the upper bits of each value; black with none.

    At full magnitude a policy keeps 0 bits, which Pillow before 13 drew black and Pillow 13 refuses, so that timm's
    own operation ends one run in a few hundred pictures.
    """
    if bits_to_keep >= 8:
        return image
    return ImageOps.posterize(image, bits_to_keep) if bits_to_keep > 0 else Image.new(image.mode, image.size)


def operations(step: Any) -> Iterator[Any]:
    """The single operations of one of timm's policies; nothing for any other transform."""
    yield from getattr(step, "ops", ())
    for part in getattr(step, "policy", ()):
        yield from part


def _timm() -> ModuleType:
    """``timm.data``.

    Raises:
        ImportError: timm, or a torchvision that fits this torch, is missing; the message names the extra.
    """
    try:
        import timm.data
        import timm.data.auto_augment
        import timm.data.random_erasing
        import timm.data.transforms
        import timm.data.transforms_factory
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision's operators were built for another torch
        raise ImportError(
            f"the published augmentation needs timm and a torchvision built for this torch ({error}): "
            "pip install 'mvitv2[train]'"
        ) from error
    return timm.data
