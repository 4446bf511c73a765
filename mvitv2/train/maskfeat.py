"""MaskFeat's pre-training on clips or pictures, from words to a job for the engine; labels are not looked at."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvitv2.core.attend import reference
from mvitv2.core.config import MViTConfig, schedule
from mvitv2.core.grid import Grid
from mvitv2.core.masked import MaskedMViT, nearest, pretraining, token_stride
from mvitv2.data.device_augment import DeviceAugmentation
from mvitv2.data.samples import Batch, collate, sample_seed
from mvitv2.data.video.clips import collate_clips
from mvitv2.kernels import use
from mvitv2.preprocessing import CHANNELS
from mvitv2.tasks.evaluation import AUTOCAST, batches, evaluating
from mvitv2.tasks.hog import hog_targets, num_targets
from mvitv2.train.classification import images_of, on_device, preprocessing_for
from mvitv2.train.generators import own_generators
from mvitv2.train.job import Job
from mvitv2.train.masking import cube_mask
from mvitv2.train.objective import BATCH, Loss
from mvitv2.train.recipe import Recipe
from mvitv2.train.settings import Settings
from mvitv2.train.start import named_config
from mvitv2.train.video import clip_preprocessing, clip_splits, clips_on_device, data_facts

MASK = -3
"""Stands for a sample's index in the seed of a batch's masks."""
CELL_TOKENS = 2
"""Tokens per side of a mask's cell in clips, whose published masks have 7 x 7 cells for 14 x 14 tokens."""


def maskfeat_job(data: str | Path, recipe: Recipe, settings: Settings) -> Job:
    """Encoder, clips or pictures, and how much of the hidden gradients it tells.

    Raises:
        ValueError: The recipe names weights: pre-training goes on with ``--resume``, and starts from nothing else.
    """
    if recipe.weights is not None:
        raise ValueError(f"weights={recipe.weights!r}: MaskFeat's pre-training starts from fresh weights; leave it out")
    if named_config(recipe).rank == len("thw"):
        preprocessing = clip_preprocessing(recipe)
        found, augment = clip_splits(data, recipe, preprocessing), clips_on_device(recipe, preprocessing)
    else:
        preprocessing = preprocessing_for(recipe, {})
        augment = on_device(recipe, preprocessing)
        training, validation, _ = images_of(data, recipe, preprocessing)
        found = {"train": training, "val": validation}
    frames = {} if preprocessing.num_frames is None else {"num_frames": preprocessing.num_frames}
    size = (recipe.img_size, recipe.img_size)
    config = pretraining(
        named_config(recipe, img_size=size, in_chans=CHANNELS[preprocessing.channels], num_classes=0, **frames)
    )
    with own_generators(recipe.seed):
        model = use(MaskedMViT(config, num_targets(config), reference), "auto")
    masks = Masks(recipe, config)
    return Job(
        model=model,
        dataset=found["train"],
        objective=MaskFeat(masks, augment),
        order=None if recipe.overfit_batches else found["train"].order,
        collate=collate if config.rank == len("hw") else collate_clips,
        measure=measure_on(found["val"], masks, recipe, settings),
        metric="explained",
        unit="images" if config.rank == len("hw") else "clips",
        card={"preprocessing": preprocessing.to_dict(), "pretraining": "maskfeat"},
        data=data_facts(data, found),
    )


class Masks:
    """Masks for batches, a function of the run's seed and the batch's place alone.

    Args:
        recipe: Seed, ratio, cells.
        config: Of the encoder.
    """

    def __init__(self, recipe: Recipe, config: MViTConfig):
        self.seed, self.ratio, self.config = recipe.seed, recipe.mask_ratio, config
        self.window = recipe.mask_window or usual_window(config)
        if len(self.window) != config.rank:
            raise ValueError(f"mask_window={self.window} needs {config.rank} numbers, one per axis of the input")

    def __call__(self, count: int, place: int, device: torch.device) -> Tensor:
        """``(count, *window)`` bool."""
        random = Random(sample_seed(self.seed, place, MASK))
        masks = [torch.from_numpy(cube_mask(self.window, self.ratio, random)) for _ in range(count)]
        return torch.stack(masks).to(device, non_blocking=True)


def usual_window(config: MViTConfig) -> Grid:
    """Cells of a mask: a token of an image; of clips, every frame of tokens in squares of two by two."""
    grid = schedule(config)[-1].q_grid
    return grid if config.rank == len("hw") else (grid[0], *(max(n // CELL_TOKENS, 1) for n in grid[1:]))


class MaskFeat:
    """The mean squared error of the gradients told of hidden tokens (SlowFast ``MultipleMSELoss``).

    Args:
        masks: What is hidden.
        augment: Done to every batch first, on its device.
    """

    def __init__(self, masks: Masks, augment: DeviceAugmentation | None = None):
        self.masks, self.augment = masks, augment

    def __call__(self, model: nn.Module, batch: Batch, place: int) -> Loss:
        """The loss of a batch, times its samples."""
        pixels, count = batch.images, len(batch.images)
        if self.augment is not None:
            pixels = self.augment(pixels, seed=sample_seed(self.masks.seed, place, BATCH))
        told, truth = hidden(model, pixels, self.masks(count, place, pixels.device), self.masks.config)
        return Loss(F.mse_loss(told, truth) * count, count)


def hidden(model: nn.Module, pixels: Tensor, mask: Tensor, config: MViTConfig) -> tuple[Tensor, Tensor]:
    """What is told of the hidden tokens and what is true of them, ``(K, targets)`` each, float32."""
    told = model(pixels, mask).float()
    truth = hog_targets(pixels.float(), config).float()
    where = nearest(mask, last_grid(config, pixels)).flatten(1)
    return told[where], truth[where]


def last_grid(config: MViTConfig, pixels: Tensor) -> Grid:
    """Tokens that leave the encoder, for this input."""
    return tuple(n // s for n, s in zip(pixels.shape[2:], token_stride(config), strict=True))


def measure_on(dataset: Any, masks: Masks, recipe: Recipe, settings: Settings) -> Callable[..., dict[str, float]]:
    """The error on the validation clips under masks that are always the same, and the part that is explained."""

    def measure(model: MaskedMViT, told: Callable[[int, int], None]) -> dict[str, float]:
        device = next(model.parameters()).device
        dtype = AUTOCAST[recipe.precision]
        error = spread = numbers = seen = 0.0
        stream = batches(dataset, recipe.batch_size, settings.workers)
        with evaluating(model), torch.inference_mode(), stream as loaded:
            for place, (indices, batch) in enumerate(loaded):
                seen += len(indices)
                if len(batch.images):
                    pixels = batch.images.to(device)
                    with torch.autocast(device.type, dtype, enabled=dtype is not None):
                        guess, truth = hidden(model, pixels, masks(len(pixels), place, device), masks.config)
                    error += float((guess - truth).double().square().sum())
                    spread += float((truth - truth.mean(dim=0)).double().square().sum())
                    numbers += truth.numel()
                told(int(seen), len(dataset))
        if not numbers:
            raise ValueError("there is no validation clip to measure on: none could be read")
        return {"val_loss": error / numbers, "explained": 1 - error / spread}

    return measure
