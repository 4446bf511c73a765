"""A list of files and labels as a data set."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mvitv2.data.classes import class_file_in, class_list, numbered, unknown_message
from mvitv2.data.labelled import DataError, LabelledImages, Transform, file_stamp
from mvitv2.data.names import PackedNames, shown
from mvitv2.data.tables import Columns, Rows, read_rows

_PROBED = 16  # files of a list that are looked for before it is used


@dataclass(frozen=True, kw_only=True)
class ListReading:
    """How a list is read, where its form leaves it open."""

    data_root: str | os.PathLike[str] | None = None
    """Folder that relative paths start from; ``None``: the folder of the list."""
    allow_outside: bool = False
    """Take files outside that folder, by absolute paths or ``..``."""
    file_column: str | None = None
    """Column of the files, where it is not called so."""
    label_column: str | None = None
    """Column of the labels, where it is not called so."""
    classes_file: str | os.PathLike[str] | None = None
    """Lists the classes in the order of their indices; ``None``: ``classes.txt`` and the like beside the list."""


class ImageList(LabelledImages):
    """The pictures that a list names, with its labels.

    Labels are names of classes or their indices (:func:`mvitv2.data.classes.numbered`). A file that is listed again
    counts once, which is noted.

    Attributes:
        list: The file that lists them.
        root: Folder that its paths start from.
    """

    def __init__(
        self,
        rows: Rows,
        transform: Transform | None = None,
        *,
        roots: Sequence[Path],
        classes: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        allow_outside: bool = False,
        **options: Any,
    ) -> None:
        """Number the labels and find the folder; no image is opened.

        Args:
            rows: Of :func:`mvitv2.data.tables.read_rows`.
            transform: A picture to a tensor; without one, items hold the RGB picture itself.
            roots: Folders that paths may start from; the first in which one of a few files is found.
            classes: What labels number or name; ``None``: they are the names themselves.
            class_names: One name per class, for people.
            allow_outside: Take files outside the folder.
            **options: ``on_error`` and ``max_pixels`` of :class:`LabelledImages`.

        Raises:
            DataError: Unknown labels, one file with two labels, files outside the folder, or none of them is there.
        """
        super().__init__(transform, **options)
        self.list = rows.path
        labels, known, unknown = numbered(rows.labels, classes)
        if unknown:
            wrong = [row for row, label in enumerate(labels) if label < 0]
            raise DataError(f"{rows.path}: {unknown_message(unknown, known)}; {rows.where(wrong)}")
        self.name_classes(known, class_names)
        self.root = _root(rows, roots)
        kept = _once_each(rows, self.root, labels, allow_outside=allow_outside)
        if len(kept) < len(rows):
            again = sorted({*range(len(rows))} - {*kept})
            self.notes = (f"{rows.path.name} lists {len(again)} files again ({rows.where(again)}); each counts once",)
        self._files = PackedNames(rows.files[row] for row in kept)
        self.labels = labels[np.asarray(kept, dtype=np.int64)]

    def __str__(self) -> str:
        return str(self.list)

    def path(self, index: int) -> Path:
        """The file of a sample."""
        return self.root / self._files[index]

    def source(self, index: int) -> Path:
        """The file of a sample."""
        return self.path(index)

    def stamp(self, index: int) -> str:
        """Name, size and time of its file."""
        return file_stamp(self.path(index))


def open_list(
    path: str | os.PathLike[str],
    transform: Transform | None = None,
    *,
    split: str | None = None,
    spellings: Iterable[str] = (),
    classes: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    reading: ListReading | None = None,
    **options: Any,
) -> ImageList:
    """The data set in a list.

    Args:
        path: CSV, TSV, JSON lines, or lines of a path, a space and a label.
        transform: A picture to a tensor.
        split: Only rows whose column ``split`` says so; also a folder beside the list that paths may start from.
        spellings: How that column may write the split.
        classes: The classes labels are of (those of the training split), before any file of classes.
        class_names: One name per class, for people.
        reading: Root, columns, classes.
        **options: ``on_error`` and ``max_pixels``.

    Raises:
        DataError: The list cannot be used; the message says which lines, and what was expected.
    """
    how = reading or ListReading()
    rows = read_rows(path, Columns(how.file_column, how.label_column))
    folder = rows.path.parent
    names = [split, *spellings] if split is not None else []
    if rows.splits and names:
        rows = chosen(rows, names)
    file = Path(how.classes_file) if how.classes_file is not None else class_file_in(folder)
    if classes is None and file is not None:
        classes, listed = class_list(file)
        class_names = listed if class_names is None else class_names
    roots = (
        [Path(how.data_root)]
        if how.data_root is not None
        else [folder, *(folder / name for name in names if (folder / name).is_dir())]
    )
    return ImageList(
        rows,
        transform,
        roots=roots,
        classes=classes,
        class_names=class_names,
        allow_outside=how.allow_outside,
        **options,
    )


def chosen(rows: Rows, spellings: Sequence[str]) -> Rows:
    """The rows of one split.

    Raises:
        DataError: There are none.
    """
    take = [row for row, value in enumerate(rows.splits) if value in spellings]
    if not take:
        raise DataError(f"{rows.path}: no row is of the split {spellings[0]!r}; there are {shown(set(rows.splits))}")
    files, labels, splits = ([column[row] for row in take] for column in (rows.files, rows.labels, rows.splits))
    return Rows(rows.path, files, labels, splits, [rows.lines[row] for row in take])


def _root(rows: Rows, roots: Sequence[Path]) -> Path:
    """The first folder below which one of a few listed files is found.

    Raises:
        DataError: There is none; the paths that were tried are said.
    """
    step = -(-len(rows) // _PROBED)
    probed = rows.files[::step]
    for root in roots:
        if any(os.path.lexists(root / name) for name in probed):
            return root
    slashes = "; it is written with backslashes, use /" if "\\" in probed[0] and "/" not in probed[0] else ""
    tried = " and ".join(str(root / probed[0]) for root in roots)
    raise DataError(
        f"{rows.path}: none of {len(probed)} listed files is there; tried {tried}{slashes}; "
        "give the folder that its paths start from (data root)"
    )


def _once_each(rows: Rows, root: Path, labels: np.ndarray, *, allow_outside: bool) -> list[int]:
    """The first row of every file.

    Whether a file is outside is told from its path alone: a link inside the folder was put there by whoever owns it.

    Raises:
        DataError: Files outside ``root``, or with two labels.
    """
    # strings and not Path objects: there may be a million
    base = os.path.abspath(root)  # noqa: PTH100
    first: dict[str, int] = {}
    kept, outside, contrary = [], [], []
    for row, name in enumerate(rows.files):
        plain = name if "." not in name[:1] and "/." not in name and "//" not in name else os.path.normpath(name)
        if os.path.isabs(plain) or plain.startswith(".."):  # noqa: PTH117
            plain = os.path.relpath(os.path.join(base, plain), base)  # noqa: PTH118
            if plain.partition(os.sep)[0] == os.pardir and not allow_outside:
                outside.append(row)
        before = first.setdefault(plain, row)
        if before == row:
            kept.append(row)
        elif labels[before] != labels[row]:
            contrary.append(row)
    if outside:
        raise DataError(
            f"{rows.path}: {len(outside)} files are outside {root}, first {rows.files[outside[0]]!r} "
            f"({rows.where(outside)}); move the data root up, or allow files outside it"
        )
    if contrary:
        raise DataError(
            f"{rows.path}: {len(contrary)} files are listed with another label before, first "
            f"{rows.files[contrary[0]]!r} ({rows.where(contrary)}); a picture has one class"
        )
    return kept
