"""What commands share that go through pictures: their names and sizes, and the file that keeps the answers."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from mvitv2.cli.failures import UsageError, one_line
from mvitv2.cli.output import counter

if TYPE_CHECKING:
    from mvitv2.preprocessing import Preprocessing
    from mvitv2.tasks.records import Done, Records

NAMED = 20
"""Pictures without an answer that are named while a file is written."""


def names(files: Iterable[str]) -> Iterator[str]:
    """What was named on the command line, and on standard input where ``-`` stands for it."""
    for name in files:
        if name == "-":
            yield from filter(None, (line.rstrip("\r\n") for line in sys.stdin))
        else:
            yield name


def resized(record: "Preprocessing", img_size: Sequence[int] | None, crop_pct: float | None) -> "Preprocessing":
    """A model's preprocessing at another size, or with another crop.

    Raises:
        UsageError: Not one side or two.
    """
    if img_size is not None:
        if len(img_size) not in (1, 2):
            given = " ".join(map(str, img_size))
            raise UsageError(f"--img-size {given}: expected one side, or height and width")
        record = record.at(img_size[0] if len(img_size) == 1 else (img_size[0], img_size[1]))
    return record if crop_pct is None else record.with_crop_fraction(crop_pct)


@contextmanager
def kept(records: "Records") -> Iterator[tuple["Records", "Done"]]:
    """A file of answers, closed at the end however it ends, and what is in it already."""
    from mvitv2.tasks.records import Done

    try:
        yield records, Done(records.names())
    finally:
        records.close()


class Count:
    """How many pictures are done, with a bar on a terminal.

    Args:
        done: What was done before.
        target: Where answers go.
    """

    def __init__(self, done: "Done", target: Path):
        self.before, self.target = len(done), target
        self.total = self.failed = 0
        self._counter = counter("pictures")

    def __enter__(self) -> "Count":
        self._tell = self._counter.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._counter.__exit__(kind, error, trace)

    def add(self, file: str, error: str | None) -> None:
        """One more; the first that failed are named."""
        self.total += 1
        if error is not None:
            self.failed += 1
            if self.failed <= NAMED:
                print(f"{one_line(file)}: {one_line(error)}", file=sys.stderr)
        self._tell(self.total, None)

    def told(self, missing: str) -> str:
        """All figures in a sentence."""
        parts = [f"{self.total} picture{'s' * (self.total != 1)}"]
        if self.failed:
            parts.append(f"{self.failed} of them {missing}")
        if self.before:
            parts.append(f"{self.before} more were in it before")
        return f"{self.target}: {', '.join(parts)}"
