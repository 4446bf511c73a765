"""How pixels become the numbers a model was trained on, as data that travels with the weights.

No checkpoint of any peer holds these numbers, and variants of one family differ in them (video L uses ImageNet's
statistics where S and B use 0.45 / 0.225), so they are written down once, here. This module imports nothing of ours.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

INTERPOLATIONS = ("bicubic", "bilinear")
CLIP_RULES = ("slowfast", "torchvision", "antialiased")
CHANNELS = MappingProxyType({"rgb": 3, "bgr": 3, "gray": 1})

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INCEPTION_MEAN, INCEPTION_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
KINETICS_MEAN, KINETICS_STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From a picture or clip of any size to normalised numbers; sizes in pixels, ``(H, W)``.

    Raises:
        ValueError: A field is out of range; all offending fields are named at once.
    """

    size: tuple[int, int] | None = (224, 224)
    """Centre crop the model sees; ``None`` keeps whatever the resize gives (detection)."""
    resize: int | tuple[int, int] | None = 256
    """Shorter side before the crop; a pair: the smallest picture of the same shape that covers it; ``None``: as is."""
    longest: int | None = None
    """The longer side never exceeds this (detection); ``None``: no limit."""
    interpolation: str = "bicubic"
    """Antialiased resampling, ``"bicubic"`` or ``"bilinear"``."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Subtracted per channel, of values in 0..1, in the order of ``channels``."""
    std: tuple[float, ...] = IMAGENET_STD
    """Divides per channel after the mean was taken off."""
    channels: str = "rgb"
    """``"rgb"``, ``"bgr"`` or ``"gray"`` (one input channel)."""
    num_frames: int | None = None
    """Frames of one clip; ``None`` for images."""
    sampling_rate: int | None = None
    """Distance of two frames at ``fps``; ``None`` with ``num_frames``: one frame from each of that many equal parts."""
    fps: float | None = None
    """Frames a second that ``sampling_rate`` counts in; ``None``: those of the file."""
    clip_rule: str = "slowfast"
    """How frames of clips are resized: one of :data:`CLIP_RULES` (:mod:`mvitv2.data.video.spatial`)."""

    def __post_init__(self) -> None:
        """Refuse what no transform could run, with every offending field."""
        wrong = list(_offences(self))
        if wrong:
            raise ValueError(f"preprocessing cannot be used: {'; '.join(wrong)}")

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values, every field; :meth:`from_dict` gives an equal record back."""
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in dataclasses.fields(self)
            for value in [getattr(self, field.name)]
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Preprocessing":
        """The record that ``values`` (a :meth:`to_dict`, maybe through JSON) describes; left-out fields are defaults.

        Raises:
            TypeError: ``values`` is no mapping.
            ValueError: Unknown keys (all are listed) or values out of range.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"preprocessing must be a mapping of field names to values, got {type(values).__name__}")
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(str(key) for key in values if key not in known)
        if unknown:
            raise ValueError(f"preprocessing has unknown keys {unknown}; known are {known}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})  # type: ignore[arg-type]

    @classmethod
    def from_crop_fraction(
        cls, size: tuple[int, int], fraction: float, *, interpolation: str = "bicubic", **fields: object
    ) -> "Preprocessing":
        """timm's form: the crop is ``fraction`` of the resized picture (timm/data/transforms_factory.py, ``crop_pct``).

        Args:
            size: ``(H, W)`` of the crop.
            fraction: In ``(0, 1]``; 0.9 for timm's MViTv2, 0.875 for the authors' 224 of 256.
            interpolation: As the field.
            **fields: Any other field.
        """
        return cls(size=size, interpolation=interpolation, **fields).with_crop_fraction(fraction)  # type: ignore[arg-type]

    def with_crop_fraction(self, fraction: float) -> "Preprocessing":
        """The same crop, of a picture that is resized to its size by ``fraction``, rounded down as timm does.

        Raises:
            ValueError: ``fraction`` is not in ``(0, 1]``, or there is no crop.
        """
        if not 0 < fraction <= 1:
            raise ValueError(f"crop fraction {fraction} must be above 0 and at most 1; timm's MViTv2 use 0.9")
        if self.size is None:
            raise ValueError("size=None keeps the whole picture; there is no crop to take a fraction of")
        height, width = (math.floor(side / fraction) for side in self.size)
        return dataclasses.replace(self, resize=height if height == width else (height, width))

    def at(self, size: int | tuple[int, int]) -> "Preprocessing":
        """The same rule for another crop: the resized picture keeps its ratio to the crop (256/224 -> 438/384)."""
        pair = (size, size) if isinstance(size, int) else size
        if self.size is None or self.resize is None:
            return dataclasses.replace(self, size=pair)
        old = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        height, width = (side * was // crop for side, was, crop in zip(pair, old, self.size, strict=True))
        return dataclasses.replace(self, size=pair, resize=height if height == width else (height, width))


def _offences(record: Preprocessing):
    """One sentence for each field of ``record`` that no transform could use."""
    for name in ("size", "resize"):
        value = getattr(record, name)
        sides = value if isinstance(value, tuple) else () if value is None else (value,)
        expected = "(H, W) or None" if name == "size" else "one side, (H, W) or None"
        lengths = (0, 2) if name == "size" else (0, 1, 2)
        if (isinstance(value, int) and name == "size") or len(sides) not in lengths or not all(map(_is_count, sides)):
            yield f"{name}={value!r} must be {expected} in whole pixels above 0"
    for name in ("longest", "num_frames", "sampling_rate"):
        value = getattr(record, name)
        if value is not None and not _is_count(value):
            yield f"{name}={value!r} must be a whole number above 0 or None"
    if record.interpolation not in INTERPOLATIONS:
        yield f"interpolation={record.interpolation!r} must be one of {list(INTERPOLATIONS)}"
    if record.clip_rule not in CLIP_RULES:
        yield f"clip_rule={record.clip_rule!r} must be one of {list(CLIP_RULES)}"
    yield from _statistics_offences(record)
    if record.sampling_rate is not None and record.num_frames is None:
        yield f"sampling_rate={record.sampling_rate} needs num_frames"
    if record.fps is not None and not (_is_number(record.fps) and record.fps > 0):
        yield f"fps={record.fps!r} must be a number above 0 or None"


def _statistics_offences(record: Preprocessing):
    """What is wrong with ``channels``, ``mean`` and ``std`` together."""
    if record.channels not in CHANNELS:
        yield f"channels={record.channels!r} must be one of {list(CHANNELS)}"
        return
    count = CHANNELS[record.channels]
    for name, low in (("mean", -math.inf), ("std", 0.0)):
        value = getattr(record, name)
        if not (isinstance(value, tuple) and len(value) == count and all(_is_number(v) and v > low for v in value)):
            kind = "numbers above 0" if name == "std" else "numbers"
            yield f"{name}={value!r} must be {count} {kind} for channels={record.channels!r}"


def _is_count(value: object) -> bool:
    """A whole number above 0 (``True`` is not one)."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    """A finite real number (``True`` is not one)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


IMAGENET = Preprocessing()
"""The authors' evaluation: shorter side 256, centre 224, bicubic (mvit ``datasets/imagenet.py``)."""
IMAGENET_TIMM = Preprocessing.from_crop_fraction((224, 224), 0.9)
"""timm's evaluation of the same weights: ``crop_pct`` 0.9, shorter side 248."""
INCEPTION = Preprocessing.from_crop_fraction((224, 224), 0.9, mean=INCEPTION_MEAN, std=INCEPTION_STD)
"""Mean and deviation 0.5, as timm writes for weights trained so."""
KINETICS = Preprocessing(
    interpolation="bilinear", mean=KINETICS_MEAN, std=KINETICS_STD, num_frames=16, sampling_rate=4, fps=30.0
)
"""Kinetics S 16x4: SlowFast's test setting."""
KINETICS_TORCHVISION = dataclasses.replace(KINETICS, clip_rule="torchvision")
"""torchvision's ``MViT_V2_S_Weights.transforms()``, which rounds resized frames to whole levels."""
KINETICS_32X3 = dataclasses.replace(KINETICS, num_frames=32, sampling_rate=3)
"""Kinetics B 32x3 (and MViTv1-B 32x3)."""
KINETICS_L = dataclasses.replace(
    KINETICS, size=(312, 312), resize=312, mean=IMAGENET_MEAN, std=IMAGENET_STD, num_frames=40, sampling_rate=3
)
"""Kinetics L 40x3 at 312: ImageNet's statistics, because it starts from ImageNet-21k weights."""
SSV2_S = dataclasses.replace(KINETICS, resize=224, sampling_rate=None, fps=None)
"""Something-Something v2 S: 16 equal parts of the clip. SlowFast reads frames as BGR and reverses the channels before
the model (``REVERSE_INPUT_CHANNEL``), which therefore sees RGB."""
SSV2_B = dataclasses.replace(SSV2_S, num_frames=32)
"""Something-Something v2 B: 32 equal parts."""
SSV2_L = dataclasses.replace(KINETICS_L, mean=IMAGENET_MEAN[::-1], std=IMAGENET_STD[::-1], sampling_rate=None, fps=None)
"""Something-Something v2 L: 40 equal parts at 312; ImageNet's statistics of RGB met frames in BGR order in training."""
DETECTION = Preprocessing(size=None, resize=800, longest=1333, interpolation="bilinear")
"""detectron2's test setting of the T/S/B detectors: shorter side 800, longer at most 1333."""
DETECTION_1024 = Preprocessing(size=None, resize=1024, longest=1024, interpolation="bilinear")
"""The large-scale-jitter detectors: the longer side 1024."""
DIGITS = Preprocessing(size=(32, 32), resize=32, mean=(0.309,) * 3, std=(0.349,) * 3)
"""scikit-learn's handwritten digits, drawn at 32 pixels; mean and deviation measured on all 1797."""

PRESETS = MappingProxyType(
    {
        "imagenet": IMAGENET,
        "imagenet_timm": IMAGENET_TIMM,
        "inception": INCEPTION,
        "kinetics": KINETICS,
        "kinetics_torchvision": KINETICS_TORCHVISION,
        "kinetics_32x3": KINETICS_32X3,
        "kinetics_l": KINETICS_L,
        "ssv2_s": SSV2_S,
        "ssv2_b": SSV2_B,
        "ssv2_l": SSV2_L,
        "detection": DETECTION,
        "detection_1024": DETECTION_1024,
        "digits": DIGITS,
    }
)
"""Every preset by name."""
