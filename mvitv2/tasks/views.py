"""Several looks at one picture, whose answers are averaged: five or ten crops, mirrored, at several sizes."""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from mvitv2.data.transforms import EvalTransform, crop_corner, in_channels, normalised, resized, resized_size
from mvitv2.preprocessing import Preprocessing

CROPS = (1, 5, 10)
LONGEST = 8
"""Of a picture that is longer than so many times its width, the middle is looked at."""


@dataclass(frozen=True)
class ViewsTransform:
    """A picture to ``(V, C, H, W)``: the looks of the authors' and torchvision's multi-crop tests.

    Raises:
        ValueError: Other numbers of crops, no scales, or nothing to crop.
    """

    preprocessing: Preprocessing
    crops: int = 1
    """1: the centre; 5: four corners and the centre; 10: these and their mirror images."""
    flip: bool = False
    """And the mirror image of every crop."""
    scales: tuple[float, ...] = (1.0,)
    """The resized picture at so many times its size; the crop stays as large as it is."""

    def __post_init__(self) -> None:
        """Refuse what gives no views."""
        if self.crops not in CROPS:
            raise ValueError(f"crops={self.crops} is none of {', '.join(map(str, CROPS))}")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"scales={self.scales} must be at least one number above 0")
        if self.preprocessing.size is None:
            raise ValueError("views are crops, and this preprocessing has size=None; give it a size")

    @property
    def count(self) -> int:
        """``V``."""
        mirrored = self.flip or self.crops == 10
        return len(self.scales) * (1 if self.crops == 1 else 5) * (2 if mirrored else 1)

    def __call__(self, image: Image.Image) -> Tensor:
        """``image`` as ``(V, C, H, W)`` float32, normalised."""
        if self.count == 1 and self.scales == (1.0,):
            return EvalTransform(self.preprocessing)(image)[None]
        picture = middle(in_channels(image, self.preprocessing.channels))
        views = torch.stack([view for scale in self.scales for view in self._of_scale(picture, scale)])
        return torch.cat((views, views.flip(-1))) if self.flip or self.crops == 10 else views

    def _of_scale(self, picture: Image.Image, scale: float) -> list[Tensor]:
        """The crops of the picture at one size."""
        size = self.preprocessing.size or (0, 0)
        height, width = resized_size((picture.height, picture.width), self.preprocessing)
        height, width = (max(1, round(side * scale)) for side in (height, width))
        whole = resized(picture, (height, width), self.preprocessing.interpolation)
        corners = [crop_corner((height, width), size)]
        if self.crops != 1:
            down, across = max(0, height - size[0]), max(0, width - size[1])
            corners = [(0, 0), (0, across), (down, 0), (down, across), *corners]
        boxes = ((left, top, left + size[1], top + size[0]) for top, left in corners)
        return [normalised(whole.crop(box), self.preprocessing) for box in boxes]


def middle(picture: Image.Image) -> Image.Image:
    """The picture, or the middle of one that is absurdly long."""
    width = min(picture.width, LONGEST * picture.height)
    height = min(picture.height, LONGEST * picture.width)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
