"""Training as timm does it: its data sets, loader, model, task, optimiser, schedule and average, in its script's order.

The script itself, ``train.py``, is in no wheel; this is what it calls, without logging and checkpoints.
"""

import contextlib
import time
from pathlib import Path
from typing import Any

import torch

from mvitv2.data.augment import Augmentation, operations, posterized
from mvitv2.preprocessing import Preprocessing
from mvitv2.train.recipe import Recipe


def model_of(recipe: Recipe, num_classes: int) -> Any:
    """timm's own MViTv2 with the stages of a recipe."""
    from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg

    found = recipe.stages
    depths = tuple(found["depths"])
    kind: Any = MultiScaleVitCfg
    config = kind(
        depths=depths,
        embed_dim=found["embed_dim"],
        num_heads=1,
        stride_q=((1, 1), *[(2, 2)] * (len(depths) - 1)),
        stride_kv_adaptive=tuple(found["kv_stride"]),
        expand_attn=True,
    )
    rate = recipe.model_fields.get("drop_path", 0.0) if recipe.drop_path is None else recipe.drop_path
    return MultiScaleVit(
        config, img_size=(recipe.img_size, recipe.img_size), num_classes=num_classes, drop_path_rate=rate
    )


def loaders_of(data: Path, recipe: Recipe, preprocessing: Preprocessing) -> tuple[Any, Any]:
    """Training and validation images through timm's loader, in this process."""
    from timm.data.auto_augment import posterize
    from timm.data.dataset_factory import create_dataset
    from timm.data.loader import create_loader

    fields = {name: value for name, value in recipe.augmentation.items() if name != "kind"}
    augmentation = Augmentation(**fields)
    size = (3, recipe.img_size, recipe.img_size)
    common: dict[str, Any] = {
        "input_size": size,
        "batch_size": recipe.batch_size,
        "interpolation": preprocessing.interpolation,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "num_workers": 0,
        "persistent_workers": False,
        "use_prefetcher": False,
        "device": torch.device("cpu"),
    }
    sets: list[Any] = [create_dataset("", root=str(data), split=split) for split in ("train", "val")]
    train = create_loader(
        sets[0],
        is_training=True,
        scale=augmentation.scale,
        ratio=augmentation.ratio,
        hflip=augmentation.flip,
        color_jitter=augmentation.color_jitter or 0.0,
        auto_augment=augmentation.policy,
        re_prob=augmentation.erase_probability,
        re_mode=augmentation.erase_mode,
        **common,
    )
    for part in sets[0].transform.transforms:
        for operation in operations(part):
            if operation.aug_fn is posterize:  # timm's fails with Pillow 13 once in a few hundred pictures
                operation.aug_fn = posterized
    return train, create_loader(sets[1], crop_pct=recipe.img_size / _short_side(preprocessing), **common)


def _short_side(preprocessing: Preprocessing) -> int:
    """Of a picture before the crop is taken, pixels."""
    resize = preprocessing.resize or 1
    return resize if isinstance(resize, int) else min(resize)


def train(data: Path, recipe: Recipe, preprocessing: Preprocessing, *, num_classes: int) -> dict[str, Any]:
    """Train timm's model by timm's means, one thread's process time counted.

    Returns:
        ``top1`` of the average after the last epoch, ``epochs``, ``cpu_seconds``, and ``steps``: seconds of each.
    """
    from timm.optim._optim_factory import create_optimizer_v2
    from timm.scheduler.scheduler_factory import create_scheduler_v2
    from timm.utils.model_ema import ModelEmaV3

    torch.manual_seed(recipe.seed)
    model = model_of(recipe, num_classes)
    loader, validation = loaders_of(data, recipe, preprocessing)
    rate = recipe.lr * recipe.batch_size / recipe.lr_batch
    optimizer = create_optimizer_v2(model, "adamw", lr=rate, weight_decay=recipe.weight_decay)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        num_epochs=recipe.epochs,
        warmup_epochs=int(recipe.warmup_epochs),
        warmup_lr=recipe.warmup_lr,
        min_lr=recipe.min_lr * recipe.batch_size / recipe.lr_batch,
        step_on_epochs=False,
        updates_per_epoch=len(loader),
    )
    mixed, lossy = targets_of(recipe, num_classes)
    average = ModelEmaV3(model, decay=recipe.ema_decay or 0.0, use_warmup=True)
    steps, updates = [], 0
    amp = torch.autocast("cpu", torch.bfloat16) if recipe.precision == "bf16" else contextlib.nullcontext()
    started = mark = time.process_time()
    for _ in range(recipe.epochs):
        model.train()
        for pixels, target in loader:
            images, labels = (pixels, target) if mixed is None else mixed(pixels, target)
            with amp:
                loss = lossy(model(images).float(), labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm or float("inf"))
            optimizer.step()
            average.update(model, step=updates)
            updates += 1
            if scheduler is not None:
                scheduler.step_update(num_updates=updates)
            now = time.process_time()
            steps.append(now - mark)
            mark = now
    seconds = time.process_time() - started
    top1 = measured(average.module, validation)
    return {"top1": top1, "epochs": recipe.epochs, "cpu_seconds": seconds, "steps": steps}


def targets_of(recipe: Recipe, num_classes: int) -> tuple[Any, Any]:
    """timm's mixing, if the recipe mixes, and the loss that goes with it."""
    from timm.data.mixup import Mixup
    from timm.loss.cross_entropy import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

    if not (recipe.mixup or recipe.cutmix):
        return None, LabelSmoothingCrossEntropy(recipe.label_smoothing)
    mixing = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=num_classes)
    return mixing, SoftTargetCrossEntropy()


def measured(model: Any, loader: Any) -> float:
    """Part of the validation images that a model names right."""
    right = seen = 0
    model.eval()
    with torch.inference_mode():
        for images, labels in loader:
            right += int((model(images).argmax(dim=1) == labels).sum())
            seen += len(labels)
    return right / seen
