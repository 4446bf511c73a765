"""Recipes for clips: SlowFast's as data, and ours, said to be ours.

Batches count files: SlowFast's repeated augmentation (``AUG.NUM_SAMPLE: 2``) draws two clips of each, as does
``augmentation.repeats`` here. Its rates are for one machine and grow with their number; here they grow with the batch.
"""

from typing import Any

from mvitv2.preprocessing import SSV2_L
from mvitv2.train.recipe import Recipe, overridden

SLOWFAST = "facebookresearch/SlowFast configs"
# configs/Kinetics/MVITv2_S_16x4.yaml and MVITv2_B_32x3.yaml: 16 files a machine at 1e-4, 16 machines
KINETICS = Recipe(
    name="k400_s",
    source=f"{SLOWFAST}/Kinetics/MVITv2_S_16x4.yaml",
    task="video",
    model="mvitv2_s_16x4",
    augmentation={"kind": "published", "repeats": 2},
    epochs=200,
    batch_size=16,
    lr=1e-4,
    lr_batch=16,
    warmup_epochs=30.0,
    warmup_lr=1e-6,
    min_lr=1e-6,
)
SEGMENTS: dict[str, Any] = {"sampling_rate": None, "fps": None}
"""One frame from each of equal parts."""
SSV2: dict[str, Any] = {
    "preprocessing": {**SEGMENTS, "size": (224, 224), "resize": 224},
    "augmentation": {"kind": "published", "jitter": (256, 320), "flip": 0.0},
    "epochs": 100,
    "optimizer": "sgd",
    "warmup_epochs": 3.0,
    "warmup_lr": 1e-4,
    "weight_decay": 1e-4,
    "clip_norm": None,
    "drop_path": 0.4,
}
SSV2_LARGE: dict[str, Any] = {
    "preprocessing": {**SEGMENTS, "size": (312, 312), "resize": 312, "mean": SSV2_L.mean, "std": SSV2_L.std},
    "augmentation": {"kind": "published", "jitter": (356, 446), "flip": 0.0},
    "img_size": 312,
    "epochs": 40,
    "batch_size": 8,
    "lr": 1.25e-3,
    "lr_batch": 8,
    "warmup_lr": 1e-6,
    "clip_norm": 2.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "drop_path": 0.75,
    "grad_checkpointing": True,
}
MASKFEAT: dict[str, Any] = {
    "task": "maskfeat",
    "model": "maskfeat_s_16x4",
    "augmentation": {"kind": "published", "scale": (0.5, 1.0), "policy": None, "erase_probability": 0.0},
    "epochs": 300,
    "batch_size": 32,
    "lr_batch": 32,
    "warmup_epochs": 10.0,
    "clip_norm": 0.02,
    "label_smoothing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
}
MASKFEAT_FT: dict[str, Any] = {
    "model": "maskfeat_s_16x4",
    "augmentation": {"kind": "published", "policy": "rand-m7-mstd0.5-inc1", "repeats": 2},
    "epochs": 100,
    "warmup_epochs": 20.0,
    "lr": 6e-4,
    "layer_decay": 0.75,
    "clip_norm": 5.0,
    "drop_path": 0.1,
}
LIGHT: dict[str, Any] = {
    "kind": "published",
    "scale": (0.5, 1.0),
    "policy": "rand-m7-n2-mstd0.5-inc1",
    "erase_probability": 0.1,
}
SMALL: dict[str, Any] = {
    "stages": {
        "depths": (1, 1, 2),
        "embed_dim": 32,
        "kernel": (3, 3, 3),
        "q_stride": (1, 2, 2),
        "kv_stride": (1, 4, 4),
    },
    "model_fields": {
        "drop_path": 0.0,
        "head_dropout": 0.0,
        "class_token": False,
        "readout": "norm_mean",
        "init": "image",
    },
    "img_size": 64,
    "preprocessing": {"size": (64, 64), "resize": 80, "num_frames": 8, "sampling_rate": 2, "fps": 10.0},
    # crops of one size, initial values of images: with crops of many sizes and SlowFast's values, 31 % of ten movements
    # were told after 7 epochs, with these 70 % (of 9) and 86 % (of 13)
    "augmentation": {
        "kind": "published",
        "jitter": (80, 80),
        "flip": 0.0,
        "policy": None,
        "erase_probability": 0.0,
    },
    "epochs": 13,
    "batch_size": 24,
    "lr": 2e-3,
    "lr_batch": 24,
    "warmup_epochs": 1.0,
    "min_lr": 1e-5,
    "label_smoothing": 0.05,
    "mixup": 0.0,
    "cutmix": 0.0,
    "select": "last",
}


