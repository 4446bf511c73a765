"""How a detector looks at pictures: whole, and where they are very large in tiles that overlap as well.

Objects that a tile's edge cuts are taken from the tile that has all of them, and those larger than a tile from the
whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mvitv2.data.detection.augment import Resize
from mvitv2.data.detection.shapes import compressed
from mvitv2.data.instances import Instances
from mvitv2.tasks.detect.boxes import suppressed
from mvitv2.tasks.detect.config import Selection
from mvitv2.tasks.detect.detector import Detector
from mvitv2.tasks.detect_evaluation import detect
from mvitv2.tasks.evaluation import evaluating
from mvitv2.tasks.found import Found, ObjectsFound

_OVERLAP = 0.25  # of a tile's side
_EDGE = 2.0  # pixels; a box that ends so near to an inner edge of its tile is cut


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
class Looking:
    """How a detector looks at pictures."""

    model: Detector
    resize: Resize
    """To the size that it wants."""
    selection: Selection | None
    """Thresholds other than the model's."""
    precision: str
    """``"fp32"``, ``"bf16"`` or ``"fp16"`` (autocast)."""
    tile: int | None
    """Pictures with a longer side are looked at in squares of this side, in pixels of the picture."""

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
