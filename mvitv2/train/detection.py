"""Training a detector: from words (data with boxes, a recipe) to a job for the engine."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mvitv2.core.stages import detection
from mvitv2.data.detection.augment import KINDS, SceneTransform, resize_of
from mvitv2.data.detection.dataset import DetectionBatch, DetectionImages, detection_batch
from mvitv2.data.detection.open import open_detection
from mvitv2.data.detection.order import LVIS_THRESHOLD, DetectionOrder, detection_order, federated_weights
from mvitv2.preprocessing import DETECTION, DETECTION_1024, Preprocessing
from mvitv2.tasks.detect.config import DetectorConfig, ProposalConfig, Selection
from mvitv2.tasks.detect.detector import Detector, total
from mvitv2.tasks.detect.variants import ALIASES, DETECTORS
from mvitv2.tasks.detect_evaluation import evaluate_detector
from mvitv2.tasks.processes import current
from mvitv2.train.generators import own_generators
from mvitv2.train.job import Job
from mvitv2.train.objective import Loss
from mvitv2.train.order import order
from mvitv2.train.recipe import Recipe
from mvitv2.train.settings import Settings
from mvitv2.train.start import blocks_of
from mvitv2.train.values import near
from mvitv2.weights.detectors import detector_card
from mvitv2.weights.load import load_into
from mvitv2.weights.pretrained import pretrained_file, pretrained_release

WINDOW = 56
"""Tokens along a side of the first stage's windows in the published detectors; half as many in each stage after it."""


def detection_job(data: str | Path, recipe: Recipe, settings: Settings) -> Job:
    """Model, data and measures of a recipe on some data. The model's weights depend on the recipe's seed alone.

    Raises:
        mvitv2.data.labelled.DataError: The data cannot be used as it lies there.
        ValueError: The recipe makes no detector.
    """
    preprocessing = detector_preprocessing_for(recipe)
    training, validation = images_of(data, recipe, preprocessing)
    names = list(training.classes)
    with own_generators(recipe.seed):
        model = Detector(detector_config(recipe, len(names)))
    if recipe.weights is not None:
        load_into(model, file_of(recipe))
        model.card = {}
    if model.config.federated_classes:
        ask_rarely(model, training)
    metric = "mask_ap" if recipe.task == "segment" else "box_ap"
    return Job(
        model=model,
        dataset=training,
        objective=detection_loss,
        measure=measure_on(validation, recipe, settings),
        metric=metric,
        collate=detection_batch,
        order=sampled(training, recipe),
        card={
            "classes": names,
            "category_ids": list(training.annotations.category_ids),
            "preprocessing": preprocessing.to_dict(),
            "detector": detector_card(model.config),
        },
        data={
            "name": Path(data).name,
            "classes": len(names),
            "train_images": len(training),
            "val_images": len(validation),
            "fingerprint": fingerprint(training, validation),
        },
    )


def ask_rarely(model: Detector, training: DetectionImages) -> None:
    """Let a federated loss ask about classes that a picture is not labelled for as often as the data suggests."""
    weights = torch.from_numpy(federated_weights(training))
    for name, buffer in model.named_buffers():
        if name.endswith("fed_loss_cls_weights"):
            buffer.copy_(weights)


def file_of(recipe: Recipe) -> str | Path:
    """The weights that a recipe starts from; ``"pretrained"`` stands for the published file of its model.

    Raises:
        ValueError: There is no such file.
    """
    if recipe.weights != "pretrained":
        return str(recipe.weights)
    return pretrained_file(pretrained_release(recipe.model).name)


def images_of(
    data: str | Path, recipe: Recipe, preprocessing: Preprocessing
) -> tuple[DetectionImages, DetectionImages]:
    """Pictures to train on, and those to measure on: the same few where few are learnt by heart."""
    sides = {"side": preprocessing.resize, "longest": preprocessing.longest}
    transforms = {"train": train_transform(recipe, sides), "val": resize_of(preprocessing)}
    masks = recipe.task == "segment"
    found = open_detection(data, transforms, need=("train", "val"), masks=masks, on_error="skip")
    training = found["train"]
    if recipe.overfit_batches is None:
        return training, found["val"]
    few = order(len(training), seed=recipe.seed, epoch=0)[
        : recipe.overfit_batches * recipe.batch_size * recipe.accumulation
    ]
    return training.part(few, transforms["train"]), training.part(few, transforms["val"])


