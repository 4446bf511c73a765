"""Training configurations of facebookresearch/mvit and SlowFast as recipes, with what could not be taken over."""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from mvitv2.core.config import MViTConfig
from mvitv2.train.recipe import Recipe, overridden
from mvitv2.variants import VARIANTS
from mvitv2.weights.peers.slowfast import official_config, slowfast_config

Flat = dict[str, Any]
"""Values by dotted key, such as ``"SOLVER.BASE_LR"``."""

FIELDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "DATA.TRAIN_CROP_SIZE": ("img_size", int),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": ("augmentation.scale", tuple),
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": ("augmentation.ratio", tuple),
    "DATA.RANDOM_FLIP": ("augmentation.flip", lambda on: 0.5 if on else 0.0),
    "DATA.MEAN": ("preprocessing.mean", tuple),
    "DATA.STD": ("preprocessing.std", tuple),
    "AUG.AA_TYPE": ("augmentation.policy", lambda policy: policy or None),
    "AUG.RE_PROB": ("augmentation.erase_probability", float),
    "AUG.RE_MODE": ("augmentation.erase_mode", str),
    "AUG.RE_COUNT": ("augmentation.erase_count", int),
    "AUG.NUM_SAMPLE": ("repeats", int),
    "MIXUP.ALPHA": ("mixup", float),
    "MIXUP.CUTMIX_ALPHA": ("cutmix", float),
    "MIXUP.PROB": ("mix_probability", float),
    "MIXUP.SWITCH_PROB": ("mix_switch", float),
    "MIXUP.LABEL_SMOOTH_VALUE": ("label_smoothing", float),
    "MODEL.ACT_CHECKPOINT": ("grad_checkpointing", bool),
    "MVIT.DROPPATH_RATE": ("drop_path", float),
    "RNG_SEED": ("seed", int),
    "SOLVER.BASE_LR": ("lr", float),
    "SOLVER.CLIP_GRAD_L2NORM": ("clip_norm", lambda most: most or None),
    "SOLVER.CLIP_GRAD_VAL": ("clip_value", lambda most: most or None),
    "SOLVER.COSINE_END_LR": ("min_lr", float),
    "SOLVER.LAYER_DECAY": ("layer_decay", float),
    "SOLVER.BETAS": ("betas", tuple),
    "SOLVER.MAX_EPOCH": ("epochs", int),
    "SOLVER.MOMENTUM": ("momentum", float),
    "SOLVER.WARMUP_EPOCHS": ("warmup_epochs", float),
    "SOLVER.WARMUP_START_LR": ("warmup_lr", float),
    "SOLVER.WEIGHT_DECAY": ("weight_decay", float),
    "TRAIN.CHECKPOINT_FILE_PATH": ("weights", lambda path: path or None),
    "TRAIN.MIXED_PRECISION": ("precision", lambda on: "fp16" if on else "fp32"),
}
"""Their key, our field, and what becomes of the value."""
CHOICES: dict[str, tuple[str, dict[Any, str]]] = {
    "SOLVER.OPTIMIZING_METHOD": ("optimizer", {"adamw": "adamw", "sgd": "sgd"}),
    "SOLVER.LR_POLICY": ("schedule", {"cosine": "cosine"}),
    "MODEL.LOSS_FUNC": ("loss", {"soft_cross_entropy": "cross_entropy", "cross_entropy": "cross_entropy"}),
}
"""Their key, our field, and the values that mean the same."""
SAME: dict[str, Any] = {
    "AUG.ENABLE": True,
    "AUG.COLOR_JITTER": None,
    "AUG.INTERPOLATION": "bicubic",
    "AUG.RE_SPLIT": False,
    "MIXUP.ENABLE": True,
    "MODEL.DROPOUT_RATE": 0.0,
    "SOLVER.COSINE_AFTER_WARMUP": True,
    "SOLVER.DAMPENING": 0.0,
    "SOLVER.NESTEROV": True,
    "SOLVER.ZERO_WD_1D_PARAM": True,
}
"""What we do in any case; ``None``: it has no effect there (colour jitter beside a policy)."""
SILENT = (
    *("MVIT.", "TEST.", "BN.", "DETECTION.", "TENSORBOARD.", "DATA_LOADER.", "BENCHMARK.", "LOG_", "DIST_"),
    *("OUTPUT_DIR", "NUM_GPUS", "NUM_SHARDS", "SHARD_ID", "TASK", "MODEL.ARCH", "MODEL.MODEL_NAME", "MODEL.HEAD_ACT"),
    *("MODEL.NUM_CLASSES", "TRAIN.ENABLE", "TRAIN.DATASET", "TRAIN.BATCH_SIZE", "TRAIN.EVAL_PERIOD", "DATA.TEST_"),
    *("TRAIN.CHECKPOINT_", "TRAIN.AUTO_RESUME", "DATA.PATH_TO_DATA_DIR", "DATA.INPUT_CHANNEL_NUM", "DATA.NUM_FRAMES"),
    *("SOLVER.BASE_LR_SCALE_NUM_SHARDS", "DATA.SAMPLING_RATE", "DATA.TRAIN_PCA_", "DATA.TRAIN_JITTER_SCALES"),
)
"""Beginnings of keys that say where and how a run is carried out, or are read with others."""


