"""What every form of data set offers: pictures with a class each, by index, whatever file they come out of.

Folders, lists, tar shards and tables differ only in :meth:`LabelledImages.source`; reading, errors, seeds and counts
are written here once.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mvitv2.data.images import MAX_PIXELS, ImageError, ImageSource, Traits, read_image, read_with_traits
from mvitv2.data.samples import SampleKey, Unreadable, sample_seed, seeded, split_key

Transform = Callable[[Image.Image], Tensor]

ON_ERROR = ("raise", "skip")
SHUFFLE = -1
"""Stands for a sample's index in the seed of an epoch's order."""
_SCAN_CHUNK = 1024


class DataError(ValueError):
    """A data set that cannot be used as it lies there; the message says what was looked for and what is there."""


@dataclass(frozen=True)
class Scan:
    """What :meth:`LabelledImages.scan` found."""

    total: int
    """Files opened."""
    unreadable: tuple[Unreadable, ...]
    """Those that are no readable image, each with the reason."""


class Samples(Dataset[Any]):
    """Files by index, each a file or bytes in one.

    Attributes:
        on_error: What is done about those that cannot be read.
        notes: Sentences about what was left out while the set was opened.
    """

    def __init__(self, *, on_error: str = "raise") -> None:
        """Keep what is done about files that cannot be read.

        Args:
            on_error: ``"raise"`` names the file in an :class:`ImageError`; ``"skip"`` gives an
                :class:`mvitv2.data.samples.Unreadable` in its place, which ``collate`` counts. Nothing is replaced.
        """
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error={on_error!r} must be one of {list(ON_ERROR)}")
        self.on_error = on_error
        self.notes: tuple[str, ...] = ()

    def source(self, index: int) -> ImageSource:
        """The file of a sample, or the bytes of it."""
        raise NotImplementedError

    def path(self, index: int) -> Path:
        """The file of a sample, or a name that tells where it is: ``shards-000001.tar/00001234.jpg``."""
        raise NotImplementedError

    def stamp(self, index: int) -> str:
        """Changes when the file of a sample does, told without reading it."""
        raise NotImplementedError

    def told(self, index: int) -> str:
        """What the data says about a sample, in words: its class."""
        raise NotImplementedError

    def __len__(self) -> int:
        """How many samples there are, readable or not."""
        raise NotImplementedError

    def order(self, *, seed: int, epoch: int) -> list[int]:
        """Every index once, in the order of an epoch: a pure function, so any part of it can be taken up anywhere."""
        generator = torch.Generator().manual_seed(sample_seed(seed, epoch, SHUFFLE) >> 1)
        return torch.randperm(len(self), generator=generator).tolist()


class Pictures(Samples):
    """Pictures by index, each out of a file or out of bytes in one.

    Attributes:
        transform: What is done to a picture; ``None``: nothing.
    """

    def __init__(
        self,
        transform: Any = None,
        *,
        on_error: str = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Keep how pictures are read.

        Args:
            transform: What is done to a picture.
            on_error: See :class:`Samples`.
            max_pixels: As in :func:`mvitv2.data.images.read_image`.
        """
        super().__init__(on_error=on_error)
        self.transform = transform
        self.max_pixels = max_pixels

    def read(self, index: int) -> Image.Image:
        """The picture of a sample, RGB and upright."""
        source = self.source(index)
        name = None if isinstance(source, Path) else str(self.path(index))
        return read_image(source, max_pixels=self.max_pixels, name=name)

    def look(self, source: ImageSource, index: int) -> tuple[Image.Image, Traits]:
        """The picture in ``source``, which is that of a sample, and what it was before it became RGB."""
        return read_with_traits(source, max_pixels=self.max_pixels, name=str(self.path(index)))

    def scan(self, *, num_threads: int = 1) -> Scan:
        """Open and decode every file, and report those that cannot be read."""

        def fault(index: int) -> Unreadable | None:
            try:
                self.read(index)
            except ImageError as error:
                return Unreadable(index, str(self.path(index)), error.reason)
            return None

        with ThreadPoolExecutor(num_threads) as pool:
            indices = iter(range(len(self)))
            chunks = iter(lambda: list(islice(indices, _SCAN_CHUNK)), [])
            faults = tuple(item for chunk in chunks for item in pool.map(fault, chunk) if item is not None)
        return Scan(len(self), faults)


class Labelled(Samples):
    """Files with a class each.

    Attributes:
        classes: Names of the classes as the data has them; a label is an index into them.
        class_names: What people call them; the same unless given.
        labels: ``(N,)`` int64.
    """

    labels: np.ndarray
    classes: tuple[str, ...]
    class_names: tuple[str, ...]

    def name_classes(self, classes: Sequence[str], class_names: Sequence[str] | None) -> None:
        """Set ``classes`` and ``class_names``.

        Raises:
            DataError: Their numbers differ.
        """
        self.classes = tuple(classes)
        self.class_names = tuple(class_names) if class_names is not None else self.classes
        if len(self.class_names) != len(self.classes):
            raise DataError(f"{len(self.class_names)} class names for {len(self.classes)} classes of {self}")

    def told(self, index: int) -> str:
        """The class of a sample."""
        return self.classes[int(self.labels[index])]

    def __len__(self) -> int:
        """How many samples there are, readable or not."""
        return len(self.labels)

    @property
    def counts(self) -> dict[str, int]:
        """How many samples each class has."""
        numbers = np.bincount(self.labels, minlength=len(self.classes))
        return dict(zip(self.classes, numbers.tolist(), strict=True))

    @property
    def spoken_classes(self) -> tuple[str, ...]:
        """The classes for people, all different: ``n02012849 crane`` where the name is another than the class."""
        pairs = zip(self.classes, self.class_names, strict=True)
        return tuple(own if own == name else f"{own} {name}" for own, name in pairs)


class LabelledImages(Labelled, Pictures):
    """Pictures with a class each. An item is ``(transform(image), label)``.

    A key is an index or a :class:`mvitv2.data.samples.SampleKey`, whose seed then decides the augmentation.

    Attributes:
        transform: A picture to a tensor; ``None``: items hold the RGB picture itself.
    """

    def __getitem__(self, key: int | SampleKey) -> Any:
        """``(transform(image), label)``, under its seed if the key carries one, or an ``Unreadable``.

        Raises:
            ImageError: The file cannot be read and ``on_error`` is ``"raise"``.
        """
        index, seed = split_key(key)
        try:
            image = self.read(index)
        except ImageError as error:
            if self.on_error == "raise":
                raise
            return Unreadable(int(index), str(self.path(index)), error.reason)
        with seeded(seed):
            sample = image if self.transform is None else self.transform(image)
        return sample, int(self.labels[index])


def file_stamp(path: Path) -> str:
    """Name, size and time of a file; of one that cannot be asked, its name."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return f"{path}\0missing"
    return f"{path}\0{status.st_size}\0{status.st_mtime_ns}"
