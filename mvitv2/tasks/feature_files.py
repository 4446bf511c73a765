"""Features kept in a file as they come: one NumPy array that grows, the same packed with its names, or Parquet."""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from mvitv2.data.store import written_whole
from mvitv2.tasks.features import Features
from mvitv2.tasks.records import ParquetFolder, Records, check_target

HEADER = 256
"""Bytes of a ``.npy`` before the first row."""


class ArrayFile:
    """One ``.npy`` that grows, and beside it a line of JSON for each picture: its file, its row, or why it has none.

    The header says how many rows are whole, and is written after them: what a killed process left is cut off.

    Args:
        path: Of the ``.npy``; the names are in ``.jsonl`` beside it.
        every: Rows between two headers.
    """

    def __init__(self, path: Path, *, every: int = 256):
        self.path, self.every, self.index = path, every, path.with_suffix(".jsonl")
        self.rows, self.shape, self.lines = 0, (), []
        self.file = path.open("r+b" if path.exists() else "w+b")
        if path.stat().st_size:
            version = npy.read_magic(self.file)
            whole, _, dtype = npy.read_array_header_1_0(self.file) if version == (1, 0) else ((0,), False, None)
            if dtype != np.float32 or self.file.tell() != HEADER:
                self.file.close()
                raise ValueError(f"{path} is no array that this command wrote; choose another name")
            self.shape = whole[1:]
            self._keep_whole_lines(whole[0])

    def _keep_whole_lines(self, rows: int) -> None:
        """Count what is whole in both files, and drop the rest: rows without a line are written again."""
        kept = [line for line in self._lines() if line["row"] is None or line["row"] < rows]
        self.rows = sum(line["row"] is not None for line in kept)
        with written_whole(self.index) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self.index.exists():
            return
        with self.index.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):
                    yield json.loads(line)

    def names(self) -> Iterator[str]:
        """Pictures that are in it."""
        return (line["file"] for line in self._lines())

    def write(self, record: Mapping[str, Any]) -> None:
        """Append the features of a picture, or note why there are none.

        Raises:
            ValueError: They have another shape than those before.
        """
        values = record["features"]
        row = None
        if values is not None:
            shape = tuple(record["shape"])
            if self.rows and shape != self.shape:
                raise ValueError(f"{record['file']} has features of {shape}, {self.path} holds {self.shape}")
            if not self.rows:
                self.shape = shape
                self._header()
            self.file.seek(HEADER + self.rows * int(np.prod(shape)) * 4)
            self.file.write(np.ascontiguousarray(values, dtype=np.float32).tobytes())
            row, self.rows = self.rows, self.rows + 1
        self.lines.append({"file": record["file"], "row": row, "error": record["error"]})
        if len(self.lines) >= self.every:
            self.flush()

    def flush(self) -> None:
        """Make what was written count."""
        self.file.flush()
        if self.rows:
            self._header()
        with self.index.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in self.lines))
        self.lines = []

    def _header(self) -> None:
        """A header of one length for any number of rows."""
        about = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, *self.shape)}
        text = repr(about).ljust(HEADER - 11) + "\n"
        self.file.seek(0)
        self.file.write(npy.magic(1, 0) + len(text).to_bytes(2, "little") + text.encode("ascii"))
        self.file.flush()

    def close(self) -> None:
        """Finish the file, and cut off what is no whole row."""
        self.flush()
        self._header()
        self.file.truncate(HEADER + self.rows * int(np.prod(self.shape)) * 4)
        self.file.close()


class ZipFile(ArrayFile):
    """``.npz`` with ``features`` and ``files``: an :class:`ArrayFile` until it is complete, then one file.

    Args:
        path: Of the ``.npz``.
    """

    def __init__(self, path: Path):
        self.target = path
        part = path.with_name(f"{path.stem}.part.npy")
        if path.exists() and not part.exists():
            unpacked(path, part)
        super().__init__(part)

    def close(self) -> None:
        """Pack both into one file, whole or not at all; pictures without features are left out."""
        super().close()
        files = np.array([line["file"] for line in self._lines() if line["row"] is not None], dtype=str)
        with written_whole(self.target) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as packed:
            packed.write(self.path, "features.npy")
            with packed.open("files.npy", "w", force_zip64=True) as entry:
                npy.write_array(entry, files, allow_pickle=False)
        for part in (self.path, self.index):
            part.unlink()


def unpacked(path: Path, part: Path) -> None:
    """A finished ``.npz`` as the two files that can grow.

    Raises:
        ValueError: It is none of ours.
    """
    try:
        with zipfile.ZipFile(path) as packed, packed.open("files.npy") as names:
            files = npy.read_array(names, allow_pickle=False).tolist()
            with written_whole(part) as temporary, packed.open("features.npy") as rows, temporary.open("wb") as copy:
                shutil.copyfileobj(rows, copy)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{path} is no file that this command wrote ({error}); choose another name") from error
    lines = (json.dumps({"file": file, "row": row, "error": None}) for row, file in enumerate(files))
    part.with_suffix(".jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


FORMS: dict[str, Callable[[Path], ArrayFile]] = {".npy": ArrayFile, ".npz": ZipFile}
KINDS = {"file": "text", "error": "text", "shape": "integers", "features": "vector"}
"""Columns of Parquet; a map lies in ``features`` row by row, and ``shape`` says of which size it is."""


def feature_records(path: Path, *, resume: bool) -> Records:
    """A file for features, by the end of its name: ``.npy``, ``.npz`` or ``.parquet``.

    Raises:
        ValueError: Another ending, no such folder, or there is one already and ``resume`` is not asked for.
    """
    kind = path.suffix.lower()
    if kind not in (*FORMS, ".parquet"):
        raise ValueError(f"{path}: features are written as .npy, .npz or .parquet; the end of the name says which")
    check_target(path, resume=resume)
    return FORMS[kind](path) if kind in FORMS else ParquetFolder(path, KINDS)


def as_record(found: Features) -> dict[str, Any]:
    """Fields of a record."""
    shape = None if found.values is None else list(found.values.shape)
    values = None if found.values is None else found.values.reshape(-1)
    return {"file": found.file, "error": found.error, "shape": shape, "features": values}
