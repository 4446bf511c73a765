"""The folder of a run: who works in it, and the plain files that say how it goes."""

import csv
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mvitv2.train.failures import FolderBusy
from mvitv2.weights.files import replacing

METRICS, RESULTS, SUMMARY, RECIPE, UNREADABLE = (
    "metrics.jsonl",
    "results.csv",
    "summary.json",
    "recipe.json",
    "unreadable.txt",
)
PATIENCE = 8.0
"""Seconds to wait for a run that is ending: the loading processes of one that was killed notice within five."""


@contextmanager
def locked(folder: Path, *, patience: float | None = None) -> Iterator[None]:
    """Make the folder, and keep other runs out of it while inside; the lock ends with the process, however it ends.

    Args:
        folder: Of the run.
        patience: Seconds to wait for a run that is ending; ``PATIENCE`` if not given.

    Raises:
        FolderBusy: Another run is in it.
    """
    import filelock

    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / ".owner"
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=PATIENCE if patience is None else patience)
    except filelock.Timeout as error:
        who = owner.read_text().strip() if owner.exists() else "unknown"
        raise FolderBusy(
            f"another run works in {folder} ({who}); wait for it, stop it, or choose another --output"
        ) from error
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
        owner.unlink(missing_ok=True)
    finally:
        lock.release()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Plain data, indented, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_results(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """``results.csv``: a row per epoch, columns of all rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(folder / RESULTS) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_unreadable(folder: Path, files: Mapping[str, str]) -> None:
    """``unreadable.txt``: a line for every image that could not be read."""
    with replacing(folder / UNREADABLE) as temporary:
        text = "".join(f"{path}: {reason}\n" for path, reason in sorted(files.items()))
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


class MetricsLog:
    """``metrics.jsonl``: one line of JSON per logged step, for machines.

    Args:
        folder: Of the run.
        step: Lines of later steps are removed: a run that is resumed takes those steps again.
    """

    def __init__(self, folder: Path, *, step: int):
        self.path = folder / METRICS
        kept = [line for line in self._lines() if _step_of(line) <= step] if step else []
        with replacing(self.path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self.file = self.path.open("a", encoding="utf-8", buffering=1)

    def _lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line."""
        self.file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _step_of(line: str) -> float:
    """The step a line is about; infinity for one that was cut off when the run was killed."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` that are whole; none where there is no such file."""
    path = folder / METRICS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if _step_of(line) != float("inf")]


def read_run(folder: Path) -> dict[str, Any]:
    """What the plain files of a run tell: ``recipe``, ``summary`` (once it has ended), ``history``, ``steps``."""
    return {
        "recipe": read_json(folder / RECIPE),
        "summary": read_json(folder / SUMMARY),
        "history": read_results(folder),
        "steps": read_metrics(folder),
    }


def read_results(folder: Path) -> list[dict[str, float]]:
    """The rows of ``results.csv`` as numbers, empty cells left out; none where there is no such file."""
    path = folder / RESULTS
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