@dataclass(frozen=True)
class Understood:
    """A configuration as far as it could be taken over."""

    recipe: Recipe
    data: str
    """``DATA.PATH_TO_DATA_DIR``; empty where it is not said."""
    left_out: tuple[str, ...]
    """``KEY=value`` of everything that would make a difference and has no place here."""


def understood(cfg: Mapping[str, Any], *, name: str) -> Understood:
    """A recipe from a configuration.

    Args:
        cfg: As the YAML file has it, overrides applied.
        name: Of the recipe.

    Raises:
        ValueError: It is not of an MViT for images, or of none that is known here.
    """
    flat = {key: value for key, value in flattened(cfg).items() if value is not None}
    config = architecture(cfg, flat)
    model = variant_of(config)
    changes: dict[str, Any] = {
        "name": name,
        "source": f"{name}, read as facebookresearch/mvit or SlowFast",
        "model": model,
    }
    changes |= differences_of(config, VARIANTS[model])
    changes |= {field: make(flat[key]) for key, (field, make) in FIELDS.items() if key in flat}
    changes |= {f: same[flat[k]] for k, (f, same) in CHOICES.items() if k in flat and flat[k] in same}
    if flat.get("SOLVER.CLIP_GRAD_VAL"):
        changes["clip_norm"] = None
    changes |= batches(flat) | switched_off(flat)
    return Understood(overridden(Recipe(), changes), str(flat.get("DATA.PATH_TO_DATA_DIR", "")), tuple(strange(flat)))


