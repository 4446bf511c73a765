"""Whether a codebase can hold a model, and would compute the same with it.

A configuration is written in the codebase's own terms, read back by the reader that the parity tests hold to that
codebase, and compared: what comes back different is what it has no setting for.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch

from mvitv2.core.config import AXES, BlockConfig, MViTConfig, schedule
from mvitv2.core.relpos import displacement, table_rows
from mvitv2.core.stages import floor_tables
from mvitv2.weights.peers.detectron2 import detectron2_config, detectron2_settings
from mvitv2.weights.peers.openmmlab import (
    mmaction2_config,
    mmaction2_settings,
    mmpretrain_config,
    mmpretrain_settings,
)
from mvitv2.weights.peers.slowfast import official_config, pytorchvideo_config, slowfast_config
from mvitv2.weights.peers.slowfast_settings import official_settings, pytorchvideo_settings, slowfast_settings
from mvitv2.weights.peers.timm import timm_config, timm_settings
from mvitv2.weights.peers.torchvision import torchvision_config, torchvision_settings

IMAGES, CLIPS = "hw", "thw"
SHOWN = 4
"""Blocks that are told one by one where many differ."""
PARAMETERS = (
    "in_channels",
    "num_classes",
    "patch_kernel",
    "patch_stride",
    "patch_padding",
    "norm_stem",
    "class_token",
    "abs_pos",
    "rel_pos_spatial",
    "rel_pos_temporal",
    "pool_mode",
    "pool_first",
    "separate_qkv",
    "qkv_bias",
    "linear_bias",
    "mlp_ratio",
    "norm",
    "layer_scale",
    "final_norm",
    "output_norms",
    "reversible",
)
"""Fields without which there is no such model in a codebase."""
NUMBERS = ("residual_pooling", "position_scale", "window_padding", "norm_eps", "readout", "feed_output_norms")
"""Fields that change what a model computes and not what its parameters are."""
READ_BACK: dict[str, Callable[[MViTConfig], MViTConfig]] = {
    "official": lambda c: official_config(official_settings(c)),
    "slowfast": lambda c: slowfast_config(slowfast_settings(c)),
    "timm": lambda c: timm_config(*timm_settings(c)),
    "torchvision": lambda c: torchvision_config(None, torchvision_settings(c)),
    "detectron2": lambda c: detectron2_config(detectron2_settings(c)),
    "mmpretrain": lambda c: mmpretrain_config(mmpretrain_settings(c), c.num_classes),
    "mmaction2": lambda c: mmaction2_config(mmaction2_settings(c), c.num_classes),
    "pytorchvideo": lambda c: pytorchvideo_config(pytorchvideo_settings(c)),
}
AXES_OF = {
    "official": (IMAGES,),
    "slowfast": (IMAGES, CLIPS),
    "timm": (IMAGES,),
    "torchvision": (CLIPS,),
    "detectron2": (IMAGES,),
    "mmpretrain": (IMAGES,),
    "mmaction2": (CLIPS,),
    "pytorchvideo": (IMAGES, CLIPS),
}
JOINED = ("official", "timm", "torchvision", "detectron2", "mmpretrain", "mmaction2")
"""Codebases with one projection for queries, keys and values; three of ours are joined for them."""


def obstacles(config: MViTConfig, dialect: str) -> tuple[list[str], list[str]]:
    """Why a codebase cannot hold a model, and in what it would compute something else with its weights.

    Args:
        config: The model's.
        dialect: A key of :data:`mvitv2.weights.dialects.DIALECTS` other than our own.
    """
    if AXES[config.rank] not in AXES_OF[dialect]:
        kinds = {IMAGES: "images", CLIPS: "clips"}
        theirs, ours = kinds[AXES_OF[dialect][0]], kinds[AXES[config.rank]]
        return [f"it is for {theirs}, this model for {ours}"], []
    if dialect == "detectron2" and config.final_norm:
        return ["it is a backbone without classifier; load into a detection variant first, such as mvitv2_t_det"], []
    ours = comparable(as_written(config, dialect))
    try:
        theirs = comparable(READ_BACK[dialect](ours))
    except ValueError as error:
        return [f"its rules for widths and heads make no model of these blocks: {error}"], []
    other = [f"{n}={getattr(ours, n)!r}, there {getattr(theirs, n)!r}" for n in PARAMETERS if _differ(ours, theirs, n)]
    numbers = [f"{n}={getattr(ours, n)!r}, there {getattr(theirs, n)!r}" for n in NUMBERS if _differ(ours, theirs, n)]
    other += _blocks(ours, theirs) or _sizes(ours, theirs, dialect)
    return other, numbers + _orders(ours, theirs)


def as_written(config: MViTConfig, dialect: str) -> MViTConfig:
    """The configuration of the model that a file for a codebase holds."""
    return replace(config, separate_qkv=False) if dialect in JOINED else config


def comparable(config: MViTConfig) -> MViTConfig:
    """A configuration with one spelling of what is the same model."""
    same: dict[str, Any] = {}
    if not config.class_token and config.residual_pooling == "all":
        same["residual_pooling"] = "grid"
    if not config.num_classes:
        same["readout"] = "class_token" if config.class_token else "norm_mean"
    if config.rank == len(IMAGES):
        same["rel_pos_temporal"] = False
    if not any(block.window for block in config.blocks):
        same["window_padding"] = "attended"
    if not config.position_axes:
        same["position_scale"] = "code"
    if not config.output_norms:
        same["feed_output_norms"] = False
    return replace(config, **same)


def _differ(ours: MViTConfig, theirs: MViTConfig, name: str) -> bool:
    return getattr(ours, name) != getattr(theirs, name)


def _blocks(ours: MViTConfig, theirs: MViTConfig) -> list[str]:
    """Differences of single blocks; how they are counted into stages is no part of a model."""
    free = ("stage", "table_rows")
    names = [f.name for f in fields(BlockConfig) if f.name not in free]
    texts = [
        f"blocks[{i}].{name}={getattr(a, name)}, there {getattr(b, name)}"
        for i, (a, b) in enumerate(zip(ours.blocks, theirs.blocks, strict=True))
        for name in names
        if getattr(a, name) != getattr(b, name)
    ]
    return texts[:SHOWN] + ([f"and {len(texts) - SHOWN} more of its blocks' sizes"] if len(texts) > SHOWN else [])


def _sizes(ours: MViTConfig, theirs: MViTConfig, dialect: str) -> list[str]:
    """Tables of positions that have other lengths there."""
    if not ours.position_axes and ours.abs_pos == "none":
        return []
    if ours.input_size != theirs.input_size:
        return [
            f"input_size={ours.input_size}, there {theirs.input_size}: load the weights with such an img_size first"
        ]
    if ours.abs_pos != "none" and ours.abs_pos_grid != theirs.abs_pos_grid:
        return [f"absolute positions for {ours.abs_pos_grid} tokens, there {theirs.abs_pos_grid}"]
    here, there = rows_of(ours), _their_rows(theirs, dialect)
    places = [AXES[ours.rank].index(axis) for axis in ours.position_axes]
    for i, (a, b) in enumerate(zip(here, there, strict=True)):
        if [a[p] for p in places] != [b[p] for p in places]:
            return [
                f"position tables of block {i} have {a} rows, there {b}; load the weights at a multiple of 32 pixels"
            ]
    return []


def rows_of(config: MViTConfig) -> list[tuple[int, ...]]:
    """Rows of the position tables of every block, per axis."""
    return [
        spec.table_rows or tuple(table_rows(q, k) for q, k in zip(spec.q_grid, spec.kv_grid, strict=True))
        for spec in schedule(config)
    ]


def _their_rows(config: MViTConfig, dialect: str) -> list[tuple[int, ...]]:
    """What the codebase's own constructor gives them; torchvision's are square (``mvit.py``, ``max(input_size)``)."""
    if dialect == "torchvision":
        frames, *space = config.input_size
        config = replace(config, input_size=(frames, max(space), max(space)))
    return [block.table_rows or () for block in floor_tables(config).blocks]


def _orders(ours: MViTConfig, theirs: MViTConfig) -> list[str]:
    """Sizes at which the order of float32 sums decides which row a displacement gets."""
    if ours.displacement_order == theirs.displacement_order or not ours.position_axes:
        return []
    pairs = {pair for spec in schedule(ours) for pair in zip(spec.q_grid, spec.kv_grid, strict=True)}
    orders = (ours.displacement_order, theirs.displacement_order)
    for q, k in sorted(pairs):
        here, there = (displacement(q, k, order=order, device=torch.device("cpu")) for order in orders)
        if not torch.equal(here, there):
            return [f"displacement_order={orders[0]!r}, there {orders[1]!r}, which differ for {q} queries on {k} keys"]
    return []
