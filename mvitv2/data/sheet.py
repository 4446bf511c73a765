"""A sheet of pictures as the model will see them in training, each beside the picture it was made of."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from mvitv2.data.drawing import font_of, shortened
from mvitv2.data.images import ImageError
from mvitv2.data.labelled import DataError, Labelled, LabelledImages, Transform
from mvitv2.data.samples import sample_seed, seeded
from mvitv2.data.transforms import EvalTransform, denormalised
from mvitv2.preprocessing import Preprocessing

_MOST_SIDE, _GAP, _CAPTION = 192, 6, 18  # pixels
_LETTERS = 12
_PAPER, _INK = (250, 250, 250), (40, 40, 40)
_TRIES = 20  # samples looked at for one that can be read


def sheet(
    dataset: LabelledImages, transform: Transform, preprocessing: Preprocessing, *, count: int = 16, seed: int = 0
) -> Image.Image:
    """``count`` samples of different classes: on the left as they are evaluated, on the right augmented.

    Args:
        dataset: Any form.
        transform: What training does to a picture; gives ``(C, H, W)``.
        preprocessing: How its numbers become pixels again.
        count: Samples.
        seed: Which samples, and how they are augmented.

    Raises:
        DataError: None of the samples can be read.
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    plain = EvalTransform(preprocessing)
    cells = []
    for place, index in enumerate(chosen(dataset, count, seed)):
        try:
            image = dataset.read(index)
        except ImageError:  # the report names it; here the next one is shown
            continue
        with seeded(sample_seed(seed, 0, place)):
            drawn = transform(image)
        pair = [denormalised(tensor, preprocessing).convert("RGB") for tensor in (plain(image), drawn)]
        cells.append((pair, dataset.class_names[int(dataset.labels[index])]))
        if len(cells) == count:
            break
    if not cells:
        raise DataError(f"{dataset}: none of the pictures for the sheet can be read")
    return laid_out([([fitted(image) for image in pair], name) for pair, name in cells])


def chosen(dataset: Labelled, count: int, seed: int) -> list[int]:
    """Samples in a random order, one of each class before a second of any."""
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(dataset))
    labels = dataset.labels[order]
    sorted_places = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[sorted_places], labels[sorted_places], side="left")
    turn = np.empty(len(order), np.int64)
    turn[sorted_places] = np.arange(len(order)) - starts
    return order[np.lexsort((np.arange(len(order)), turn))][: count + _TRIES].tolist()


def laid_out(cells: Sequence[tuple[list[Image.Image], str]]) -> Image.Image:
    """Pairs with captions, in about as many rows as a screen is high."""
    pairs = [pair for pair, _ in cells]
    width = sum(max(pair[side].width for pair in pairs) for side in (0, 1)) + _GAP
    height = max(image.height for pair in pairs for image in pair) + _CAPTION
    columns = max(1, min(len(cells), round(math.sqrt(len(cells) * 1.6 * height / width))))
    rows = -(-len(cells) // columns)
    size = (columns * (width + 2 * _GAP) + _GAP, rows * (height + 2 * _GAP) + _GAP)
    page = Image.new("RGB", size, _PAPER)
    pen, font = ImageDraw.Draw(page), font_of(_LETTERS)
    for place, (pair, (_, name)) in enumerate(zip(pairs, cells, strict=True)):
        left, top = _GAP + place % columns * (width + 2 * _GAP), _GAP + place // columns * (height + 2 * _GAP)
        page.paste(pair[0], (left, top + _CAPTION))
        page.paste(pair[1], (left + width - pair[1].width, top + _CAPTION))
        pen.text((left, top), shortened(pen, font, name, width), fill=_INK, font=font)
    return page


def fitted(image: Image.Image) -> Image.Image:
    """A picture that fits its cell; small ones enlarged by whole numbers, so that their pixels show."""
    longest = max(image.size)
    if longest > _MOST_SIDE:
        scale = _MOST_SIDE / longest
        return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    return image.resize((image.width * (_MOST_SIDE // longest), image.height * (_MOST_SIDE // longest)), 0)
