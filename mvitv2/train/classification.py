"""Training a classifier of images: from words (a folder, a recipe) to a job for the engine."""

import copy
import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mvitv2.core.model import MViT
from mvitv2.data.augment import Augmentation, ShiftTransform, TrainTransform
from mvitv2.data.device_augment import CropTransform, DeviceAugmentation
from mvitv2.data.folder import Transform
from mvitv2.data.transforms import EvalTransform
from mvitv2.models import create_model
from mvitv2.preprocessing import CHANNELS, IMAGENET, Preprocessing
from mvitv2.tasks.datasets import datasets
from mvitv2.tasks.evaluation import evaluate
from mvitv2.tasks.processes import current
from mvitv2.train.generators import own_generators
from mvitv2.train.job import Job
from mvitv2.train.objective import Classification
from mvitv2.train.overfit import Part, few_batches
from mvitv2.train.recipe import Recipe
from mvitv2.train.settings import Settings
from mvitv2.train.start import blocks_of
from mvitv2.weights.load import load_model


def classification_job(data: str | Path, recipe: Recipe, settings: Settings) -> Job:
    """Model, data and measures of a recipe on some data. The model's weights depend on the recipe's seed alone."""
    start = weights_to_start_from(recipe)
    card = start.card if start else {}
    preprocessing = preprocessing_for(recipe, card)
    training, validation, order = images_of(data, recipe, preprocessing)
    names = list(training.class_names)
    with own_generators(recipe.seed):
        model = start_model(recipe, num_classes=len(names), channels=CHANNELS[preprocessing.channels])

    def at_size(size: int) -> Any:
        other = preprocessing_for(dataclasses.replace(recipe, img_size=size), card)
        return in_other_form(training, train_transform(recipe, other))

    return Job(
        model=model,
        dataset=training,
        objective=Classification(recipe, len(names), training.labels, augment=on_device(recipe, preprocessing)),
        measure=measure_on(validation, recipe, settings),
        dataset_at=at_size,
        order=order,
        labels=training.labels,
        card={"classes": names, "class_folders": list(training.classes), "preprocessing": preprocessing.to_dict()},
        data={
            "name": Path(data).name,
            "classes": len(names),
            "train_images": len(training),
            "val_images": len(validation),
            "fingerprint": fingerprint(names, training.labels, validation.labels),
        },
    )


def images_of(data: str | Path, recipe: Recipe, preprocessing: Preprocessing) -> tuple[Any, Any, Any]:
    """Training images, those to measure on, and the training images' own order; all few where few are learnt by heart.

    Raises:
        mvitv2.data.labelled.DataError: The data cannot be used as it lies there.
    """
    transforms = {"train": train_transform(recipe, preprocessing), "val": EvalTransform(preprocessing)}
    found = datasets(data, transforms, need=("train", "val"))
    training = found["train"]
    if recipe.overfit_batches is None:
        return training, found["val"], training.order
    few = few_batches(training, recipe)
    return Part(training, few), Part(training, few, transforms["val"]), None


def in_other_form(dataset: Any, transform: Transform) -> Any:
    """The same samples through another transform."""
    if isinstance(dataset, Part):
        return Part(dataset.dataset, dataset.indices, transform)
    other = copy.copy(dataset)
    other.transform = transform
    return other


def weights_to_start_from(recipe: Recipe) -> MViT | None:
    """The model in the file that a recipe starts from, as it is; ``None`` without one.

    Raises:
        ValueError: The recipe also asks for another architecture, or the file holds no classifier of images.
    """
    if recipe.weights is None:
        return None
    if recipe.stages or recipe.model_fields:
        raise ValueError(
            f"weights={recipe.weights!r} bring their own architecture; leave out stages={recipe.stages} and "
            f"model_fields={recipe.model_fields}"
        )
    if recipe.weights == "pretrained":
        model = create_model(recipe.model, pretrained=True)
    else:
        model = load_model(recipe.weights)
    if not isinstance(model, MViT) or model.config.rank != 2:
        raise ValueError(
            f"weights={recipe.weights!r} hold no backbone of images; train a classifier of images from one"
        )
    return model


