"""A sheet of pictures with their boxes and masks as training sees them, each beside the picture it was made of."""

from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from mvitv2.data.detection.augment import SceneTransform
from mvitv2.data.detection.dataset import DetectionImages
from mvitv2.data.detection.scene import Scene, resized
from mvitv2.data.detection.shapes import bitmaps
from mvitv2.data.drawing import Mark, drawn
from mvitv2.data.images import ImageError
from mvitv2.data.instances import Instances
from mvitv2.data.labelled import DataError
from mvitv2.data.samples import sample_seed, seeded
from mvitv2.data.sheet import laid_out

_SIDE = 320  # pixels of the longer side on the sheet
_TRIES = 20  # samples looked at for one that can be read


def detection_sheet(
    dataset: DetectionImages, transform: SceneTransform, *, count: int = 16, seed: int = 0
) -> Image.Image:
    """``count`` samples: on the left as they are, on the right augmented, objects drawn on both.

    Args:
        dataset: Its own transform is not used.
        transform: What training does.
        count: Samples.
        seed: Which samples, and how they are augmented.

    Raises:
        DataError: None of the samples can be read.
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    order = np.random.default_rng(seed).permutation(len(dataset))[: count + _TRIES]
    cells = []
    for place, index in enumerate(order.tolist()):
        try:
            scene = dataset.scene(index)
        except ImageError:  # the report names it; here the next one is shown
            continue
        with seeded(sample_seed(seed, 0, place)):
            pixels, objects = transform(scene.image, scene.objects)
        augmented = Scene(Image.fromarray(pixels.permute(1, 2, 0).numpy()), objects)
        pair = [marked(_fitted(one), dataset.classes) for one in (scene, augmented)]
        cells.append((pair, f"{dataset.path(index).name}: {dataset.told(index)}"))
        if len(cells) == count:
            break
    if not cells:
        raise DataError(f"{dataset}: none of the pictures for the sheet can be read")
    return laid_out(cells)


def marked(scene: Scene, names: tuple[str, ...]) -> Image.Image:
    """A picture with its objects drawn on it."""
    return drawn(scene.image, marks(scene.objects, names, scene.size))


def marks(objects: Instances, names: tuple[str, ...], size: tuple[int, int]) -> list[Mark]:
    """What to draw for some objects in a picture of ``(H, W)``; of one class alone, each has a colour of its own."""
    masks = bitmaps(objects, size)
    labels = objects.labels.tolist()
    colours = range(len(labels)) if len(set(labels)) == 1 else labels
    rows = zip(objects.boxes.tolist(), labels, colours, strict=True)
    return [
        Mark(tuple(box), names[label], colour, None if masks is None else masks[place].numpy())
        for place, (box, label, colour) in enumerate(rows)
    ]


def _fitted(scene: Scene) -> Scene:
    """A scene at the size of the sheet's cells."""
    scale = _SIDE / max(scene.size)
    objects = replace(scene.objects, boxes=scene.objects.boxes.to(torch.float64))
    height, width = (max(1, round(side * scale)) for side in scene.size)
    return resized(Scene(scene.image, objects), (height, width))
