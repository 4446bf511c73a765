"""Answers kept in a file as they come: JSON lines, CSV or Parquet, with a memory of what is in it already.

A file that a run was killed over is whole up to its last record; what was cut off is removed when it is opened again.
Parquet cannot grow, so a folder of that name gets one part after another, which every reader takes as one table.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from mvitv2.data.store import written_whole
from mvitv2.extras import required

SUFFIXES = (".jsonl", ".csv", ".parquet")
PART_ROWS = 4096
"""Records of one part of a Parquet file, at most,"""
PART_VALUES = 4_000_000
"""and numbers in their lists."""


class Records(Protocol):
    """A file of records that is being written."""

    def names(self) -> Iterator[str]:
        """Names in the field ``file`` of what is in it already."""
        ...

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record."""
        ...

    def close(self) -> None:
        """Write what is waiting."""
        ...


class Done:
    """Which names are done, in eight bytes each.

    Args:
        names: Any number of them.
    """

    def __init__(self, names: Iterable[str]):
        self.marks = np.unique(np.fromiter(map(_mark, names), dtype=np.uint64))

    def __len__(self) -> int:
        return len(self.marks)

    def __contains__(self, name: str) -> bool:
        place = int(np.searchsorted(self.marks, np.uint64(_mark(name))))
        return place < len(self.marks) and int(self.marks[place]) == _mark(name)


def _mark(name: str) -> int:
    """64 bits of a hash: of a million names, the chance that any two share one is 3e-8."""
    plain = name.replace("\n", "\\n").replace("\r", "\\r").encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(plain, digest_size=8).digest(), "little")


class JsonLinesFile:
    """One JSON object a line.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path):
        self.path = path
        self.file = _appended(path)

    def names(self) -> Iterator[str]:
        """Of the lines that are there."""
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                yield str(json.loads(line)["file"])

    def write(self, record: Mapping[str, Any]) -> None:
        """A line."""
        self.file.write((json.dumps(record) + "\n").encode())
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class CsvFile:
    """A header, and a row for each record; lists take a column for each place.

    Args:
        path: Of the file.
        header: Names of the columns.

    Raises:
        ValueError: The file has other columns.
    """

    def __init__(self, path: Path, header: Sequence[str]):
        self.path, self.header = path, list(header)
        self.file = _appended(path)
        if self.file.tell() == 0:
            self._row(self.header)
        else:
            with path.open(newline="", encoding="utf-8") as file:
                there = next(csv.reader(file))
            if there != self.header:
                self.file.close()
                raise ValueError(f"{path} has the columns {', '.join(there)}; these answers have {', '.join(header)}")

    def names(self) -> Iterator[str]:
        """Of the rows that are there."""
        with self.path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                yield row["file"]

    def write(self, record: Mapping[str, Any]) -> None:
        """A row: columns by name, ``NAME_1``, ``NAME_2``, ... for the places of lists."""
        self._row([_cell(record, column) for column in self.header])

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _row(self, cells: Sequence[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        # a name with a line break would hide where rows end from who repairs the file
        self.file.write((text.getvalue()[:-1].replace("\n", "\\n").replace("\r", "\\r") + "\n").encode())
        self.file.flush()


def _cell(record: Mapping[str, Any], column: str) -> Any:
    """The value of a column."""
    if column in record:
        return "" if record[column] is None else record[column]
    name, _, place = column.rpartition("_")
    values = record.get(name) or ()
    return values[int(place) - 1] if int(place) <= len(values) else ""


class ParquetFolder:
    """A folder of Parquet parts; needs pyarrow, the extra ``train``.

    Args:
        path: Of the folder.
        kinds: Column -> ``text``, ``number``, or a list: ``texts``, ``integers``, ``numbers``, ``vector`` (float32).
    """

    def __init__(self, path: Path, kinds: Mapping[str, str]):
        self.path, self.rows, self.size = path, [], 0
        self.arrow: Any = required("pyarrow", extra="train")
        self.parquet: Any = required("pyarrow.parquet", extra="train")
        self.schema = self.arrow.schema([(name, self._type(kind)) for name, kind in kinds.items()])
        path.mkdir(exist_ok=True)
        self.parts = sorted(path.glob("part-*.parquet"))

    def names(self) -> Iterator[str]:
        """Of the parts that are there."""
        for part in self.parts:
            yield from self.parquet.read_table(part, columns=["file"]).column("file").to_pylist()

    def write(self, record: Mapping[str, Any]) -> None:
        """Keep a record, until there are enough for a part."""
        self.rows.append({name: record.get(name) for name in self.schema.names})
        self.size += sum(len(value) for value in record.values() if hasattr(value, "__len__"))
        if len(self.rows) >= PART_ROWS or self.size >= PART_VALUES:
            self.flush()

    def flush(self) -> None:
        """Write a part, whole or not at all."""
        table = self.arrow.Table.from_pylist(self.rows, schema=self.schema)
        number = int(self.parts[-1].stem.removeprefix("part-")) + 1 if self.parts else 0
        target = self.path / f"part-{number:06d}.parquet"
        with written_whole(target) as temporary:
            self.parquet.write_table(table, temporary)
        self.parts.append(target)
        self.rows, self.size = [], 0

    def close(self) -> None:
        """Write what is left."""
        if self.rows:
            self.flush()

    def _type(self, kind: str) -> Any:
        arrow = self.arrow
        lists = {
            "texts": arrow.string(),
            "integers": arrow.int64(),
            "numbers": arrow.float64(),
            "vector": arrow.float32(),
        }
        if kind in lists:
            return arrow.list_(lists[kind])
        return arrow.float64() if kind == "number" else arrow.string()


def opened(path: Path, kinds: Mapping[str, str], header: Sequence[str], *, resume: bool) -> Records:
    """A file of records, by the end of its name.

    Args:
        path: Ends with one of :data:`SUFFIXES`.
        kinds: Fields of a record, for Parquet, as :class:`ParquetFolder` has them.
        header: Columns of CSV.
        resume: Go on with the file that is there; otherwise there may be none.

    Raises:
        ValueError: Another kind of file, its folder is missing, or there is one already.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: answers are written as {', '.join(SUFFIXES)}; the end of the name says which")
    check_target(path, resume=resume)
    match path.suffix.lower():
        case ".jsonl":
            return JsonLinesFile(path)
        case ".csv":
            return CsvFile(path, header)
    return ParquetFolder(path, kinds)


def check_target(path: Path, *, resume: bool) -> None:
    """Refuse a file that cannot be written, or must not be.

    Raises:
        ValueError: Its folder is missing, or it is there and ``resume`` is not asked for.
    """
    if not path.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to write {path.name} to; make it first")
    if path.exists() and not resume:
        raise ValueError(f"{path} exists already; --resume goes on with it, or choose another name")


def _appended(path: Path) -> BinaryIO:
    """The file, opened to be appended to, without a last line that was cut off."""
    if path.exists():
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            whole = _last_break(file, size)
            if whole < size:
                file.truncate(whole)
    return path.open("ab")


def _last_break(file: BinaryIO, size: int, step: int = 1 << 16) -> int:
    """Where the last line that has an end, ends."""
    stop = size
    while stop > 0:
        start = max(0, stop - step)
        file.seek(start)
        place = file.read(stop - start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        stop = start
    return 0