def start_model(recipe: Recipe, *, num_classes: int, channels: int) -> MViT:
    """The model before the first step."""
    size = (recipe.img_size, recipe.img_size)
    rate: dict[str, Any] = {} if recipe.drop_path is None else {"drop_path": recipe.drop_path}
    if recipe.weights is not None and recipe.weights != "pretrained":
        model = load_model(recipe.weights, num_classes=num_classes, in_chans=channels, img_size=size, **rate)
    else:
        blocks = {"blocks": blocks_of(recipe.stages)} if recipe.stages else {}
        model = create_model(
            recipe.model,
            pretrained=recipe.weights == "pretrained",
            num_classes=num_classes,
            in_chans=channels,
            img_size=size,
            **{**recipe.model_fields, **rate, **blocks},
        )
    if not isinstance(model, MViT):
        raise ValueError(f"model={recipe.model!r} is no classifier")
    model.card = {}
    return model


def preprocessing_for(recipe: Recipe, card: dict[str, Any]) -> Preprocessing:
    """How pictures become numbers: as the weights were trained, else as for ImageNet, with the recipe's changes.

    At another size the resized picture keeps its ratio to the crop, unless the recipe says ``resize`` alone.
    """
    base = Preprocessing.from_dict(card["preprocessing"]) if card.get("preprocessing") else IMAGENET
    changes = recipe.preprocessing
    if "size" in changes:
        return Preprocessing.from_dict({**base.to_dict(), **changes}).at(recipe.img_size)
    return Preprocessing.from_dict({**base.at(recipe.img_size).to_dict(), **changes})


def train_transform(recipe: Recipe, preprocessing: Preprocessing) -> Transform:
    """What happens to training pictures.

    Raises:
        ValueError: The fields of ``recipe.augmentation`` are not those of its kind.
    """
    fields = {name: value for name, value in recipe.augmentation.items() if name != "kind"}
    kind = recipe.augmentation["kind"]
    makers: dict[str, Callable[..., Transform]] = {
        "device": lambda neighbours=0, **given: CropTransform(preprocessing, Augmentation(**given)),
        "published": lambda **given: TrainTransform(preprocessing, Augmentation(**given)),
        "shift": lambda **given: ShiftTransform(preprocessing, **given),
        "none": lambda: EvalTransform(preprocessing),
    }
    try:
        return makers[kind](**fields)
    except TypeError as error:
        raise ValueError(f"augmentation of kind {kind!r} has no such field: {error}") from error


def on_device(recipe: Recipe, preprocessing: Preprocessing) -> DeviceAugmentation | None:
    """What is left to be done to batches on their device; ``None`` where loading processes do everything.

    Raises:
        ValueError: The fields of ``recipe.augmentation`` are not those of its kind.
    """
    fields = {name: value for name, value in recipe.augmentation.items() if name != "kind"}
    if recipe.augmentation["kind"] != "device":
        return None
    neighbours = {"neighbours": fields.pop("neighbours")} if "neighbours" in fields else {}
    return DeviceAugmentation(preprocessing, Augmentation(**fields), **neighbours)


def measure_on(dataset: Any, recipe: Recipe, settings: Settings) -> Callable[..., dict[str, float]]:
    """Figures of a model on the validation images."""

    def measure(model: MViT, told: Callable[[int, int], None]) -> dict[str, float]:
        found = evaluate(
            model,
            dataset,
            batch_size=recipe.batch_size,
            workers=settings.workers,
            precision=recipe.precision,
            examples=0,
            on_batch=told,
            processes=current(),
        )
        figures = {"val_loss": found.loss, "top1": found.top1, "top5": found.top5, "mean_class": found.mean_class}
        return figures | ({"val_unreadable": len(found.unreadable)} if found.unreadable else {})

    return measure


def fingerprint(names: list[str], *labels: np.ndarray) -> str:
    """Tells other data from the same: classes, and the class of every image in order."""
    digest = hashlib.sha256("\0".join(names).encode())
    for one in labels:
        digest.update(np.ascontiguousarray(one, dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]
