"""The forms a split can lie in, each as a frozen record that knows how to open itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvitv2.data.digits import Digits
from mvitv2.data.folder import ImageFolder
from mvitv2.data.hub import HubImages, hub_splits
from mvitv2.data.labelled import DataError, LabelledImages, Transform
from mvitv2.data.listed import ListReading, open_list
from mvitv2.data.remote import ShardCache
from mvitv2.data.shards import TarShards
from mvitv2.data.truth import open_flat


@dataclass(frozen=True, kw_only=True)
class Reading(ListReading):
    """How data is read, where its form leaves it open; fields that a form has no use for are not looked at."""

    on_error: str = "raise"
    """``"raise"``, or ``"skip"`` for an ``Unreadable`` in place of the sample."""
    max_pixels: int | None = None
    """Pictures of more pixels are refused; ``None``: :data:`mvitv2.data.images.MAX_PIXELS`."""
    all_files: bool = False
    """Take files in folders for images whatever their names end with."""
    image_column: str | None = None
    """Column of the pictures in a Hugging Face data set."""
    cache: ShardCache | None = None
    """Where fetched shards are kept."""

    def common(self) -> dict[str, Any]:
        """What every form takes."""
        limit = {} if self.max_pixels is None else {"max_pixels": self.max_pixels}
        return {"on_error": self.on_error, **limit}


Classes = Sequence[str] | None


@dataclass(frozen=True)
class FolderForm:
    """Class folders."""

    folder: Path

    def open(self, transform: Transform | None, classes: Classes, names: Classes, how: Reading) -> LabelledImages:
        """See :class:`ImageFolder`."""
        options = {**how.common(), **({"suffixes": None} if how.all_files else {})}
        return ImageFolder(self.folder, transform, classes=classes, class_names=names, **options)


@dataclass(frozen=True)
class FlatForm:
    """Pictures in one folder, and a file that says what they are."""

    folder: Path
    truth: Path

    def open(self, transform: Transform | None, classes: Classes, names: Classes, how: Reading) -> LabelledImages:
        """See :func:`open_flat`."""
        return open_flat(self.folder, self.truth, transform, classes=classes, class_names=names, **how.common())


@dataclass(frozen=True)
class ListForm:
    """A list of files and labels, or the rows of one split in it."""

    path: Path
    split: str | None = None
    spellings: tuple[str, ...] = ()

    def open(self, transform: Transform | None, classes: Classes, names: Classes, how: Reading) -> LabelledImages:
        """See :func:`open_list`."""
        return open_list(
            self.path,
            transform,
            split=self.split,
            spellings=self.spellings,
            classes=classes,
            class_names=names,
            reading=how,
            **how.common(),
        )


@dataclass(frozen=True)
class ShardForm:
    """Tar shards: paths, URLs, patterns."""

    shards: tuple[str, ...]

    def open(self, transform: Transform | None, classes: Classes, names: Classes, how: Reading) -> LabelledImages:
        """See :class:`TarShards`."""
        return TarShards(self.shards, transform, classes=classes, class_names=names, cache=how.cache, **how.common())


@dataclass(frozen=True)
class HubForm:
    """A split of a Hugging Face data set, by the name it has there."""

    name: str
    split: str

    def open(self, transform: Transform | None, classes: Classes, names: Classes, how: Reading) -> LabelledImages:
        """See :class:`HubImages`.

        Raises:
            DataError: There is no such split.
        """
        tables = hub_splits(self.name)
        if self.split not in tables:
            raise DataError(f"hf:{self.name}: has no split {self.split!r}, it has {', '.join(tables)}")
        return HubImages(
            tables[self.split],
            transform,
            origin=f"hf:{self.name}#{self.split}",
            classes=classes,
            class_names=names,
            image_column=how.image_column,
            label_column=how.label_column,
            **how.common(),
        )


@dataclass(frozen=True)
class DigitsForm:
    """A split of the built-in digits."""

    split: str

    def open(self, transform: Transform | None, classes: Classes, names: Classes, how: Reading) -> LabelledImages:
        """See :class:`Digits`. Nothing of them is unreadable, so ``how`` says nothing."""
        digits = Digits(self.split, transform)
        if classes is not None and tuple(classes) != digits.classes:
            raise DataError(f"the digits have the classes 0 to 9, the model has others: {', '.join(classes[:4])}, ...")
        digits.name_classes(digits.classes, names)
        return digits


Form = FolderForm | FlatForm | ListForm | ShardForm | HubForm | DigitsForm
