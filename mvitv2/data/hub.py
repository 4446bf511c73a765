"""Data sets of the Hugging Face library, by name or from a local folder: random access through its Arrow tables."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mvitv2.data.classes import numbered, unknown_message
from mvitv2.data.images import ImageError
from mvitv2.data.labelled import DataError, LabelledImages, Transform
from mvitv2.data.sources import close_names
from mvitv2.data.store import is_offline
from mvitv2.extras import required

IMAGE_COLUMNS = ("image", "img", "picture", "pixel_values", "jpg", "png", "webp")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "cls", "category")
"""Columns by the names people give them; of several, the first here."""

ALONE = "all"
"""What the split of a table is called that was saved alone."""

_SAVED = ("dataset_dict.json", "state.json")
_NAME = re.compile(r"(?P<name>[^:@#]+)(?:@(?P<revision>[^:#]+))?(?::(?P<config>[^#]+))?")


class HubImages(LabelledImages):
    """One split of a Hugging Face data set. Pictures are read from their own bytes, as those in files are.

    Attributes:
        origin: What was opened, for messages.
    """

    def __init__(
        self,
        table: Any,
        transform: Transform | None = None,
        *,
        origin: str,
        classes: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        **options: Any,
    ) -> None:
        """Find the columns and read the labels; no image is opened.

        Args:
            table: A ``datasets.Dataset``.
            transform: A picture to a tensor; without one, items hold the RGB picture itself.
            origin: What to call it.
            classes: The classes labels are of (those of the training split); ``None``: those of its label column.
            class_names: One name per class, for people.
            image_column: Holds the pictures, where that is not to be told from names and types.
            label_column: Holds the labels.
            **options: ``on_error`` and ``max_pixels`` of :class:`LabelledImages`.

        Raises:
            DataError: There is no such column, or rows have unknown labels or none.
        """
        super().__init__(transform, **options)
        self.origin = origin
        library = required("datasets", extra="train")
        self._image = _image_column(library, table, origin, image_column)
        label = _label_column(table, origin, label_column)
        self.labels, known = _labels(library, table, origin, label, classes)
        self.name_classes(known, class_names)
        images = table.select_columns([self._image])
        if isinstance(table.features[self._image], library.Image):
            images = images.cast_column(self._image, library.Image(decode=False))
        self._table = images
        self._stamp = str(table._fingerprint)

    def __str__(self) -> str:
        return self.origin

    def _cell(self, index: int) -> tuple[bytes | None, str | None]:
        """The bytes of a picture, or the file it is in."""
        cell = self._table[int(index)][self._image]
        if isinstance(cell, dict):
            return cell.get("bytes"), cell.get("path")
        return (cell, None) if isinstance(cell, bytes) else (None, cell)

    def path(self, index: int) -> Path:
        """The file a picture came from where that is known, else its place in the table."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} rows")
        data, path = self._cell(index)
        if data is None and path:
            return Path(path)
        name = Path(path).name if path else ""
        return Path(self.origin) / f"{index % len(self)}{f'_{name}' if name else ''}"

    def stamp(self, index: int) -> str:
        """The fingerprint of the table, and the place in it."""
        return f"{self._stamp}\0{index}"

    def source(self, index: int) -> bytes | Path:
        """The bytes of a picture, or its file.

        Raises:
            ImageError: The row has none.
        """
        data, path = self._cell(index)
        if data is None and not path:
            raise ImageError("is an empty row: there is no picture in it", str(self.path(index)))
        return Path(str(path)) if data is None else data


def hub_splits(name: str) -> dict[str, Any]:
    """The splits of a data set as ``datasets.Dataset``, by its own names for them.

    Args:
        name: A local folder (saved by the library, or of files that it reads), else ``NAME``, ``NAME@REVISION``,
            ``NAME:CONFIG`` of the hub.

    Raises:
        DataError: It cannot be loaded; the library's own reason is said.
        MissingExtra: The library is not installed.
    """
    library = required("datasets", extra="train")
    folder = Path(name).expanduser()
    try:
        with _quiet_unless_watched(library):
            if folder.is_dir() and any((folder / mark).is_file() for mark in _SAVED):
                found = library.load_from_disk(str(folder))
            elif folder.is_dir():
                found = library.load_dataset(str(folder))
            else:
                found = _from_hub(library, name)
    except (OSError, ValueError, RuntimeError, KeyError, library.exceptions.DatasetsError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"hf:{name}: cannot be loaded by the datasets library ({reason})") from error
    return dict(found) if isinstance(found, dict) else {ALONE: found}


