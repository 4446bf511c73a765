"""The objects of one image: what data sets hand to a detector in training, and what transforms move together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Polygons = Sequence[Sequence[Tensor]]
"""Per object its parts, each ``(K, 2)`` corners (x, y) in pixels; an object is the union of its parts."""


@dataclass(frozen=True)
class Instances:
    """``N`` objects of one image.

    Pixels are squares: the image spans (0, 0) to (W, H), and the centre of its first pixel is (0.5, 0.5).

    Raises:
        ValueError: The number of boxes, labels and masks differ, or one of them has another form.
    """

    boxes: Tensor
    """``(N, 4)`` floating point, corners x1, y1, x2, y2 in pixels."""
    labels: Tensor
    """``(N,)`` int64, 0-based classes without background."""
    masks: Polygons | Tensor | None = None
    """Polygons, or bool ``(N, H, W)``; ``None`` where there are boxes only."""

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != len(("x1", "y1", "x2", "y2")):
            raise ValueError(f"boxes are (N, 4) of x1, y1, x2, y2, got {tuple(self.boxes.shape)}")
        if not self.boxes.is_floating_point():
            raise ValueError(f"boxes are floating point numbers, got {self.boxes.dtype}")
        if self.labels.shape != self.boxes.shape[:1] or self.labels.dtype != torch.int64:
            raise ValueError(
                f"labels are int64 of shape ({len(self)},) for {len(self)} boxes, "
                f"got {self.labels.dtype} of shape {tuple(self.labels.shape)}"
            )
        if isinstance(self.masks, Tensor) and (self.masks.ndim != 3 or self.masks.dtype != torch.bool):
            raise ValueError(
                f"masks as a tensor are bool (N, H, W), got {self.masks.dtype} {tuple(self.masks.shape)}; "
                "compare a probability with a threshold first"
            )
        if self.masks is not None and len(self.masks) != len(self):
            raise ValueError(f"{len(self.masks)} masks for {len(self)} boxes")

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def chosen(self, index: Tensor) -> "Instances":
        """Some of the objects, by a bool mask ``(N,)`` or by indices ``(M,)``."""
        masks = self.masks
        if isinstance(masks, Tensor):
            masks = masks[index.to(masks.device)]
        elif masks is not None:
            numbers = index.nonzero().flatten() if index.dtype == torch.bool else index
            masks = [masks[i] for i in numbers.tolist()]
        return Instances(self.boxes[index], self.labels[index], masks)

    def to(self, device: torch.device | str) -> "Instances":
        """The same objects with tensors on a device; polygons stay where they are, they are only rasterised."""
        masks = self.masks.to(device) if isinstance(self.masks, Tensor) else self.masks
        return Instances(self.boxes.to(device), self.labels.to(device), masks)