def train_transform(recipe: Recipe, sides: Mapping[str, Any]) -> SceneTransform:
    """What happens to training pictures.

    Args:
        recipe: Its augmentation; of the kind ``"resize"`` pictures are as when they are measured.
        sides: Of that, where the recipe does not say.

    Raises:
        ValueError: There is no such kind, or it has no such fields.
    """
    fields = {name: value for name, value in recipe.augmentation.items() if name != "kind"}
    kind = recipe.augmentation["kind"]
    fields = {**sides, **fields} if kind == "resize" else fields
    if kind not in KINDS:
        raise ValueError(f"augmentation.kind={kind!r} is not for detection; there are {', '.join(KINDS)}")
    try:
        return KINDS[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
    except TypeError as error:
        raise ValueError(f"augmentation of kind {kind!r} has no such field: {error}") from error


def detector_preprocessing_for(recipe: Recipe) -> Preprocessing:
    """How pictures are resized when the detector is measured and used: as published, with the recipe's changes."""
    base = DETECTION_1024 if recipe.model.startswith("vitdet") else DETECTION
    return Preprocessing.from_dict({**base.to_dict(), **recipe.preprocessing})


def detector_config(recipe: Recipe, num_classes: int) -> DetectorConfig:
    """The detector of a recipe: a published one, with other blocks, sizes and heads where the recipe says so.

    Raises:
        ValueError: There is no such detector, or its fields make none.
    """
    name = ALIASES.get(recipe.model, recipe.model)
    if name not in DETECTORS:
        raise ValueError(f"there is no detector {name!r}{near(name, DETECTORS)}; there are {', '.join(DETECTORS)}")
    config, backbone = DETECTORS[name], DETECTORS[name].backbone
    fields = dict(recipe.model_fields)
    if recipe.stages:
        shape = dict(recipe.stages)
        window = shape.pop("window", WINDOW)
        fields["blocks"] = detection(blocks_of(shape), window)
        fields.setdefault("output_norms", tuple(range(len(shape["depths"]))))
    if recipe.drop_path is not None:
        fields["drop_path"] = recipe.drop_path
    own = {key: _plain(value) for key, value in recipe.detector.items()}
    for key, kind in (("proposals", ProposalConfig), ("selection", Selection)):
        if isinstance(own.get(key), Mapping):
            own[key] = kind(**{k: _plain(v) for k, v in own[key].items()})
    try:
        own["backbone"] = replace(backbone, **{key: _plain(value) for key, value in fields.items()})
        return replace(config, num_classes=num_classes, masks=recipe.task == "segment", **own)
    except TypeError as error:
        raise ValueError(f"detector={recipe.detector} or model_fields={recipe.model_fields}: {error}") from error


def _plain(value: Any) -> Any:
    """Lists of a file as the tuples that configurations have."""
    return tuple(_plain(one) for one in value) if isinstance(value, list | tuple) else value


def detection_loss(model: nn.Module, batch: DetectionBatch, _place: int) -> Loss:
    """All losses of a batch, as if every picture had its share of them."""
    losses: Mapping[str, Tensor] = model(batch.images, batch.targets)
    return Loss(total(losses) * batch.num_samples, batch.num_samples)


def sampled(dataset: DetectionImages, recipe: Recipe) -> DetectionOrder:
    """The order of an epoch: pictures of one shape in one batch, rare classes more often where the recipe says so."""
    rare = LVIS_THRESHOLD if recipe.sampling == "rare" else None
    return detection_order(dataset, batch_size=recipe.batch_size, threshold=rare)


def measure_on(
    dataset: DetectionImages, recipe: Recipe, settings: Settings
) -> Callable[[Any, Callable[[int, int], None]], dict[str, float]]:
    """Figures of a model on the validation pictures, 0 to 1."""

    def measure(model: Any, told: Callable[[int, int], None]) -> dict[str, float]:
        found = evaluate_detector(
            model,
            dataset,
            batch_size=recipe.batch_size,
            workers=settings.workers,
            precision=recipe.precision,
            on_batch=told,
            processes=current(),
        )
        figures: dict[str, float] = {}
        for measured in filter(None, (found.box, found.mask)):
            for name in ("AP", "AP50", "AP75"):
                figures[f"{measured.kind}_{name.lower()}"] = measured.figures[name] or 0.0
        return figures | ({"val_unreadable": float(len(found.unreadable))} if found.unreadable else {})

    return measure


def fingerprint(*splits: DetectionImages) -> str:
    """Tells other data from the same: classes, and the boxes of every picture in order."""
    digest = hashlib.sha256("\0".join(splits[0].classes).encode())
    for one in splits:
        for values in (one.places, one.annotations.labels, one.annotations.boxes, one.annotations.starts):
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]
