"""What commands print: aligned columns for people, JSON for programs."""

import json
from collections.abc import Iterable, Sequence
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
    """``24.2M``: a number of parameters as papers print it."""
    return f"{count / 1e6:.1f}M"


def sizes(grid: Sequence[int]) -> str:
    """``16x224x224``."""
    return "x".join(map(str, grid))
