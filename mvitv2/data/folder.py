"""A folder of class folders as a data set, and what is wrong with one that cannot be used.

What the peers leave to chance is an error here that says what was looked for and what is there: a misnamed folder,
no images, classes that differ between splits, a file that cannot be read.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mvitv2.data.labelled import DataError, LabelledImages, Transform, file_stamp
from mvitv2.data.names import PackedNames, shown
from mvitv2.data.sources import IMAGE_SUFFIXES, Problem, close_names, suffix_counts, walk


class ImageFolder(LabelledImages):
    """The images below ``root``, one class per folder in it; classes in sorted order, as torchvision and timm number.

    Class folders may hold folders. Hidden names and files that are no images by their name are left out (and counted).

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
        suffixes: Collection[str] | None = IMAGE_SUFFIXES,
        noun: str = "images",
        **options: Any,
    ) -> None:
        """List what is there; no image is opened.

        Args:
            root: A folder of class folders.
            transform: A picture to a tensor; without one, items hold the RGB picture itself.
            classes: The classes it must have (those of the training split); ``None``: those it has.
            class_names: One name per class, for people.
            suffixes: What counts as an image, lower case with the dot; ``None``: every file.
            noun: What they are called in messages.
            **options: ``on_error`` and ``max_pixels`` of :class:`LabelledImages`.

        Raises:
            DataError: No such folder, no class folders, no images, or other classes than ``classes``.
        """
        super().__init__(transform, **options)
        self.root = Path(root)
        folders = _class_folders(self.root, classes)
        self.ignored: Counter[str] = Counter()
        self._files, self.labels = _listed(self.root, folders, suffixes, self.ignored, noun)
        self.name_classes(folders, class_names)

    def __str__(self) -> str:
        return str(self.root)

    def path(self, index: int) -> Path:
        """The file of a sample."""
        return self.root / self._files[index]

    def source(self, index: int) -> Path:
        """The file of a sample."""
        return self.path(index)

    def stamp(self, index: int) -> str:
        """Name, size and time of its file."""
        return file_stamp(self.path(index))


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
    root: Path, classes: Sequence[str], suffixes: Collection[str] | None, ignored: Counter[str], noun: str
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
            f"{len(empty)} of {len(classes)} class folders of {root} hold no {noun}: {shown(empty)}; below {root} are "
            f"{len(numbers)} {noun} and {suffix_counts(ignored)}"
        )
    return files, np.asarray(numbers, dtype=np.int64)
