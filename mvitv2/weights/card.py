"""What travels with weights besides numbers: which model, from where, for which pixels, for which classes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvitv2.core.config import MViTConfig
from mvitv2.preprocessing import DETECTION, IMAGENET, IMAGENET_TIMM, KINETICS, KINETICS_L, Preprocessing
from mvitv2.variants import VARIANTS
from mvitv2.weights.opened import Opened, Source

WIDE_CLIP = 144
"""Channels of MViTv2-L, whose clip models were trained with ImageNet's statistics (they start from ImageNet-21k)."""


def card_of(opened: Opened, source: Source, notes: list[str]) -> dict[str, Any]:
    """The card of a model that was loaded: plain JSON values."""
    card = dict(opened.card)
    card.setdefault("classes", [])
    card.setdefault("preprocessing", preprocessing_of(opened).to_dict())
    name = None if isinstance(source, Mapping) else Path(os.fspath(source)).name
    card.setdefault("provenance", {"file": name, "dialect": opened.dialect.name, "variant": variant_of(opened.config)})
    return {**card, "loading": notes}


def preprocessing_of(opened: Opened) -> Preprocessing:
    """How pixels were prepared in training: from the file's own settings, or as its codebase does."""
    config, size = opened.config, opened.config.input_size[-2:]
    if opened.settings:
        return _of_settings(opened.settings, config)
    if config.rank == len("thw"):
        usual = KINETICS_L if config.embed_dim >= WIDE_CLIP else KINETICS
        fitted = usual if usual.size == size else usual.at(size)
        return Preprocessing.from_dict({**fitted.to_dict(), "num_frames": config.input_size[0]})
    if opened.dialect.name == "detectron2":
        return DETECTION
    usual = IMAGENET_TIMM if opened.dialect.name == "timm" else IMAGENET
    return usual if usual.size == size else usual.at(size)


def _of_settings(settings: Mapping[str, Any], config: MViTConfig) -> Preprocessing:
    """``DATA`` of a configuration of facebookresearch/mvit or SlowFast."""
    data = settings["DATA"]
    crop = data.get("TEST_CROP_SIZE", config.input_size[-1])
    video = config.rank == len("thw")
    base = KINETICS if video else IMAGENET
    resize = data.get("TRAIN_JITTER_SCALES", [256])[0] if video else round(crop * 256 / 224)
    values = {
        **base.to_dict(),
        "size": [crop, crop],
        "resize": max(resize, crop),
        "mean": data.get("MEAN", list(base.mean)),
        "std": data.get("STD", list(base.std)),
    }
    if video:
        values |= {"num_frames": config.input_size[0], "sampling_rate": data.get("SAMPLING_RATE", 8), "fps": 30.0}
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
