"""What a detector finds in a picture or in a frame of a clip, as data and as a drawing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from mvitv2.data.detection.shapes import pixels
from mvitv2.data.drawing import Mark, drawn, label_text
from mvitv2.data.images import read_image


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
    frame: int | None = None
    """Of a clip: which of its frames this is, from 0."""
    seconds: float | None = None
    """Of a clip: after its first frame."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``error`` is ``None`` where the picture was read; frames tell which they are."""
        place = {} if self.frame is None else {"frame": self.frame, "seconds": self.seconds}
        found = [one.to_dict() for one in self.objects]
        size = {"height": self.size[0], "width": self.size[1]}
        return {"file": self.file, **place, **size, "objects": found, "error": self.error}

    def plot(self, picture: Image.Image | None = None) -> Image.Image:
        """The picture with boxes, masks, names and scores drawn on it.

        Args:
            picture: What was looked at, where it was no file.

        Raises:
            mvitv2.data.images.ImageError: The file cannot be read.
        """
        image = read_image(self.file) if picture is None else picture
        labels = [one.label for one in self.objects]
        # objects of one class apart in a picture; in a clip the next frame may have them in another order
        colours = range(len(labels)) if len(set(labels)) == 1 and self.frame is None else labels
        masks = [None if one.mask is None else pixels(one.mask, self.size) for one in self.objects]
        rows = zip(self.objects, colours, masks, strict=True)
        return drawn(image, [Mark(one.box, label_text(one.name, one.score), c, mask) for one, c, mask in rows])

    def save(self, path: str | Path, picture: Image.Image | None = None) -> None:
        """Write :meth:`plot` to a file, whose suffix says how."""
        self.plot(picture).save(path)
