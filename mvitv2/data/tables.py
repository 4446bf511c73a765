"""Lists of files and labels as people have them: CSV, TSV, JSON lines, or ``path label`` a line, read to rows.

The form is told from the content, and what is ambiguous is refused with the columns that are there.
"""

import csv
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mvitv2.data.labelled import DataError
from mvitv2.data.names import shown
from mvitv2.data.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, close_names

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt", ".lst")
"""Names that are taken for lists."""
FILE_COLUMNS = (
    "file", "path", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "img_path",
    "image_file", "image_name", "imageid", "image_id", "video", "video_path", "video_file", "clip", "clip_path",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "class_name", "classname", "category", "target", "wnid", "synset", "y", "class_id",
    "class_index", "label_id", "label_index", "index", "predictionstring", "name",
)  # fmt: skip
"""Columns by the names people give them, upper or lower case; of several, the first here."""
SPLIT_COLUMNS = ("split", "subset", "fold", "set", "partition")

_SHOWN_LINES = 5
_MEDIA = IMAGE_SUFFIXES | VIDEO_SUFFIXES


@dataclass(frozen=True)
class Columns:
    """Which columns to take where their names say nothing."""

    file: str | None = None
    label: str | None = None


@dataclass
class Rows:
    """A list that was read: file, label and split of every line that is not empty, and the number of that line."""

    path: Path
    files: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    """Empty without such a column."""
    lines: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.files)

    def where(self, wanted: Sequence[int]) -> str:
        """The lines of some rows, in a message."""
        lines = [str(self.lines[row]) for row in wanted[:_SHOWN_LINES]]
        more = f", ... ({len(wanted)} in all)" if len(wanted) > _SHOWN_LINES else ""
        return f"line{'s' * (len(wanted) > 1)} {', '.join(lines)}{more}"


Record = tuple[int, list[str]]
"""The number of a line, and its cells."""


def read_rows(path: str | os.PathLike[str], columns: Columns | None = None) -> Rows:
    """The rows of a list.

    Args:
        path: ``.csv``, ``.tsv``, ``.jsonl``, or lines of a path, a space and a label.
        columns: Which columns hold files and labels, where they are not called so.

    Raises:
        DataError: It cannot be read, or its columns cannot be told, or lines are incomplete (they are named).
    """
    file, wanted = Path(path), columns or Columns()
    header, records = _records(file, _text(file))
    if not records:
        raise DataError(f"{file}: has no rows; expected a file and a label on each line")
    rows = Rows(file)
    first = records[0][1]
    places = _named_places(file, header, wanted) if header else _unnamed_places(file, first, wanted)
    _fill(rows, records, *places)
    return rows


def listed_splits(path: str | os.PathLike[str]) -> set[str]:
    """What the column of splits says, in lower case; nothing without such a column.

    Raises:
        DataError: The list cannot be read.
    """
    text = _text(Path(path))
    start = _first_line(text).casefold()
    if not any(name in start for name in SPLIT_COLUMNS):
        return set()
    header, records = _records(Path(path), text)
    names = [name.casefold() for name in header]
    place = next((names.index(name) for name in SPLIT_COLUMNS if name in names), None)
    return set() if place is None else {cells[place].casefold() for _, cells in records if len(cells) > place}


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether the first line has more than one cell: not a bare list of labels."""
    file = Path(path)
    start = _first_line(_text(file))
    return file.suffix.lower() in (".jsonl", ".ndjson") or len(re.split(r"[\s,;]+", start.strip())) > 1


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")


def _text(file: Path) -> str:
    """The text of a list.

    Raises:
        DataError: It cannot be read, or is none.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file}: the list cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        why = f"{error.reason} at byte {error.start}"
        raise DataError(f"{file}: is no text in UTF-8 ({why}); save it as UTF-8") from error


def _records(file: Path, text: str) -> tuple[list[str], list[Record]]:
    """The header of a list (empty without one), and its rows."""
    read = _json_records if file.suffix.lower() in (".jsonl", ".ndjson") else _table_records
    return read(file, text)


