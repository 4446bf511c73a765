"""What travels with weights besides numbers: which model, from where, for which pixels, for which classes."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvitv2.core.config import MViTConfig
from mvitv2.preprocessing import (
    DETECTION,
    DETECTION_1024,
    IMAGENET,
    IMAGENET_TIMM,
    KINETICS,
    KINETICS_32X3,
    KINETICS_L,
    Preprocessing,
)
from mvitv2.variants import VARIANTS
from mvitv2.weights.detectors import detector_variant
from mvitv2.weights.opened import Opened, Source

WIDE_CLIP = 144
"""Channels of MViTv2-L, whose clip models were trained with ImageNet's statistics (they start from ImageNet-21k)."""
CLIPS = {KINETICS_32X3.num_frames: KINETICS_32X3}
"""Clips of other than 16 frames whose sampling rate the published models fix."""


def card_of(
    opened: Opened, source: Source, target: MViTConfig, notes: list[str], *, classes: int | None = None
) -> dict[str, Any]:
    """The card of a model that was loaded: plain JSON values.

    Args:
        opened: The file.
        source: Where it came from.
        target: The model's configuration; names of classes are dropped where their number is another.
        notes: What was changed on the way.
        classes: How many the model tells apart, where that is not the backbone's to say.
    """
    card = {name: value for name, value in opened.card.items() if name != "detector"}
    if len(card.get("classes", [])) != (target.num_classes if classes is None else classes):
        card["classes"] = []
    card["preprocessing"] = resized(stored_preprocessing(opened), opened.config, target).to_dict()
    name = None if isinstance(source, Mapping) else Path(os.fspath(source)).name
    card.setdefault("provenance", {"file": name, "dialect": opened.dialect.name, "variant": variant(opened)})
    return {**card, "loading": notes}


def resized(preprocessing: Preprocessing, source: MViTConfig, target: MViTConfig) -> Preprocessing:
    """The preprocessing for a model of another size, other frames, or gray pictures."""
    frames, size = target.input_size[:-2], pixels(target)
    if preprocessing.size is not None and pixels(source) != size:
        preprocessing = preprocessing.at(size)
    if preprocessing.num_frames is not None and not frames:
        preprocessing = replace(preprocessing, num_frames=None, sampling_rate=None, fps=None)
    elif frames and preprocessing.num_frames != frames[0]:
        preprocessing = replace(preprocessing, num_frames=frames[0])
    if target.in_channels == 1 and preprocessing.channels != "gray":
        mean, std = (sum(values) / len(values) for values in (preprocessing.mean, preprocessing.std))
        preprocessing = replace(preprocessing, channels="gray", mean=(mean,), std=(std,))
    return preprocessing


def pixels(config: MViTConfig) -> tuple[int, int]:
    """Height and width of the input."""
    height, width = config.input_size[-2:]
    return height, width


def preprocessing_of(opened: Opened) -> Preprocessing:
    """How pixels were prepared in training: from the file's own settings, or as its codebase does."""
    config, size = opened.config, pixels(opened.config)
    if opened.settings:
        return _of_settings(opened.settings, config)
    if config.rank == len("thw"):
        return usual_clips(config)
    if opened.detector is not None and opened.detector.square:
        return DETECTION_1024
    if opened.dialect.name == "detectron2" or opened.detector is not None:
        return DETECTION
    usual = IMAGENET_TIMM if opened.dialect.name == "timm" else IMAGENET
    return usual if usual.size == size else usual.at(size)


def usual_clips(config: MViTConfig) -> Preprocessing:
    """How clips are prepared for models like this one, where nothing else is known."""
    usual = KINETICS_L if config.embed_dim >= WIDE_CLIP else CLIPS.get(config.input_size[0], KINETICS)
    fitted = usual if usual.size == pixels(config) else usual.at(pixels(config))
    return replace(fitted, num_frames=config.input_size[0])


def stored_preprocessing(opened: Opened) -> Preprocessing:
    """How pixels were prepared for a file's weights: as its card says, else as its codebase does."""
    stored = opened.card.get("preprocessing")
    return Preprocessing.from_dict(stored) if stored else preprocessing_of(opened)


def _of_settings(settings: Mapping[str, Any], config: MViTConfig) -> Preprocessing:
    """``DATA`` of a configuration of facebookresearch/mvit or SlowFast."""
    data = settings["DATA"]
    crop = data.get("TEST_CROP_SIZE", config.input_size[-1])
    video = config.rank == len("thw")
    base = KINETICS if video else IMAGENET
    scales = data.get("TRAIN_JITTER_SCALES") or [256]
    resize = scales[0] if video else round(crop * 256 / 224)
    values = {
        **base.to_dict(),
        "size": [crop, crop],
        "resize": max(resize, crop),
        "mean": data.get("MEAN", list(base.mean)),
        "std": data.get("STD", list(base.std)),
    }
    if video:
        rate, fps = data.get("SAMPLING_RATE", 8), float(data.get("TARGET_FPS", 30))
        values |= {"num_frames": config.input_size[0], "sampling_rate": rate, "fps": fps}
    return Preprocessing.from_dict(values)


def architecture(config: MViTConfig) -> tuple[Any, ...]:
    """What makes two configurations the same variant: everything but size, classes and conventions."""
    blocks = tuple(
        (
            b.stage,
            b.dim_in,
            b.dim_attn,
            b.dim_out,
            b.num_heads,
            b.q_stride,
            b.kv_stride,
            b.q_kernel,
            b.kv_kernel,
            b.window,
        )
        for b in config.blocks
    )
    return (blocks, config.rank, config.class_token, config.abs_pos, config.position_axes, config.reversible)


def variant(opened: Opened) -> str | None:
    """The published detector or backbone that a checkpoint is, or ``None``."""
    backbone = variant_of(opened.config)
    return backbone if opened.detector is None else detector_variant(opened.detector, backbone)


def variant_of(config: MViTConfig) -> str | None:
    """The published variant a configuration is, or ``None``; of several, that with its size and classes."""
    same = [name for name, other in VARIANTS.items() if architecture(other) == architecture(config)]
    best = sorted(
        same,
        key=lambda n: (
            VARIANTS[n].num_classes != config.num_classes,
            VARIANTS[n].input_size != config.input_size,
            len(n),
        ),
    )
    return best[0] if best else None