def flattened(cfg: Mapping[str, Any], prefix: str = "") -> Flat:
    """Nested sections by dotted key; text such as ``"(3, 7, 7)"`` as what it stands for, as yacs reads it."""
    found: Flat = {}
    for key, value in cfg.items():
        if isinstance(value, Mapping):
            found |= flattened(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = literal(value)
    return found


def literal(value: Any) -> Any:
    """A number or a list that is written as text; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def with_overrides(cfg: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """A configuration with ``KEY VALUE KEY VALUE ...`` set.

    Raises:
        ValueError: A key has no value.
    """
    if len(words) % 2:
        raise ValueError(f"after the file come pairs of KEY VALUE; {words[-1]!r} has none. DATA stands before --cfg")
    made: dict[str, Any] = {k: dict(v) if isinstance(v, Mapping) else v for k, v in cfg.items()}
    for key, value in zip(words[::2], words[1::2], strict=True):
        section, _, inner = key.partition(".")
        if inner:
            made[section] = {**made.get(section, {}), inner: literal(value)}
        else:
            made[section] = literal(value)
    return made


def architecture(cfg: Mapping[str, Any], flat: Flat) -> MViTConfig:
    """The model of a configuration.

    Raises:
        ValueError: It is not said, or it is one of clips.
    """
    if "MVIT" not in cfg:
        raise ValueError(f"no configuration of an MViT: it has {', '.join(map(str, cfg))}, and no MVIT section")
    mvit = {key: literal(value) if not isinstance(value, Mapping) else value for key, value in cfg["MVIT"].items()}
    image = mvit.get("PATCH_2D", flat.get("DATA.NUM_FRAMES", 1) == 1)
    if not image:
        raise ValueError("the configuration is one of clips; `mvitv2 train --cfg` reads those of images")
    size = flat.get("DATA.TRAIN_CROP_SIZE", 224)
    given = {"MVIT": mvit, "MODEL": dict(cfg.get("MODEL", {})), "DATA": {"TRAIN_CROP_SIZE": size}}
    return (slowfast_config if "PATCH_2D" in mvit else official_config)(given)


def variant_of(config: MViTConfig) -> str:
    """The name of the published architecture with these blocks.

    Raises:
        ValueError: There is none.
    """

    def shape(one: MViTConfig) -> Any:
        blocks = tuple(replace(block, table_rows=None) for block in one.blocks)
        return blocks, one.class_token, one.abs_pos, one.rank

    for name, variant in VARIANTS.items():
        if shape(variant) == shape(config):
            return name
    raise ValueError(
        f"the configuration's {len(config.blocks)} blocks of {config.blocks[0].dim_in} channels are those of no "
        "published model; name the nearest with --model and its stages with --set stages.depths=..."
    )


def differences_of(config: MViTConfig, variant: MViTConfig) -> dict[str, Any]:
    """Fields in which an image model computes otherwise in training than the published one, sizes left out."""
    apart = {"blocks", "input_size", "num_classes", "drop_path", "table_resampling", "head_activation"}
    apart |= {"rel_pos_temporal"}  # of clips alone
    names = [field.name for field in fields(MViTConfig) if field.name not in apart]
    found = {n: getattr(config, n) for n in names if getattr(config, n) != getattr(variant, n)}
    return {"model_fields": found} if found else {}


def batches(flat: Flat) -> dict[str, Any]:
    """Their batch is one of a machine, ours one of a process; their rate is for a machine or for all of them."""
    batch, machines = flat.get("TRAIN.BATCH_SIZE", 64), flat.get("NUM_SHARDS", 1)
    scaled = flat.get("SOLVER.BASE_LR_SCALE_NUM_SHARDS", False)
    return {
        "batch_size": max(batch // max(flat.get("NUM_GPUS", 1), 1), 1),
        "lr_batch": batch if scaled else batch * machines,
    }


def switched_off(flat: Flat) -> dict[str, Any]:
    """What ``ENABLE: False`` means: there, labels are smoothed by the mixing alone."""
    found: dict[str, Any] = {}
    if flat.get("MIXUP.ENABLE") is False:
        found |= {"mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0}
    if flat.get("AUG.ENABLE") is False:
        found |= {"augmentation.policy": None, "augmentation.erase_probability": 0.0, "repeats": 1}
    return found


def strange(flat: Flat) -> list[str]:
    """``KEY=value`` of what makes a difference there and is not taken over."""
    known = {*FIELDS, *(k for k, (_, same) in CHOICES.items() if flat.get(k) in same)}
    known |= {key for key, ours in SAME.items() if ours is None or flat.get(key) == ours}
    known |= {"AUG.ENABLE", "MIXUP.ENABLE"}
    return [
        f"{k}={v}"
        for k, v in flat.items()
        if k not in known and (k in CHOICES or k in SAME or not k.startswith(SILENT))
    ]
