"""Objects kept in a file as they are found: JSON lines, CSV or Parquet, with a memory of what is in it already.

A picture or clip that a stop may have cut in two is the last in its file: its records are removed when the file is
opened again, and it is looked at once more.
"""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mvitv2.data.store import written_whole
from mvitv2.extras import required
from mvitv2.tasks.records import SUFFIXES, CsvFile, JsonLinesFile, ParquetFolder, Records, check_target

SIDES = ("left", "top", "right", "bottom")
COLUMNS: tuple[str, ...] = ("file", "error", "class", "index", "score", *SIDES, "frame", "seconds")
"""Of CSV, in which every object has a row."""
ABOUT = ("file", "error", "frame", "seconds")
KINDS = {
    **dict.fromkeys(("file", "error"), "text"),
    **dict.fromkeys(("frame", "seconds", "height", "width"), "number"),
    **{"class": "texts", "index": "integers", "score": "numbers"},
    **dict.fromkeys(SIDES, "numbers"),
    "mask": "texts",
}
"""Of Parquet, in which every picture or frame has a row; masks are COCO's run lengths as JSON."""


def rows_of(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row of CSV for each object of an answer; one without an object where there is none.

    Args:
        answer: Of :meth:`mvitv2.tasks.found.ObjectsFound.to_dict`.
    """
    about: dict[str, Any] = {name: answer.get(name) if name in ABOUT else None for name in COLUMNS}
    rows = [
        {**about, "class": one["class"], "index": one["index"], "score": one["score"], **_sides(one)}
        for one in answer["objects"]
    ]
    return rows or [about]


def _sides(one: Mapping[str, Any]) -> dict[str, float]:
    return dict(zip(SIDES, one["box"], strict=True))


class ObjectRows(CsvFile):
    """A header, and a row for each object."""

    def __init__(self, path: Path):
        super().__init__(path, COLUMNS)

    def write(self, record: Mapping[str, Any]) -> None:
        """The rows of a picture or frame."""
        for row in rows_of(record):
            super().write(row)


class ObjectParts(ParquetFolder):
    """A folder of Parquet parts, a row for each picture or frame."""

    def __init__(self, path: Path):
        super().__init__(path, KINDS)

    def write(self, record: Mapping[str, Any]) -> None:
        """A row."""
        found = record["objects"]
        lists = {name: [one[name] for one in found] for name in ("class", "index", "score")}
        lists |= {name: [one["box"][place] for one in found] for place, name in enumerate(SIDES)}
        masks = [json.dumps(one["mask"]) for one in found if "mask" in one]
        super().write({**record, **lists, "mask": masks})


FORMS: dict[str, Callable[[Path], Records]] = {".jsonl": JsonLinesFile, ".csv": ObjectRows, ".parquet": ObjectParts}


def opened_objects(path: Path, *, resume: bool) -> Records:
    """A file of objects, by the end of its name; what it is given are :meth:`~mvitv2.tasks.found.ObjectsFound.to_dict`.

    Args:
        path: Ends with one of :data:`mvitv2.tasks.records.SUFFIXES`.
        resume: Go on with the file that is there, without what is last in it; otherwise there may be none.

    Raises:
        ValueError: Another kind of file, its folder is missing, there is one already, or it is none of this form.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMS:
        raise ValueError(f"{path}: objects are written as {', '.join(SUFFIXES)}; the end of the name says which")
    check_target(path, resume=resume)
    if path.exists():
        (_parts_without_last if suffix == ".parquet" else _lines_without_last)(path)
    return FORMS[suffix](path)


def _lines_without_last(path: Path) -> None:
    """Cut a file before the first line of the name that is last in it.

    Raises:
        ValueError: It has other columns, or a line that is none of ours; it is as it was.
    """
    header = (",".join(COLUMNS) + "\n").encode() if path.suffix.lower() == ".csv" else b""
    name: str | None = None
    with path.open("r+b") as file:
        if (first := file.read(len(header))) != header and b"\n" in first:
            raise ValueError(f"{path} has other columns than {', '.join(COLUMNS)}; choose another name")
        start = place = len(header) if first == header else 0
        for line in file if first == header else ():
            if not line.endswith(b"\n"):
                break  # cut off within the line
            own = _name_in(line, path, table=bool(header))
            start, name = (start, name) if own == name else (place, own)
            place += len(line)
        file.truncate(start)


def _name_in(line: bytes, path: Path, *, table: bool) -> str:
    """The name of the file that a line is about.

    Raises:
        ValueError: The line is none of ours.
    """
    try:
        text = line.decode()
        return next(csv.reader([text]))[0] if table else str(json.loads(text)["file"])
    except (ValueError, KeyError, TypeError, StopIteration, IndexError) as error:
        raise ValueError(f"{path} has a line that is no answer: {line[:60]!r}; choose another name") from error


def _parts_without_last(path: Path) -> None:
    """Remove the rows of the name that is last in a folder of parts."""
    parquet: Any = required("pyarrow.parquet", extra="train")
    name: str | None = None
    for part in reversed(sorted(path.glob("part-*.parquet"))):
        table = parquet.read_table(part)
        files = table.column("file").to_pylist()
        name = files[-1] if name is None else name
        kept = len(files)
        while kept and files[kept - 1] == name:
            kept -= 1
        if kept:
            with written_whole(part) as temporary:
                parquet.write_table(table.slice(0, kept), temporary)
            return
        part.unlink()
