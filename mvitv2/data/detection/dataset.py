"""Pictures with their objects as a data set, and batches of them."""

import copy
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mvitv2.data.detection.annotations import Annotations
from mvitv2.data.detection.augment import SceneTransform
from mvitv2.data.detection.scene import Scene, finished
from mvitv2.data.detection.shapes import pixels, polygons
from mvitv2.data.images import ImageError
from mvitv2.data.instances import Instances
from mvitv2.data.labelled import DataError, Pictures, file_stamp
from mvitv2.data.samples import SampleKey, Unreadable, seeded, split_key


class DetectionBatch(NamedTuple):
    """``B`` pictures of any sizes, their objects, where they stand in the data set, and what could not be read."""

    images: list[Tensor]
    """Each ``(3, H, W)`` uint8 RGB."""
    targets: list[Instances]
    indices: list[int]
    unreadable: tuple[Unreadable, ...]

    @property
    def num_samples(self) -> int:
        """``B``, without those that could not be read."""
        return len(self.images)

    def to(self, device: torch.device, *, channels_last: bool = False) -> "DetectionBatch":
        """The batch on a device; pictures of different sizes have no memory format in common."""
        images = [image.to(device, non_blocking=True) for image in self.images]
        return self._replace(images=images, targets=[target.to(device) for target in self.targets])

    def saved(self) -> dict[str, Any]:
        """Plain tensors, for a file that is looked into later."""
        boxes, labels = ([getattr(target, name) for target in self.targets] for name in ("boxes", "labels"))
        return {"images": self.images, "boxes": boxes, "labels": labels, "indices": self.indices}

    def finite(self) -> bool:
        """Whether all pixels are numbers; those of bytes are."""
        return True