def _from_hub(library: ModuleType, name: str) -> Any:
    """A data set by the name it has on the hub.

    Raises:
        DataError: That is no name.
    """
    match = _NAME.fullmatch(name)
    if match is None or name.startswith((".", "/", "~")):
        raise DataError(
            f"hf:{name}: is no folder here, and no name such as owner/name, owner/name@revision or name:config"
        )
    config = library.DownloadConfig(local_files_only=is_offline())
    return library.load_dataset(match["name"], match["config"], revision=match["revision"], download_config=config)


@contextmanager
def _quiet_unless_watched(library: ModuleType) -> Iterator[None]:
    """Without the library's progress bars where nobody looks at a terminal."""
    if sys.stderr.isatty() or library.are_progress_bars_disabled():
        yield
        return
    library.disable_progress_bars()
    try:
        yield
    finally:
        library.enable_progress_bars()


def _image_column(library: ModuleType, table: Any, origin: str, wanted: str | None) -> str:
    """The column of the pictures.

    Raises:
        DataError: There is none, or several.
    """
    features = table.features
    pictures = [name for name, feature in features.items() if isinstance(feature, library.Image)]
    binary = [n for n in features if n in IMAGE_COLUMNS and getattr(features[n], "dtype", None) in ("binary", "string")]
    candidates = pictures or binary
    if wanted is not None:
        if wanted not in features:
            raise DataError(
                f"{origin}: has no column {wanted!r}{close_names(wanted, features)}; it has {_columns(table)}"
            )
        return wanted
    named = [name for name in IMAGE_COLUMNS if name in candidates]
    if named or len(candidates) == 1:
        return (named or candidates)[0]
    raise DataError(
        f"{origin}: which column holds the pictures cannot be told; say image_column; it has {_columns(table)}"
    )


def _label_column(table: Any, origin: str, wanted: str | None) -> str:
    """The column of the labels.

    Raises:
        DataError: There is none.
    """
    if wanted is not None and wanted not in table.features:
        close = close_names(wanted, table.features)
        raise DataError(f"{origin}: has no column {wanted!r}{close}; it has {_columns(table)}")
    found = wanted or next((name for name in LABEL_COLUMNS if name in table.features), None)
    if found is None:
        raise DataError(
            f"{origin}: which column holds the labels cannot be told; say label_column; it has {_columns(table)}"
        )
    return found


def _columns(table: Any) -> str:
    """The columns, in a message."""
    return ", ".join(f"{name} ({type(feature).__name__})" for name, feature in table.features.items())


def _labels(
    library: ModuleType, table: Any, origin: str, column: str, classes: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels of every row as indices, and the classes.

    Raises:
        DataError: Rows have no label, or unknown ones, or several.
    """
    values = table.select_columns([column]).with_format("arrow")[:][column]
    if values.null_count:
        raise DataError(
            f"{origin}: {values.null_count} of {len(table)} rows have no {column}; choose a split with labels"
        )
    plain = values.to_pylist()
    feature = table.features[column]
    if isinstance(feature, library.ClassLabel):
        missing = sum(not 0 <= value < len(feature.names) for value in plain)
        if missing:
            raise DataError(f"{origin}: {missing} of {len(table)} rows have no {column}; choose a split with labels")
        if classes is None:
            return np.asarray(plain, np.int64), tuple(feature.names)
        plain = [feature.names[value] for value in plain]
    if not all(isinstance(value, int | str) for value in plain[:1]):
        raise DataError(
            f"{origin}: {column} holds {type(plain[0]).__name__}, expected one whole number or name per row"
        )
    labels, known, unknown = numbered([str(value) for value in plain], classes)
    if unknown:
        raise DataError(f"{origin}: {unknown_message(unknown, known)}")
    return labels, known
