"""Training a detector of actions in AVA's form: from words (a folder, a recipe) to a job for the engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvitv2.core.attend import reference
from mvitv2.core.model import MViT
from mvitv2.data.actions.boxes import AVA_CLIPS, CroppedFrames, WholeFrames
from mvitv2.data.actions.keyframes import ActionFiles, ActionSample, Keyframes, action_files
from mvitv2.data.samples import Unreadable
from mvitv2.data.video.transforms import ClipAugmentation
from mvitv2.kernels import use
from mvitv2.preprocessing import CHANNELS, Preprocessing
from mvitv2.tasks.actions import ActionMViT
from mvitv2.tasks.detected import evaluate_actions
from mvitv2.train.generators import own_generators
from mvitv2.train.job import Job
from mvitv2.train.objective import Loss
from mvitv2.train.order import Order
from mvitv2.train.recipe import Recipe
from mvitv2.train.settings import Settings
from mvitv2.train.start import started
from mvitv2.train.video import clip_preprocessing


@dataclass(frozen=True)
class ActionBatch:
    """``clips (B, C, T, H, W)``, ``boxes (K, 5)`` of (clip, x1, y1, x2, y2), ``actions (K, classes)``."""

    clips: Tensor
    boxes: Tensor
    actions: Tensor
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def num_samples(self) -> int:
        """``B``, without those that could not be read."""
        return len(self.clips)

    def to(self, device: torch.device, *, channels_last: bool = False) -> "ActionBatch":
        """The batch on a device; clips have no channels last."""
        clips, boxes, actions = (part.to(device, non_blocking=True) for part in (self.clips, self.boxes, self.actions))
        return ActionBatch(clips, boxes, actions, self.unreadable)

    def saved(self) -> dict[str, Any]:
        """Plain tensors, for a file that is looked into later."""
        return {"clips": self.clips, "boxes": self.boxes, "actions": self.actions}

    def finite(self) -> bool:
        """Whether all pixels are numbers."""
        return bool(self.clips.isfinite().all())


def collate_actions(items: Sequence[ActionSample | Unreadable]) -> ActionBatch:
    """Samples of one size to a batch."""
    good = [item for item in items if isinstance(item, ActionSample)]
    bad = tuple(item for item in items if isinstance(item, Unreadable))
    if not good:
        return ActionBatch(torch.empty(0), torch.empty(0, 5), torch.empty(0, 0), bad)
    numbered = [F.pad(item.boxes, (1, 0), value=float(place)) for place, item in enumerate(good)]
    clips = torch.stack([item.clip for item in good])
    return ActionBatch(clips, torch.cat(numbered), torch.cat([item.actions for item in good]), bad)


class ActionLoss:
    """A yes or no for each action of each box (SlowFast ``LOSS_FUNC: bce``): the mean over boxes and actions."""

    def __call__(self, model: nn.Module, batch: ActionBatch, place: int) -> Loss:
        """The loss of a batch, times its clips."""
        count = batch.num_samples
        logits = model(batch.clips, batch.boxes).float()
        return Loss(F.binary_cross_entropy_with_logits(logits, batch.actions) * count, count)


def actions_job(data: str | Path, recipe: Recipe, settings: Settings) -> Job:
    """Model, keyframes and AVA's measure of a recipe.

    Raises:
        mvitv2.data.labelled.DataError: The folder is not in AVA's form.
        ValueError: The recipe makes no such model.
    """
    preprocessing, files = clip_preprocessing(recipe), action_files(Path(data))
    training, validation = keyframes_of(files, recipe, preprocessing)
    names = files.classes
    with own_generators(recipe.seed):
        plain, _ = started(
            recipe,
            num_classes=len(names),
            channels=CHANNELS[preprocessing.channels],
            num_frames=preprocessing.num_frames or 1,
        )
    return Job(
        model=for_boxes(plain),
        dataset=training,
        objective=ActionLoss(),
        collate=collate_actions,
        measure=measure_on(validation, files.names, recipe, settings),
        metric="map",
        unit="keyframes",
        card=card_of(names, preprocessing, files.names),
        data={
            "name": Path(data).name,
            "classes": len(names),
            "train_images": len(training),
            "val_images": len(validation),
            "train_boxes": sum(len(f.boxes) for f in training.frames),
            "val_boxes": sum(len(f.boxes) for f in validation.frames),
        },
    )


def keyframes_of(files: ActionFiles, recipe: Recipe, preprocessing: Preprocessing) -> tuple[Keyframes, Keyframes]:
    """Keyframes to train on, and those to measure on: the same few where few are learnt by heart."""
    training = Keyframes(files, "train", preprocessing, CroppedFrames(preprocessing, augmentation_of(recipe)))
    whole = WholeFrames(preprocessing)
    if recipe.overfit_batches is None:
        return training, Keyframes(files, "val", preprocessing, whole, detected=True)
    few = [key.index for key in Order(len(training), recipe.seed).keys(0)]
    few = few[: recipe.overfit_batches * recipe.batch_size * recipe.accumulation]
    return training.part(few), Keyframes(files, "train", preprocessing, whole).part(few)


def augmentation_of(recipe: Recipe) -> ClipAugmentation:
    """Jitter, flip and colours of a recipe for boxes.

    Raises:
        ValueError: It has fields that boxes do not go along with.
    """
    given = {k: v for k, v in recipe.augmentation.items() if k != "kind"}
    if recipe.augmentation.get("kind") != "published":
        raise ValueError("actions in boxes are trained with augmentation.kind='published': jitter, flip, color_jitter")
    if unknown := sorted(set(given) - {"jitter", "flip", "color_jitter", "inverse_jitter"}):
        raise ValueError(f"augmentation of boxes has jitter, flip, color_jitter and inverse_jitter, not {unknown}")
    base = {"jitter": AVA_CLIPS.jitter, "policy": None, "erase_probability": 0.0}
    return ClipAugmentation(**{**base, **given})


def for_boxes(plain: MViT) -> ActionMViT:
    """The same model, to be trained on boxes."""
    if type(plain) is not MViT:
        raise ValueError(f"boxes are trained with a plain MViT, not with {type(plain).__name__}")
    with torch.device("meta"):
        model = use(ActionMViT(plain.config, reference), "auto")
    model.load_state_dict(plain.state_dict(), assign=True)
    return model


def card_of(names: Sequence[str], preprocessing: Preprocessing, counted: dict[int, str]) -> dict[str, Any]:
    """What travels with the weights."""
    return {
        "task": "actions",
        "classes": list(names),
        "measured_actions": sorted(counted),
        "preprocessing": preprocessing.to_dict(),
    }


def measure_on(
    dataset: Keyframes, names: dict[int, str], recipe: Recipe, settings: Settings
) -> Callable[..., dict[str, float]]:
    """AVA's measure of a model on the validation keyframes, whole frames."""

    def measure(model: MViT, told: Callable[[int, int], None]) -> dict[str, float]:
        found = evaluate_actions(
            model, dataset, names, workers=settings.workers, precision=recipe.precision, on_frame=told
        )
        figures = {"map": found.precision.mean(names)}
        return figures | ({"val_unreadable": len(found.unreadable)} if found.unreadable else {})

    return measure
