"""A picture and its objects, moved together: resized, flipped, cropped, padded. Pure functions.

Coordinates are float64 until a transform is done, so that boxes come out as detectron2's do. Masks are polygons, whose
corners move, or pixels, which move with the picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mvitv2.data.instances import Instances, Polygons
from mvitv2.extras import required

Size = tuple[int, int]

_LEAST_SIDE = 1e-5
"""Pixels; boxes with a smaller side are empty (detectron2 ``filter_empty_instances``)."""


@dataclass(frozen=True)
class Scene:
    """A picture and its objects."""

    image: Image.Image
    """RGB."""
    objects: Instances
    """In pixels of the picture."""

    @property
    def size(self) -> Size:
        """``(H, W)``."""
        return self.image.height, self.image.width


def resized(scene: Scene, size: Size) -> Scene:
    """A scene at ``(H, W)``: Pillow's antialiased bilinear for the picture, the nearest pixel for masks of pixels."""
    if size == scene.size:
        return scene
    height, width = size
    across, down = width / scene.image.width, height / scene.image.height
    image = scene.image.resize((width, height), Image.Resampling.BILINEAR)

    def nearest(mask: Tensor) -> Tensor:
        small = Image.fromarray(mask.numpy()).resize((width, height), Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(small))

    factors = torch.tensor([across, down], dtype=torch.float64)
    return Scene(image, _moved(scene.objects, lambda xy: xy * factors, size, nearest))


def flipped(scene: Scene) -> Scene:
    """A scene with left and right changed."""
    width = scene.image.width
    image = scene.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    def mirrored(xy: Tensor) -> Tensor:
        return torch.stack((width - xy[..., 0], xy[..., 1]), dim=-1)

    return Scene(image, _moved(scene.objects, mirrored, scene.size, lambda mask: mask.flip(1)))


def cropped(scene: Scene, *, top: int, left: int, size: Size) -> Scene:
    """The part of a scene that begins at ``(top, left)`` and has ``size``; it must lie inside.

    Boxes may reach beyond what is left (:func:`finished` cuts them); polygons are cut here.
    """
    height, width = size
    image = scene.image.crop((left, top, left + width, top + height))
    corner = torch.tensor([left, top], dtype=torch.float64)

    def part(mask: Tensor) -> Tensor:
        return mask[top : top + height, left : left + width]

    objects = _moved(scene.objects, lambda xy: xy - corner, size, part)
    if objects.masks is not None and not isinstance(objects.masks, Tensor):
        objects = replace(objects, masks=[_cut(parts, size) for parts in objects.masks])
    return Scene(image, objects)


def padded(scene: Scene, size: Size, value: int) -> Scene:
    """A scene with pixels of one value to the right and below, up to ``(H, W)``."""
    height, width = size
    image = Image.new("RGB", (width, height), (value,) * 3)
    image.paste(scene.image, (0, 0))
    more = (0, width - scene.image.width, 0, height - scene.image.height)

    def wider(mask: Tensor) -> Tensor:
        return torch.nn.functional.pad(mask, more)

    return Scene(image, _moved(scene.objects, lambda xy: xy, size, wider))


def finished(scene: Scene, *, boxes_from_masks: bool) -> tuple[Tensor, Instances]:
    """What a detector takes: ``(3, H, W)`` uint8 RGB, and the objects that are still there, boxes float32.

    Args:
        scene: After all transforms.
        boxes_from_masks: Draw boxes anew around what is left of the masks, where there are masks.
    """
    height, width = scene.size
    objects = scene.objects
    boxes = objects.boxes
    if boxes_from_masks and objects.masks is not None and len(objects):
        boxes = _around(objects.masks)
    limits = torch.tensor([width, height, width, height], dtype=boxes.dtype)
    boxes = boxes.clamp(min=0).minimum(limits).float()
    there = ((boxes[:, 2:] - boxes[:, :2]) > _LEAST_SIDE).all(dim=1)
    if isinstance(objects.masks, Tensor):
        there &= objects.masks.flatten(1).any(dim=1)
    elif objects.masks is not None:
        there &= torch.tensor([len(parts) > 0 for parts in objects.masks], dtype=torch.bool)
    pixels = torch.from_numpy(np.array(scene.image)).permute(2, 0, 1).contiguous()
    return pixels, replace(objects, boxes=boxes).chosen(there)


def _moved(
    objects: Instances, points: Callable[[Tensor], Tensor], size: Size, mask: Callable[[Tensor], Tensor]
) -> Instances:
    """Objects whose points ``(..., 2)`` and masks of pixels ``(H, W)`` are moved to a picture of ``size``."""
    corners = points(objects.boxes.double().view(-1, 2, 2))
    boxes = torch.cat((corners.amin(dim=1), corners.amax(dim=1)), dim=1)
    masks = objects.masks
    if isinstance(masks, Tensor):
        new = [mask(one) for one in masks]
        masks = torch.stack(new) if new else masks.new_zeros(0, *size)
    elif masks is not None:
        masks = [[points(part.double()) for part in parts] for parts in masks]
    return Instances(boxes, objects.labels, masks)


def _cut(parts: Sequence[Tensor], size: Size) -> list[Tensor]:
    """What of the parts of an object lies within ``(H, W)``."""
    height, width = size
    kept: list[Tensor] = []
    for part in parts:
        low, high = part.amin(dim=0), part.amax(dim=0)
        if (low >= 0).all() and high[0] <= width and high[1] <= height:
            kept.append(part)
        elif (high > 0).all() and low[0] < width and low[1] < height:
            kept += _intersection(part, size)
    return kept


def _intersection(part: Tensor, size: Size) -> list[Tensor]:
    """A polygon cut at the edges of ``(H, W)``: none, one or several. A hole is joined to its rim by a line."""
    shapely = required("shapely", extra="detect")
    outline = shapely.Polygon(part.numpy())
    if not outline.is_valid:  # crossing itself; inside is what an odd number of lines encloses, as for COCO's masks
        outline = shapely.make_valid(outline)
    pieces = shapely.get_parts(shapely.intersection(outline, shapely.box(0, 0, size[1], size[0])))
    found = []
    for piece in shapely.get_parts(pieces):
        if piece.geom_type != "Polygon" or piece.area == 0:
            continue
        rim = np.asarray(piece.exterior.coords)
        holes = [np.concatenate((np.asarray(hole.coords), rim[:1])) for hole in piece.interiors]
        found.append(torch.from_numpy(np.concatenate((rim, *holes)) if holes else rim[:-1]))
    return found


def _around(masks: Tensor | Polygons) -> Tensor:
    """``(N, 4)`` float64: the boxes around masks; of an empty one, an empty box."""
    if isinstance(masks, Tensor):
        boxes = torch.zeros(len(masks), 4, dtype=torch.float64)
        for place, mask in enumerate(masks):
            rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
            if len(rows):
                sides = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
                boxes[place] = torch.tensor(sides, dtype=torch.float64)
        return boxes
    found = []
    for parts in masks:
        points = torch.cat(list(parts)) if len(parts) else torch.zeros(1, 2, dtype=torch.float64)
        found.append(torch.cat((points.amin(dim=0), points.amax(dim=0))))
    return torch.stack(found)
