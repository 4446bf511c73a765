"""The published recipes of detectors, and a small one of ours; :data:`mvitv2.train.recipes.RECIPES` has them by name.

The published runs count iterations of 64 pictures; epochs here are the nearest whole number of them on the data set
they are for. The learning rate falls to a tenth at the same parts of the run.
"""

from typing import Any

from mvitv2.train.detection_schedule import BATCH, BETAS, SCHEDULES, WEIGHT_DECAY

MULTI_SCALE: dict[str, Any] = {"kind": "multi_scale"}
JITTER: dict[str, Any] = {"kind": "large_scale_jitter", "pad": 128}
JITTER_PLAIN: dict[str, Any] = {"kind": "large_scale_jitter", "pad": None}

# 117 266 pictures of COCO train2017 have an object, 99 388 of LVIS v1
COCO_STEPS, LVIS_STEPS = 117266 // 64, 99388 // 64


def _published(
    model: str, config: str, augmentation: dict[str, Any], *, per_epoch: int = COCO_STEPS, **fields: Any
) -> dict[str, Any]:
    """Fields of a published run.

    Args:
        model: A name of :data:`mvitv2.tasks.detect.variants.DETECTORS`.
        config: Its file in detectron2's ``projects``.
        augmentation: What happens to pictures.
        per_epoch: Iterations of an epoch.
        **fields: Other fields.
    """
    plan = SCHEDULES[model]
    return {
        "source": f"detectron2 projects/{config}.py: {plan.iterations:,} iterations of {BATCH}",
        "task": "segment",
        "model": model,
        "augmentation": augmentation,
        "epochs": round(plan.iterations / per_epoch),
        "batch_size": 8,
        "accumulation": BATCH // 8,
        "lr": plan.rate,
        "lr_batch": BATCH,
        "schedule": "steps",
        "milestones": tuple(milestone / plan.iterations for milestone in plan.milestones),
        "warmup_epochs": plan.warmup / per_epoch,
        "warmup_lr": plan.start * plan.rate,
        "weight_decay": WEIGHT_DECAY,
        "betas": BETAS,
        "precision": "fp16",
        "clip_norm": None,
        "mixup": 0.0,
        "cutmix": 0.0,
        "label_smoothing": 0.0,
        "grad_checkpointing": model.endswith("_h"),
        **fields,
    }


def _mvitv2(name: str, model: str) -> dict[str, Any]:
    large = model.endswith(("_l", "_h"))
    return _published(model, f"MViTv2/configs/{name}", JITTER if large else MULTI_SCALE)


def _vitdet(size: str, epochs: int, data: str) -> dict[str, Any]:
    config = f"ViTDet/configs/{data.upper()}/cascade_mask_rcnn_mvitv2_{size}_in21k_{epochs}ep"
    lvis: dict[str, Any] = {"per_epoch": LVIS_STEPS, "sampling": "rare"} if data == "lvis" else {}
    return _published(f"vitdet_{data}_mvitv2_{size}", config, JITTER_PLAIN, **lvis)


_CASCADE = "cascade_mask_rcnn_mvitv2"
PUBLISHED: dict[str, dict[str, Any]] = {
    "mask_rcnn_mvitv2_t_3x": _mvitv2("mask_rcnn_mvitv2_t_3x", "mask_rcnn_mvitv2_t"),
    **{f"{_CASCADE}_{size}_3x": _mvitv2(f"{_CASCADE}_{size}_3x", f"{_CASCADE}_{size}") for size in "tsb"},
    f"{_CASCADE}_b_in21k_3x": _mvitv2(f"{_CASCADE}_b_in21k_3x", f"{_CASCADE}_b"),
    f"{_CASCADE}_l_in21k_lsj_50ep": _mvitv2(f"{_CASCADE}_l_in21k_lsj_50ep", f"{_CASCADE}_l"),
    f"{_CASCADE}_h_in21k_lsj_3x": _mvitv2(f"{_CASCADE}_h_in21k_lsj_3x", f"{_CASCADE}_h"),
    **{
        f"vitdet_{data}_mvitv2_{size}_{epochs}ep": _vitdet(size, epochs, data)
        for data, size, epochs in (
            ("coco", "b", 100), ("coco", "l", 50), ("coco", "h", 36),
            ("lvis", "b", 100), ("lvis", "l", 50), ("lvis", "h", 50),
        )
    },
}  # fmt: skip
"""Fields of :class:`mvitv2.train.recipe.Recipe` by the name of the recipe."""

SMALL: dict[str, Any] = {
    "source": "ours, for some ten to some thousand pictures from scratch, at 160 to 320 pixels on a CPU",
    "task": "segment",
    "model": "cascade_mask_rcnn_mvitv2_t",
    "stages": {"depths": (1, 1, 2, 1), "embed_dim": 24, "kv_stride": (4, 4), "window": 8},
    "model_fields": {"drop_path": 0.0, "input_size": (160, 160)},
    "detector": {
        "pyramid_channels": 48,
        "pyramid_norm": "LN",
        "head_norm": "LN",
        "proposals": {
            "convs": 1,
            "anchor_sizes": (16, 32, 64, 128, 256),
            "best_per_level": (200, 100),
            "best_per_image": (100, 50),
            "batch_per_image": 64,
        },
        "box_convs": (),
        "box_layers": (256,),
        "mask_convs": (48, 48),
        "mask_deconv": 48,
        "batch_per_image": 32,
    },
    "preprocessing": {"resize": 160, "longest": 320},
    "augmentation": {
        "kind": "multi_scale",
        "sides": (128, 144, 160, 176, 192),
        "longest": 320,
        "crop_sides": (160, 192, 224),
        "crop_range": (112, 192),
    },
    "epochs": 100,
    "batch_size": 4,
    "lr": 2e-3,
    "lr_batch": 4,
    "warmup_epochs": 5.0,
    "warmup_lr": 2e-5,
    "min_lr": 2e-5,
    "weight_decay": 0.01,
    "clip_norm": 10.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "label_smoothing": 0.0,
    "select": "last",
}
"""A detector of 2.7 million parameters that two CPU cores train."""
DETECTION_RECIPES = {**PUBLISHED, "detect_small": SMALL}