def _recipe(name: str, source: str, **fields: Any) -> Recipe:
    return overridden(KINETICS, {"name": name, "source": source, **fields})


UNPUBLISHED = "no file was published; the numbers are those of K400"
B, L = "mvitv2_b_32x3", "mvitv2_l_40x3"
CLIP_RECIPES: tuple[Recipe, ...] = (
    KINETICS,
    _recipe("k400_b", f"{SLOWFAST}/Kinetics/MVITv2_B_32x3.yaml", model=B),
    _recipe(
        "k400_l",
        f"{SLOWFAST}/Kinetics/MVITv2_L_40x3_test.yaml for model, size and drop path; no training file was published, "
        "the rest is that of B. The released weights started from ImageNet-21k: give it weights",
        model=L,
        img_size=312,
        drop_path=0.75,
        mixup=0.0,
        cutmix=0.0,
        grad_checkpointing=True,
    ),
    _recipe("k600_b", f"{UNPUBLISHED} B; the paper reports 85.5 top-1 on K600", model=B),
    _recipe("k700_b", f"{UNPUBLISHED} B; the paper reports 76.6 top-1 on K700", model=B),
    _recipe("ssv2_s", f"{SLOWFAST}/SSv2/MVITv2_S_16x4.yaml; from weights of K400: give it weights", lr=2.5e-3, **SSV2),
    _recipe(
        "ssv2_b",
        f"{SLOWFAST}/SSv2/MVITv2_B_32x3.yaml; from weights of K400: give it weights",
        model=B,
        lr=1.5e-3,
        **SSV2,
    ),
    _recipe(
        "ssv2_l",
        f"{SLOWFAST}/SSv2/MVITv2_L_40x3.yaml; from weights of ImageNet-21k and K400: give it weights",
        model=L,
        **{**SSV2, **SSV2_LARGE},
    ),
    _recipe("maskfeat_s", f"{SLOWFAST}/masked_ssl/k400_MVITv2_S_16x4_MaskFeat_PT.yaml", **MASKFEAT),
    _recipe(
        "maskfeat_l",
        f"{SLOWFAST}/masked_ssl/k400_MVITv2_L_16x4_MaskFeat_PT.yaml; it says 300 epochs, the name of the released file "
        "800",
        **{**MASKFEAT, "model": "maskfeat_l_16x4"},
    ),
    _recipe(
        "maskfeat_s_ft",
        f"{SLOWFAST}/masked_ssl/k400_MVITv2_S_16x4_FT.yaml (the paper says 200 epochs and 5 of warm-up); from weights "
        "of MaskFeat's pre-training: give it weights",
        **MASKFEAT_FT,
    ),
    _recipe(
        "maskfeat_l_ft",
        f"{SLOWFAST}/masked_ssl/k400_MVITv2_L_16x4_FT.yaml; from weights of MaskFeat's pre-training: give it weights",
        **{
            **MASKFEAT_FT,
            "model": "maskfeat_l_16x4",
            "augmentation": {**MASKFEAT_FT["augmentation"], "repeats": 1},
            "epochs": 75,
            "warmup_epochs": 5.0,
            "warmup_lr": 1e-8,
            "min_lr": 1e-5,
            "layer_decay": 0.875,
            "drop_path": 0.2,
        },
    ),
    _recipe(
        "clips_fine_tune",
        "ours, for some hundred to some ten thousand clips; no peer publishes one for MViTv2. Give it weights",
        augmentation=LIGHT,
        epochs=30,
        batch_size=8,
        lr=2e-4,
        warmup_epochs=3.0,
        layer_decay=0.75,
        mixup=0.0,
        cutmix=0.0,
        ema_decay=0.999,
    ),
    _recipe(
        "ava",
        "ours, for AVA's form: crops of frames whose shorter side is 256 to 320, whole frames in tests, as SlowFast "
        "does; nobody published a recipe for MViTv2. Give it weights",
        task="actions",
        augmentation={"kind": "published", "jitter": (256, 320)},
        epochs=30,
        batch_size=8,
        lr=1e-4,
        lr_batch=8,
        warmup_epochs=2.0,
        layer_decay=0.75,
        loss="bce",
        label_smoothing=0.0,
        mixup=0.0,
        cutmix=0.0,
    ),
    _recipe("clips_small", "ours, for small sets of short clips from scratch, 64 pixels and 8 frames", **SMALL),
)
