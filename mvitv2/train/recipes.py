"""Published recipes as data, each with its source; and ours, said to be ours."""

from typing import Any

from mvitv2.train.clip_recipes import CLIP_RECIPES
from mvitv2.train.detection_recipes import DETECTION_RECIPES
from mvitv2.train.recipe import Recipe, overridden
from mvitv2.train.values import near

# mvit config/defaults.py and configs/MVITv2_{T,S,B}.yaml: 256 images a machine at 2.5e-4, so 2e-3 for 2048
AUTHORS = Recipe()
FINE_TUNE: dict[str, Any] = {
    "epochs": 30,
    "batch_size": 32,
    "lr": 5e-4,
    "warmup_epochs": 3.0,
    "layer_decay": 0.75,
    "mixup": 0.0,
    "cutmix": 0.0,
    "augmentation": {"kind": "published", "scale": (0.3, 1.0), "policy": "rand-m7-n2-mstd0.5-inc1"},
    "ema_decay": 0.999,
}
UNPUBLISHED = "ours: no peer publishes a recipe for it"
PRE_TRAIN: dict[str, Any] = {"epochs": 90, "warmup_epochs": 10.0, "select": "last"}
LARGER: dict[str, Any] = {
    "weights": "pretrained",
    "epochs": 30,
    "lr": 1e-5,
    "warmup_epochs": 2.0,
    "warmup_lr": 1e-7,
    "min_lr": 1e-7,
    "weight_decay": 1e-8,
    "mixup": 0.0,
    "cutmix": 0.0,
    "ema_decay": 0.9998,
}
"""On from weights of ImageNet, at more pixels: small rates, hardly any decay, as is the habit since DeiT and Swin."""
FROM_21K: dict[str, Any] = {**LARGER, "lr": 3e-5, "layer_decay": 0.8, "drop_path": 0.2}
PROBE: dict[str, Any] = {
    "freeze": ("backbone",),
    "layer_decay": 1.0,
    "lr": 2e-3,
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "augmentation": {"kind": "published", "scale": (0.3, 1.0), "policy": None, "erase_probability": 0.0},
    "ema_decay": None,
}
LOW_RANK: dict[str, Any] = {
    "adapters": {"rank": 8, "alpha": 16.0, "targets": ("qkv", "proj")},
    "layer_decay": 1.0,
    "lr": 2e-3,
}
SMALL_STAGES: dict[str, Any] = {"depths": (1, 1, 2), "embed_dim": 24, "kv_stride": (2, 2)}
LIGHT: dict[str, Any] = {
    "kind": "published",
    "scale": (0.5, 1.0),
    "policy": None,
    "color_jitter": 0.3,
    "erase_probability": 0.1,
}
"""Small models that see few pictures from scratch learn nothing for many epochs under the authors' augmentation."""
PHOTO_STAGES: dict[str, Any] = {"depths": (1, 2, 3, 1), "embed_dim": 48, "kv_stride": (4, 4)}


def _recipe(name: str, source: str, base: Recipe = AUTHORS, **fields: Any) -> Recipe:
    return overridden(base, {"name": name, "source": source, **fields})