def _table_records(file: Path, text: str) -> tuple[list[str], list[Record]]:
    """The header of a table (empty without one), and its rows."""
    delimiter = _delimiter(file.suffix.lower(), _first_line(text))
    if delimiter is None:
        # the label is the last word, so that spaces in file names need no quotes
        records = [(n, line.strip().rsplit(None, 1)) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    else:
        records = list(_delimited(file, text, delimiter))
    return (records[0][1], records[1:]) if _is_header([cells for _, cells in records[:2]]) else ([], records)


def _is_header(rows: list[list[str]]) -> bool:
    """Whether the first of two rows names columns: by a known name, or by having no picture where the next has one."""
    if not rows or any(map(_is_image, rows[0])):
        return False
    names = {cell.casefold() for cell in rows[0]}
    return bool(names & {*FILE_COLUMNS, *LABEL_COLUMNS, *SPLIT_COLUMNS}) or any(map(_is_image, rows[-1]))


def _delimiter(suffix: str, first: str) -> str | None:
    """What parts the columns; ``None``: the last space of a line, as in SlowFast's and Caffe's lists."""
    if suffix in (".csv", ".tsv") or "\t" in first:
        return next((mark for mark in ("\t,;" if suffix == ".tsv" else ",;\t") if mark in first), None)
    after_name = re.search(r"\.(\w+)[\"']?\s*([,;])", first)
    return after_name[2] if after_name and f".{after_name[1].lower()}" in _MEDIA else None


def _delimited(file: Path, text: str, delimiter: str) -> Iterator[Record]:
    """The cells of every line that is not empty."""
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise DataError(f"{file}: line {reader.line_num} is no valid table ({error}); check its quotes") from error


def _json_records(file: Path, text: str) -> tuple[list[str], list[Record]]:
    """The keys of all JSON lines as a header, and their values."""
    entries: list[tuple[int, dict[str, object]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise DataError(f"{file}: line {number} is no JSON ({error})") from error
        if not isinstance(entry, dict):
            raise DataError(
                f"{file}: line {number} is {type(entry).__name__}, expected an object with a file and a label"
            )
        entries.append((number, entry))
    header = list(dict.fromkeys(key for _, entry in entries for key in entry))
    return header, [(number, [_cell(entry.get(key)) for key in header]) for number, entry in entries]


def _cell(value: object) -> str:
    """A JSON value as a table would have it; nothing for null, lists and objects."""
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _named_places(file: Path, header: list[str], wanted: Columns) -> tuple[int, int, int | None]:
    """Which columns hold file, label and split, by their names.

    Raises:
        DataError: It cannot be told; the columns are listed.
    """
    names = [name.casefold() for name in header]
    found: dict[str, int | None] = {}
    for kind, choice, known in (("file", wanted.file, FILE_COLUMNS), ("label", wanted.label, LABEL_COLUMNS)):
        if choice is not None and choice.casefold() not in names:
            raise DataError(
                f"{file}: has no column {choice!r}{close_names(choice, header)}; it has {', '.join(header)}"
            )
        takes = (choice.casefold(),) if choice is not None else known
        found[kind] = next((names.index(name) for name in takes if name in names), None)
    for kind, other in (("file", "label"), ("label", "file")):
        if found[kind] is None and found[other] is not None and len(header) == 2:
            found[kind] = 1 - (found[other] or 0)
    if found["file"] is None or found["label"] is None:
        missing = [f"{kind}_column" for kind in ("file", "label") if found[kind] is None]
        raise DataError(
            f"{file}: which of its columns {', '.join(header)} is meant cannot be told; "
            f"say {' and '.join(missing)}, or call them 'file' and 'label'"
        )
    return found["file"], found["label"], next((names.index(n) for n in SPLIT_COLUMNS if n in names), None)


def _unnamed_places(file: Path, first: list[str], wanted: Columns) -> tuple[int, int, None]:
    """File and label of a list without a header: its first and second column.

    Raises:
        DataError: The first row does not look so.
    """
    if wanted != Columns():
        raise DataError(f"{file}: has no header, so that no column is called {wanted.file or wanted.label!r}")
    if len(first) < 2 or (not _is_image(first[0]) and _is_image(first[1])):
        raise DataError(
            f"{file}: begins with {' | '.join(first)!r}; expected a file and a label, or a header such as 'file,label'"
        )
    return 0, 1, None


def _fill(rows: Rows, records: list[Record], file: int, label: int, split: int | None) -> None:
    """Take the three columns of every record.

    Raises:
        DataError: Some lines lack one of them.
    """
    columns = (file, label) if split is None else (file, label, split)
    incomplete = [
        number for number, cells in records if len(cells) <= max(columns) or not all(cells[c] for c in columns)
    ]
    if incomplete:
        raise DataError(
            f"{rows.path}: {len(incomplete)} of {len(records)} lines lack a file or a label: "
            f"{shown(list(map(str, incomplete)))}"
        )
    for number, cells in records:
        rows.files.append(cells[file])
        rows.labels.append(sys.intern(cells[label]))
        rows.lines.append(number)
        if split is not None:
            rows.splits.append(sys.intern(cells[split].casefold()))


def _is_image(cell: str) -> bool:
    """Whether a cell ends as names of pictures or clips do."""
    return re.sub(r".*\.", ".", cell.lower()) in _MEDIA
