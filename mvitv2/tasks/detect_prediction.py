"""Files of one's own through a detector: a stream of objects in the order of the files, in bounded memory.

A very large picture is looked at in tiles that overlap, and once as a whole: objects that a tile's edge cuts are taken
from the tile that has all of them, and those larger than a tile from the whole.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mvitv2.data.detection.augment import Resize, resize_of
from mvitv2.data.detection.shapes import compressed, pixels
from mvitv2.data.drawing import Mark, drawn, label_text
from mvitv2.data.images import read_image
from mvitv2.data.instances import Instances
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.detect.boxes import suppressed
from mvitv2.tasks.detect.config import Selection
from mvitv2.tasks.detect.detector import Detector
from mvitv2.tasks.detect_evaluation import detect
from mvitv2.tasks.evaluation import evaluating, placed
from mvitv2.tasks.prediction import Source, files_of, name_of, read_ahead, read_one

_OVERLAP = 0.25  # of a tile's side
_EDGE = 2.0  # pixels; a box that ends so near to an inner edge of its tile is cut


@dataclass(frozen=True)
class Found:
    """One object in a picture."""

    name: str
    """Of its class."""
    label: int
    """Number of its class."""
    category_id: int
    """Of its class, as the data numbers it that the model was trained on."""
    score: float
    """0 to 1."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels of the picture."""
    mask: Mapping[str, Any] | None = field(default=None, repr=False)
    """COCO's compressed run lengths; ``None`` where the model has no masks."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        mask = {} if self.mask is None else {"mask": dict(self.mask)}
        return {"class": self.name, "index": self.label, "score": self.score, "box": list(self.box), **mask}


@dataclass(frozen=True)
class ObjectsFound:
    """What a detector finds in one picture, or why it finds nothing."""

    file: str
    objects: tuple[Found, ...] = ()
    """Best first."""
    size: tuple[int, int] = (0, 0)
    """``(H, W)`` of the picture."""
    error: str | None = None
    """One line, where the picture could not be read."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``error`` is ``None`` where the picture was read."""
        found = [one.to_dict() for one in self.objects]
        return {"file": self.file, "height": self.size[0], "width": self.size[1], "objects": found, "error": self.error}

    def plot(self, picture: Image.Image | None = None) -> Image.Image:
        """The picture with boxes, masks, names and scores drawn on it.

        Args:
            picture: What was looked at, where it was no file.

        Raises:
            mvitv2.data.images.ImageError: The file cannot be read.
        """
        image = read_image(self.file) if picture is None else picture
        labels = [one.label for one in self.objects]
        colours = range(len(labels)) if len(set(labels)) == 1 else labels
        masks = [None if one.mask is None else pixels(one.mask, self.size) for one in self.objects]
        rows = zip(self.objects, colours, masks, strict=True)
        return drawn(image, [Mark(one.box, label_text(one.name, one.score), c, mask) for one, c, mask in rows])

    def save(self, path: str | Path, picture: Image.Image | None = None) -> None:
        """Write :meth:`plot` to a file, whose suffix says how."""
        self.plot(picture).save(path)


def predict_objects(
    model: Detector,
    sources: Source | Iterable[Source],
    *,
    batch_size: int = 1,
    workers: int = 2,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    preprocessing: Preprocessing | None = None,
    selection: Selection | None = None,
    tile: int | None = None,
    skip: Callable[[str], bool] | None = None,
) -> Iterator[ObjectsFound]:
    """Objects in pictures, one picture after another in the order of the sources.

    A file that cannot be read gives an :class:`ObjectsFound` with its ``error``; the rest goes on.

    Args:
        model: Its ``card`` tells classes and preprocessing.
        sources: Files, folders, patterns, the bytes of files, or pictures; one or many.
        batch_size: Pictures in one forward pass, of any sizes.
        workers: Threads that read and decode; 0 reads between the passes.
        device: Where to compute; ``None``: where the model is.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (autocast).
        preprocessing: How pictures are resized; ``None``: as the card says.
        selection: Thresholds other than the model's.
        tile: Pictures with a longer side are looked at in squares of this side, in pixels of the picture.
        skip: Told the name of a file; those of which it says yes are not read and get no answer.

    Raises:
        ValueError: Numbers out of range, or nothing says how the model wants its pictures.
    """
    if batch_size < 1 or workers < 0 or (tile is not None and tile < 32):
        raise ValueError(f"batch_size={batch_size} must be at least 1, workers={workers} 0, tile={tile} 32 pixels")
    seen = _Seen(model, resize_of(preprocessing or detector_preprocessing(model)), selection, precision, tile)
    place = placed(model, device)
    many = [sources] if isinstance(sources, str | Path | bytes | Image.Image) else sources

    def answers() -> Iterator[ObjectsFound]:
        waiting: list[tuple[str, Any]] = []
        items = (item for item in files_of(many) if skip is None or not skip(name_of(item)))
        for item in read_ahead(items, partial(read_one, transform=seen.views), workers, 2 * batch_size):
            waiting.append(item)
            if len(waiting) >= batch_size:
                yield from seen.answers(waiting, place)
                waiting = []
        if waiting:
            yield from seen.answers(waiting, place)

    return answers()


