"""What commands print: aligned columns for people, JSON for programs."""

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mvitv2.cli.failures import one_line


def columns(rows: Iterable[Sequence[object]], *, right: Sequence[int] = (), indent: str = "") -> str:
    """Rows as aligned columns, two spaces apart, at any width: lines are not cut, so pipes get everything.

    Args:
        rows: The first may be a header.
        right: Numbers of the columns that are aligned to the right.
        indent: Before every line.
    """
    cells = [[one_line(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells if i < len(row)) for i in range(max(map(len, cells), default=0))]
    lines = []
    for row in cells:
        padded = [cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)]
        lines.append(f"{indent}{'  '.join(padded)}".rstrip())
    return "\n".join(lines)


def print_json(value: Any) -> None:
    """``value`` as JSON of ASCII characters only: valid whatever the terminal and the file names are."""
    print(json.dumps(value, indent=2))


def millions(count: float) -> str:
    """``24.2M``: a number of parameters as papers print it; ``255.1k`` below a million."""
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.1f}k"


def sizes(grid: Sequence[int]) -> str:
    """``16x224x224``."""
    return "x".join(map(str, grid))


def check_folder(path: Path) -> None:
    """Refuse to write into a folder that is not there, before anything is computed.

    Raises:
        ValueError: There is no such folder.
    """
    if not path.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to write {path.name} to; make it first")


class Notes(logging.Handler):
    """Prints what the package logs, each sentence once."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a sentence, unless it has been."""
        text = one_line(record.getMessage())
        if text not in self.told:
            self.told.add(text)
            print(f"note: {text}")


@contextmanager
def notes() -> Iterator[None]:
    """Inside, print what the package notes about weights that it loads: what was changed, left out or assumed."""
    log, handler = logging.getLogger("mvitv2"), Notes()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


@contextmanager
def counter(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error while something is counted, if that is a terminal; otherwise nothing is drawn.

    Gives a function that is told how many are done, and of how many if that is known.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    # a bar is worth the time rich takes to load; a pipe is not
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
