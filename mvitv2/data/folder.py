"""A folder of class folders as a data set, and what is wrong with one that cannot be used.

What the peers leave to chance is an error here that says what was looked for and what is there: a misnamed folder,
no images, classes that differ between splits, a file that cannot be read.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mvitv2.data.images import MAX_PIXELS, ImageError, read_image
from mvitv2.data.samples import SampleKey, Unreadable, seeded, split_key
from mvitv2.data.sources import IMAGE_SUFFIXES, Problem, close_names, natural_key, suffix_counts, walk

Transform = Callable[[Image.Image], Tensor]

ON_ERROR = ("raise", "skip")
_SHOWN = 8  # names in one message
_SCAN_CHUNK = 1024


class DataError(ValueError):
    """A data set that cannot be used as it lies there; the message says what was looked for and what is there."""


class ImageFolder(Dataset[Any]):
    """The images below ``root``, one class per folder in it; classes in sorted order, as torchvision and timm number.

    Class folders may hold folders. Hidden names and files that are no images by their name are left out (and counted).
    An item is ``(transform(image), label)``; its key is an index or a :class:`mvitv2.data.samples.SampleKey`.

    Attributes:
        root: The folder.
        classes: Names of the class folders, sorted; a label is an index into them.
        class_names: What people call them; the folder names unless given.
        labels: ``(N,)`` int64.
        ignored: How many files were left out, by suffix.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Transform | None = None,
        *,
        classes: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        on_error: str = "raise",
        suffixes: Collection[str] | None = IMAGE_SUFFIXES,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """List what is there; no image is opened.

        Args:
            root: A folder of class folders.
            transform: A picture to a tensor; without one, items hold the RGB picture itself.
            classes: The classes it must have (those of the training split); ``None``: those it has.
            class_names: One name per class, for people.
            on_error: ``"raise"`` names the file in an :class:`ImageError`; ``"skip"`` gives an
                :class:`mvitv2.data.samples.Unreadable` in its place, which ``collate`` counts. Nothing is replaced.
            suffixes: What counts as an image, lower case with the dot; ``None``: every file.
            max_pixels: As in :func:`mvitv2.data.images.read_image`.

        Raises:
            DataError: No such folder, no class folders, no images, or other classes than ``classes``.
        """
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error={on_error!r} must be one of {list(ON_ERROR)}")
        self.root = Path(root)
        self.transform = transform
        self.on_error = on_error
        self.max_pixels = max_pixels
        self.classes = _class_folders(self.root, classes)
        self.ignored: Counter[str] = Counter()
        self._files, self.labels = _listed(self.root, self.classes, suffixes, self.ignored)
        self.class_names = tuple(class_names) if class_names is not None else self.classes
        if len(self.class_names) != len(self.classes):
            raise DataError(f"{len(self.class_names)} class names for {len(self.classes)} classes of {self.root}")

    def __len__(self) -> int:
        """How many files there are, readable or not."""
        return len(self.labels)

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

    def path(self, index: int) -> Path:
        """The file of a sample."""
        return self.root / self._files[index]

    def read(self, index: int) -> Image.Image:
        """The picture of a sample, RGB and upright."""
        return read_image(self.path(index), max_pixels=self.max_pixels)

    @property
    def counts(self) -> dict[str, int]:
        """How many files each class has."""
        numbers = np.bincount(self.labels, minlength=len(self.classes))
        return dict(zip(self.classes, numbers.tolist(), strict=True))

    def scan(self, *, num_threads: int = 1) -> "Scan":
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


@dataclass(frozen=True)
class Scan:
    """What :meth:`ImageFolder.scan` found."""

    total: int
    """Files opened."""
    unreadable: tuple[Unreadable, ...]
    """Those that are no readable image, each with the reason."""


class PackedNames:
    """Many strings in two arrays: workers share their memory, where a list would be copied page by page on reading."""

    def __init__(self, names: Iterator[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([0, *(len(name) for name in encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} files")
        index %= len(self)
        return os.fsdecode(self._bytes[self._ends[index] : self._ends[index + 1]].tobytes())


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in ``folder`` that are not hidden, sorted.

    Raises:
        DataError: It is missing, no folder, or may not be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if not e.name.startswith((".", "__MACOSX")) and e.is_dir())
    except FileNotFoundError as error:
        parent = folder.parent
        near = close_names(folder.name, (path.name for path in parent.iterdir())) if parent.is_dir() else ""
        raise DataError(f"{folder} does not exist{near}; expected a folder of class folders") from error
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror}); expected a folder of class folders") from error


def shown(names: Collection[str]) -> str:
    """Some of ``names``, in a message."""
    some = ", ".join(sorted(names, key=natural_key)[:_SHOWN])
    return some + (f", ... ({len(names)} in all)" if len(names) > _SHOWN else "")


def _class_folders(root: Path, expected: Sequence[str] | None) -> tuple[str, ...]:
    """The class folders of ``root``, which must be ``expected`` where that is given.

    Raises:
        DataError: There are none, or they differ; missing and unknown ones are listed.
    """
    found = subfolders(root)
    if not found:
        ignored: Counter[str] = Counter()
        number = sum(isinstance(item, Path) for item in walk(root, ignored=ignored))
        here = f"{number} images directly in it" if number else suffix_counts(ignored)
        raise DataError(f"{root} has no class folders ({here}); expected {root}/CLASS/image.jpg, one folder per class")
    if expected is None:
        return tuple(found)
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or extra:
        parts = [f"{len(missing)} missing: {shown(missing)}"] * bool(missing)
        parts += [f"{len(extra)} unknown: {shown(extra)}"] * bool(extra)
        near = close_names(missing[0], extra) if missing and extra else ""
        raise DataError(
            f"{root} has other classes than the {len(expected)} the model is trained on: {'; '.join(parts)}{near}; "
            "give every split the same class folders"
        )
    return tuple(expected)


def _listed(
    root: Path, classes: Sequence[str], suffixes: Collection[str] | None, ignored: Counter[str]
) -> tuple[PackedNames, np.ndarray]:
    """Every image of every class, relative to ``root``, and its label.

    Raises:
        DataError: Classes without an image (all are listed), or a folder that may not be read.
    """
    numbers: list[int] = []
    problems: list[Problem] = []

    def names() -> Iterator[str]:
        for label, name in enumerate(classes):
            before = len(numbers)
            for item in walk(root / name, suffixes=suffixes, ignored=ignored):
                if isinstance(item, Problem):
                    problems.append(item)
                    continue
                numbers.append(label)
                yield str(item.relative_to(root))
            if len(numbers) == before:
                empty.append(name)

    empty: list[str] = []
    files = PackedNames(names())
    if problems:
        raise DataError(f"{problems[0].source} {problems[0].reason}; {len(problems)} such folders below {root}")
    if empty:
        raise DataError(
            f"{len(empty)} of {len(classes)} class folders of {root} hold no images: {shown(empty)}; below {root} are "
            f"{len(numbers)} images and {suffix_counts(ignored)}"
        )
    return files, np.asarray(numbers, dtype=np.int64)