def detector_preprocessing(model: Detector) -> Preprocessing:
    """How a detector wants its pictures, from its card.

    Raises:
        ValueError: Its card does not say.
    """
    record = model.card.get("preprocessing")
    if record is None:
        raise ValueError("the detector's card has no 'preprocessing'; pass preprocessing=DETECTION, or another")
    return Preprocessing.from_dict(record)


def detector_classes(model: Detector) -> list[tuple[str, int]]:
    """Name and category id of every class; numbers from 1 where the card has none."""
    count = range(model.config.num_classes)
    names = model.card.get("classes") or [str(number) for number in count]
    ids = model.card.get("category_ids") or [number + 1 for number in count]
    return [(str(name), int(number)) for name, number in zip(names, ids, strict=True)]


@dataclass(frozen=True)
class View:
    """A picture, or a tile of one, as the model sees it."""

    pixels: Tensor
    """``(3, h, w)`` uint8."""
    corner: tuple[int, int]
    """Left and top in the picture."""
    size: tuple[int, int]
    """``(H, W)`` in pixels of the picture."""
    whole: tuple[int, int]
    """``(H, W)`` of the picture."""


@dataclass(frozen=True)
class _Seen:
    """How pictures are looked at."""

    model: Detector
    resize: Resize
    selection: Selection | None
    precision: str
    tile: int | None

    def views(self, image: Image.Image) -> list[View]:
        """A picture as the model sees it: whole, and in tiles if it is large."""
        whole = (image.height, image.width)
        windows = [(0, 0, image.width, image.height)]
        if self.tile is not None and max(whole) > self.tile:
            windows += tiles(whole, self.tile)
        none = Instances(torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, dtype=torch.int64))
        return [
            View(self.resize(image.crop(w), none)[0], (w[0], w[1]), (w[3] - w[1], w[2] - w[0]), whole) for w in windows
        ]

    def answers(self, items: Sequence[tuple[str, Any]], device: torch.device) -> Iterator[ObjectsFound]:
        """Answers for some pictures, reasons in between. Tiles go through the model a batch at a time."""
        names, size = detector_classes(self.model), len(items)
        views = [(place, view) for place, (_, seen) in enumerate(items) if not isinstance(seen, str) for view in seen]
        parts: dict[int, list[Found]] = {place: [] for place in range(size)}
        with evaluating(self.model):
            for start in range(0, len(views), size):
                batch = views[start : start + size]
                images = [view.pixels.to(device) for _, view in batch]
                found = detect(
                    self.model, images, [v.size for _, v in batch], precision=self.precision, selection=self.selection
                )
                for (place, view), one in zip(batch, found, strict=True):
                    parts[place] += _objects(view, one, names)
        limits = self.selection or self.model.config.selection
        for place, (file, seen) in enumerate(items):
            if isinstance(seen, str):
                yield ObjectsFound(file, error=seen)
            else:
                objects = parts[place] if len(seen) == 1 else merged(parts[place], limits)
                yield ObjectsFound(file, tuple(objects), seen[0].whole)


def tiles(size: tuple[int, int], side: int) -> list[tuple[int, int, int, int]]:
    """Left, top, right, bottom of squares that cover ``(H, W)`` and overlap by a quarter at least."""

    def starts(length: int) -> list[int]:
        if length <= side:
            return [0]
        count = 1 + -(-(length - side) // max(1, int(side * (1 - _OVERLAP))))
        return [round(place * (length - side) / (count - 1)) for place in range(count)]

    height, width = size
    return [(x, y, min(x + side, width), min(y + side, height)) for y in starts(height) for x in starts(width)]


def merged(objects: Sequence[Found], selection: Selection) -> list[Found]:
    """Objects of several views, each once, best first."""
    if not objects:
        return []
    boxes = torch.tensor([one.box for one in objects])
    scores, labels = torch.tensor([one.score for one in objects]), torch.tensor([one.label for one in objects])
    kept = suppressed(boxes, scores, labels, selection.nms_iou)[: selection.max_detections]
    return [objects[place] for place in kept.tolist()]


def _objects(view: View, found: Any, classes: Sequence[tuple[str, int]]) -> Iterator[Found]:
    """What was found in a view, in pixels of the picture, without what an inner edge cuts."""
    left, top = view.corner
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    for place, (box, score, label) in enumerate(rows):
        if _is_cut(box, view):
            continue
        mask = None
        if found.masks is not None:
            canvas = np.zeros(view.whole, bool)
            canvas[top : top + view.size[0], left : left + view.size[1]] = found.masks[place].cpu().numpy()
            mask = compressed(canvas)
        moved = (box[0] + left, box[1] + top, box[2] + left, box[3] + top)
        name, number = classes[label]
        yield Found(name, label, number, score, moved, mask)


def _is_cut(box: Sequence[float], view: View) -> bool:
    """Whether a box ends at an edge of its tile where the picture goes on."""
    (left, top), (height, width), (whole_height, whole_width) = view.corner, view.size, view.whole
    return (
        (left > 0 and box[0] <= _EDGE)
        or (top > 0 and box[1] <= _EDGE)
        or (left + width < whole_width and box[2] >= width - _EDGE)
        or (top + height < whole_height and box[3] >= height - _EDGE)
    )