class DetectionImages(Pictures):
    """The pictures of one split with their objects. An item is ``(image, objects, index)``.

    ``image`` is ``(3, H, W)`` uint8 RGB. Crowds are not among the objects: nothing is to be learnt from them.

    Attributes:
        annotations: What the file says.
        root: The folder of the pictures.
        classes: Names of the classes; a label is an index into them.
        places: ``(N,)`` int64: the rows of ``annotations`` that are in the set.
    """

    def __init__(
        self,
        annotations: Annotations,
        root: str | os.PathLike[str],
        transform: SceneTransform | None = None,
        *,
        masks: bool | None = None,
        only_with_objects: bool = False,
        **options: Any,
    ) -> None:
        """Choose the pictures; none is opened.

        Args:
            annotations: Of :func:`mvitv2.data.detection.open.open_detection`, mostly.
            root: The folder that file names start from.
            transform: What happens to a picture and its objects; ``None``: they are as they are.
            masks: Give objects their masks; those without one are left out then, which is noted. ``None``: if any has.
            only_with_objects: Leave out pictures without an object to learn from, as in training.
            **options: ``on_error`` and ``max_pixels`` of :class:`mvitv2.data.labelled.Pictures`.

        Raises:
            DataError: Masks are asked for, and no object has one.
        """
        super().__init__(transform, **options)
        self.annotations, self.root = annotations, Path(root)
        self.classes = self.class_names = annotations.classes
        self._solid = ~annotations.crowd
        drawn = self._solid & (annotations.shapes.lengths > 0)
        self.masks = bool(drawn.any()) if masks is None else masks
        if self.masks:
            if self._solid.any() and not drawn.any():
                raise DataError(
                    f"{annotations.source}: none of its objects has a mask; train boxes alone (task detect)"
                )
            self._solid = drawn
        wanted = self._with_objects() if only_with_objects else np.ones(len(annotations), bool)
        self.places = np.flatnonzero(wanted)
        self.notes = annotations.faults.sentences + self._left_out(only_with_objects)

    def _with_objects(self) -> np.ndarray:
        """``(N,)`` bool: pictures with an object to learn from."""
        total = np.concatenate(([0], np.cumsum(self._solid)))
        return total[self.annotations.starts[1:]] > total[self.annotations.starts[:-1]]

    def _left_out(self, only_with_objects: bool) -> tuple[str, ...]:
        """Sentences about objects and pictures that are not in the set."""
        told = []
        maskless = int((~self.annotations.crowd).sum() - self._solid.sum())
        if maskless:
            told.append(f"{maskless} objects have no mask and are left out where masks are trained")
        dropped = len(self.annotations) - len(self.places)
        if only_with_objects and dropped:
            told.append(f"{dropped} of {len(self.annotations)} pictures have no object to learn from and are left out")
        return tuple(told)

    def __str__(self) -> str:
        return str(self.annotations.source)

    def __len__(self) -> int:
        return len(self.places)

    def path(self, index: int) -> Path:
        """The file of a sample."""
        return self.root / self.annotations.files[int(self.places[index])]

    def source(self, index: int) -> Path:
        """The file of a sample."""
        return self.path(index)

    def stamp(self, index: int) -> str:
        """Name, size and time of its file."""
        return file_stamp(self.path(index))

    def told(self, index: int) -> str:
        """The objects of a sample: ``2 dog, 1 person``."""
        rows = self.annotations.objects(int(self.places[index]))
        counts = Counter(self.annotations.labels[rows].tolist())
        return ", ".join(f"{count} {self.classes[label]}" for label, count in sorted(counts.items())) or "nothing"

    def size(self, index: int) -> tuple[int, int]:
        """Height and width as the annotations say; 0 where they do not."""
        height, width = self.annotations.sizes[int(self.places[index])].tolist()
        return height, width

    @property
    def counts(self) -> dict[str, int]:
        """How many objects each class has, crowds left out."""
        numbers = np.bincount(self.annotations.labels[~self.annotations.crowd], minlength=len(self.classes))
        return dict(zip(self.classes, numbers.tolist(), strict=True))

    @property
    def spoken_classes(self) -> tuple[str, ...]:
        """The classes for people."""
        return self.class_names

    def whole(self, transform: SceneTransform | None = None) -> "DetectionImages":
        """All pictures of the annotations, with or without objects."""
        options = {"masks": self.masks, "on_error": self.on_error, "max_pixels": self.max_pixels}
        return DetectionImages(self.annotations, self.root, transform, **options)

    def part(self, indices: Sequence[int], transform: SceneTransform | None = None) -> "DetectionImages":
        """Some of the pictures, in the order given."""
        chosen = copy.copy(self)
        chosen.places, chosen.transform = self.places[np.asarray(indices, np.int64)], transform
        return chosen

    def objects(self, index: int, size: tuple[int, int]) -> Instances:
        """The objects of a sample in a picture of ``(H, W)``, boxes float64.

        Masks are polygons if all of the picture's are, else pixels.
        """
        rows = self.annotations.objects(int(self.places[index]))
        chosen = [row for row in range(rows.start, rows.stop) if self._solid[row]]
        boxes = torch.from_numpy(self.annotations.boxes[chosen].reshape(-1, 4))
        boxes = torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1)
        labels = torch.from_numpy(self.annotations.labels[chosen])
        if not self.masks:
            return Instances(boxes, labels)
        shapes = [self.annotations.shape(row) for row in chosen]
        parts = [polygons(shape) for shape in shapes]
        corners = [part for part in parts if part is not None]
        if len(corners) == len(parts):
            return Instances(boxes, labels, corners)
        return Instances(boxes, labels, torch.stack([torch.from_numpy(pixels(shape, size)) for shape in shapes]))

    def scene(self, index: int) -> Scene:
        """A sample before any transform.

        Raises:
            ImageError: The file cannot be read, or has another size than its annotations say.
        """
        image = self.read(index)
        height, width = self.size(index)
        if height and (image.height, image.width) != (height, width):
            on_its_side = (image.width, image.height) == (height, width)
            why = "; they were made without turning it upright (EXIF)" if on_its_side else ""
            raise ImageError(
                f"has {image.width} x {image.height} pixels, its annotations are for {width} x {height}{why}",
                str(self.path(index)),
            )
        return Scene(image, self.objects(index, (image.height, image.width)))

    def __getitem__(self, key: int | SampleKey) -> Any:
        """``(image, objects, index)``, under its seed if the key carries one, or an ``Unreadable``.

        Raises:
            ImageError: As :meth:`scene`, where ``on_error`` is ``"raise"``.
        """
        index, seed = split_key(key)
        try:
            scene = self.scene(index)
        except ImageError as error:
            if self.on_error == "raise":
                raise
            return Unreadable(int(index), str(self.path(index)), error.reason)
        with seeded(seed):
            if self.transform is None:
                image, objects = finished(scene, boxes_from_masks=False)
            else:
                image, objects = self.transform(scene.image, scene.objects)
        return image, objects, int(index)


def detection_batch(items: Sequence[Any]) -> DetectionBatch:
    """The samples that could be read as one batch, the others beside it; for ``DataLoader(collate_fn=...)``."""
    good = [item for item in items if not isinstance(item, Unreadable)]
    images, targets, indices = ([item[place] for item in good] for place in range(3))
    bad = tuple(item for item in items if isinstance(item, Unreadable))
    return DetectionBatch(images, targets, indices, bad)
