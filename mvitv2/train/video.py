"""Training a classifier of clips: from words (clips, a recipe) to a job for the engine."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvitv2.data.video.clips import TrainingClips, ViewedClips, collate_clips
from mvitv2.data.video.device import DeviceClipAugmentation
from mvitv2.data.video.open import open_clips
from mvitv2.data.video.sampling import Sampling
from mvitv2.data.video.transforms import ClipAugmentation, CropClip, EvalClip, TrainClip
from mvitv2.preprocessing import CHANNELS, Preprocessing
from mvitv2.train.classification import fingerprint, measure_on
from mvitv2.train.generators import own_generators
from mvitv2.train.job import Job
from mvitv2.train.objective import Classification
from mvitv2.train.overfit import Part, few_batches
from mvitv2.train.recipe import Recipe
from mvitv2.train.settings import Settings
from mvitv2.train.start import named_config, started
from mvitv2.weights.card import stored_preprocessing, usual_clips
from mvitv2.weights.opened import open_weights

CLIP_KINDS = ("published", "device", "none")
"""Of ``augmentation.kind``."""


def video_job(data: str | Path, recipe: Recipe, settings: Settings) -> Job:
    """Model, clips and measures of a recipe. The model's weights depend on the recipe's seed alone."""
    preprocessing = clip_preprocessing(recipe)
    found = clip_splits(data, recipe, preprocessing)
    names, training = list(found["train"].class_names), found["train"]
    augment = clips_on_device(recipe, preprocessing)
    with own_generators(recipe.seed):
        model, _ = started(
            recipe,
            num_classes=len(names),
            channels=CHANNELS[preprocessing.channels],
            num_frames=preprocessing.num_frames or 1,
        )
    return Job(
        model=model,
        dataset=training,
        objective=Classification(recipe, len(names), training.labels, augment=augment),
        labels=training.labels,
        order=None if recipe.overfit_batches else training.order,
        collate=collate_clips,
        measure=measure_on(found["val"], recipe, settings),
        unit="clips",
        card={
            "classes": names,
            "class_folders": list(training.classes),
            "preprocessing": preprocessing.to_dict(),
        },
        data=data_facts(data, found),
    )


def clip_splits(data: str | Path, recipe: Recipe, preprocessing: Preprocessing) -> dict[str, Any]:
    """Training clips at random, validation clips at the middle; a clip that cannot be read is counted and named.

    Where a few batches are learnt by heart, both are these: drawn as training draws them, and their middle.
    """
    sampling = Sampling.of(preprocessing)
    changed, repeats = train_clip(recipe, preprocessing)
    makers: dict[str, Callable[[Any], Any]] = {
        "train": lambda index: TrainingClips(index, sampling, changed, repeats=repeats, on_error="skip"),
        "val": lambda index: ViewedClips(index, sampling, EvalClip(preprocessing), on_error="skip"),
    }
    found: dict[str, Any] = dict(open_clips(data, makers, need=("train", "val")))
    if recipe.overfit_batches is None:
        return found
    few, middle = few_batches(found["train"], recipe), makers["val"](found["train"].index)
    return {"train": Part(found["train"], few), "val": Part(middle, few)}


def train_clip(recipe: Recipe, preprocessing: Preprocessing) -> tuple[Callable[..., Any], int]:
    """What happens to training clips, and how many clips are drawn from a file each time it is opened.

    Raises:
        ValueError: The fields of ``recipe.augmentation`` are not those of its kind.
    """
    kind, repeats = recipe.augmentation["kind"], int(recipe.augmentation.get("repeats", 1))
    if kind not in CLIP_KINDS:
        raise ValueError(f"augmentation.kind={kind!r} is of pictures; of clips use one of {', '.join(CLIP_KINDS)}")
    if kind == "none":
        if fields := sorted(set(recipe.augmentation) - {"kind", "repeats"}):
            raise ValueError(f"augmentation of kind 'none' has no fields {fields}")
        return FirstView(preprocessing), repeats
    return (TrainClip if kind == "published" else CropClip)(preprocessing, clip_augmentation(recipe)), repeats


def clip_augmentation(recipe: Recipe) -> ClipAugmentation:
    """The fields of ``recipe.augmentation`` that say how a clip is changed.

    Raises:
        ValueError: There are others.
    """
    fields = {name: value for name, value in recipe.augmentation.items() if name not in ("kind", "repeats")}
    try:
        return ClipAugmentation(**fields)
    except TypeError as error:
        raise ValueError(f"augmentation of clips has no such field: {error}") from error


def clips_on_device(recipe: Recipe, preprocessing: Preprocessing) -> DeviceClipAugmentation | None:
    """What is left to be done to batches on their device; ``None`` where loading processes do everything.

    Raises:
        ValueError: The policy is not RandAugment.
    """
    if recipe.augmentation["kind"] != "device":
        return None
    return DeviceClipAugmentation(preprocessing, clip_augmentation(recipe))


class FirstView(EvalClip):
    """The centre of the frames, for training without augmentation: ``(C, T, H, W)``."""

    def __call__(self, frames: Any) -> Any:
        """``(T, 3, H, W)`` uint8 to ``(C, T, H, W)`` float32."""
        return super().__call__(frames)[0]


def clip_preprocessing(recipe: Recipe) -> Preprocessing:
    """How clips become numbers: as for the weights to start from, else as for the model, with the recipe's changes.

    Weights of images give their mean and deviation alone.
    """
    base = usual_clips(named_config(recipe))
    if recipe.weights not in (None, "pretrained"):
        stored = stored_preprocessing(open_weights(recipe.weights))
        if stored.num_frames is None:
            base = replace(base, mean=stored.mean, std=stored.std, channels=stored.channels)
        else:
            base = stored
    changes = recipe.preprocessing
    if "size" in changes:
        return Preprocessing.from_dict({**base.to_dict(), **changes}).at(recipe.img_size)
    return Preprocessing.from_dict({**base.at(recipe.img_size).to_dict(), **changes})


def data_facts(data: str | Path, found: dict[str, Any]) -> dict[str, Any]:
    """What the data is; a run goes on only with the same."""
    training, validation = found["train"], found["val"]
    return {
        "name": Path(data).name,
        "classes": len(training.classes),
        "train_images": len(training),
        "val_images": len(validation),
        "fingerprint": fingerprint(list(training.class_names), training.labels, validation.labels),
    }