RECIPES: dict[str, Recipe] = {
    r.name: r
    for r in (
        _recipe("imagenet_t", "facebookresearch/mvit configs/MVITv2_T.yaml", model="mvitv2_t"),
        _recipe("imagenet_s", "facebookresearch/mvit configs/MVITv2_S.yaml", model="mvitv2_s"),
        _recipe("imagenet_b", "facebookresearch/mvit configs/MVITv2_B.yaml", model="mvitv2_b"),
        _recipe(
            "imagenet_l",
            "facebookresearch/mvit configs/test/MVITv2_L_test.yaml for model and drop path; no training file was "
            "published, the rest is that of T, S and B",
            model="mvitv2_l",
        ),
        _recipe(
            "imagenet_v1_b",
            "SlowFast configs/ImageNet/MVIT_B_16_CONV.yaml, which has the numbers of MVITv2_T",
            model="mvitv1_b",
        ),
        _recipe("imagenet21k_b", UNPUBLISHED, model="mvitv2_b_cls_21k", **PRE_TRAIN),
        _recipe("imagenet21k_l", UNPUBLISHED, model="mvitv2_l_cls_21k", batch_size=64, **PRE_TRAIN),
        _recipe(
            "imagenet21k_h",
            UNPUBLISHED,
            model="mvitv2_h_cls_21k",
            batch_size=32,
            precision="bf16",
            grad_checkpointing=True,
            **PRE_TRAIN,
        ),
        _recipe("imagenet_b_from_21k", UNPUBLISHED, model="mvitv2_b_cls_21k", **FROM_21K),
        _recipe("imagenet_l_from_21k", UNPUBLISHED, model="mvitv2_l_cls_21k", batch_size=64, **FROM_21K),
        _recipe(
            "imagenet_h_from_21k",
            UNPUBLISHED,
            model="mvitv2_h_cls_21k",
            batch_size=32,
            precision="bf16",
            grad_checkpointing=True,
            **FROM_21K,
        ),
        _recipe("imagenet_b_384", UNPUBLISHED, model="mvitv2_b", img_size=384, batch_size=32, **LARGER),
        _recipe("imagenet_l_384", UNPUBLISHED, model="mvitv2_l", img_size=384, batch_size=16, **LARGER),
        _recipe(
            "imagenet_h_512",
            f"{UNPUBLISHED}. Give it the weights of imagenet_h_from_21k",
            model="mvitv2_h_cls",
            img_size=512,
            batch_size=8,
            precision="bf16",
            grad_checkpointing=True,
            **{**LARGER, "weights": None},
        ),
        _recipe(
            "fine_tune",
            "ours, for some hundred to some ten thousand images; no peer publishes one for MViTv2. Give it weights",
            **FINE_TUNE,
        ),
        _recipe(
            "linear_probe",
            "ours: the classifier alone, on features that stay as they are. Give it weights",
            **{**FINE_TUNE, **PROBE},
        ),
        _recipe(
            "lora",
            "ours, after arXiv 2106.09685: adapters of rank 8 and the classifier. Give it weights",
            **{**FINE_TUNE, **LOW_RANK},
        ),
        _recipe(
            "small",
            "ours, for one to some ten thousand pictures from scratch, at 64 to 128 pixels; measured in the README",
            stages=PHOTO_STAGES,
            model_fields={"drop_path": 0.1},
            img_size=96,
            augmentation=LIGHT,
            epochs=60,
            batch_size=32,
            lr=1e-3,
            lr_batch=64,
            warmup_epochs=5.0,
            warmup_lr=1e-6,
            min_lr=1e-5,
            mixup=0.0,
            cutmix=0.0,
            ema_decay=0.998,
            select="last",  # some hundred validation images tell good epochs apart no better than chance
        ),
        _recipe(
            "digits",
            "ours, for the built-in 8x8 digits at 32 pixels, from scratch",
            stages=SMALL_STAGES,
            model_fields={"drop_path": 0.0},
            img_size=32,
            preprocessing={"size": (32, 32), "resize": 32, "channels": "gray", "mean": (0.5,), "std": (0.5,)},
            augmentation={"kind": "shift", "shift": 3},
            epochs=24,
            batch_size=64,
            lr=2e-3,
            lr_batch=64,
            warmup_epochs=2.0,
            warmup_lr=1e-5,
            min_lr=2e-6,
            label_smoothing=0.02,
            mixup=0.0,
            cutmix=0.0,
            ema_decay=0.99,
            select="last",  # 270 validation images tell good epochs apart no better than chance
        ),
        *CLIP_RECIPES,
        *(_recipe(name, **fields) for name, fields in DETECTION_RECIPES.items()),
    )
}


def recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        ValueError: There is none of that name; those there are, are listed.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}{near(name, RECIPES)}; there are {', '.join(RECIPES)}")
    return RECIPES[name]
