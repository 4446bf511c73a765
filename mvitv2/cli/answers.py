"""Predictions as people and programs want them, each written as soon as it is there."""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mvitv2.cli.failures import one_line
from mvitv2.tasks.prediction import Prediction

Writer = Callable[[Iterable[Prediction], int], Iterator[Prediction]]
"""Writes predictions, of so many classes each, and hands them on."""


def table(answers: Iterable[Prediction], _count: int) -> Iterator[Prediction]:
    """Lines whose columns are as wide as the widest so far; reasons go to standard error."""
    widths: list[int] = []
    for answer in answers:
        if answer.error is not None:
            print(f"{one_line(answer.file)}: {one_line(answer.error)}", file=sys.stderr, flush=True)
        else:
            scored = zip(answer.scores, answer.classes, strict=True)
            cells = [one_line(answer.file), *(f"{100 * score:5.1f} % {one_line(name)}" for score, name in scored)]
            widths = [max(pair) for pair in zip(map(len, cells), widths or [0] * len(cells), strict=True)]
            print("  ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)).rstrip(), flush=True)
        yield answer


def json_list(answers: Iterable[Prediction], _count: int) -> Iterator[Prediction]:
    """One list, opened before the first prediction and closed after the last."""
    opening = "["
    for answer in answers:
        print(opening + "\n  " + answer.to_json(), end="", flush=True)
        opening = ","
        yield answer
    print("[]" if opening == "[" else "\n]")


def json_lines(answers: Iterable[Prediction], _count: int) -> Iterator[Prediction]:
    """An object a line."""
    for answer in answers:
        print(answer.to_json(), flush=True)
        yield answer


def header(count: int) -> list[str]:
    """Columns of answers with so many classes: class and score by rank."""
    return ["file", "error", *(f"{what}_{rank}" for rank in range(1, count + 1) for what in ("class", "score"))]


def record(answer: Prediction, *, lines: bool) -> dict[str, Any]:
    """An answer as a record of a file.

    Args:
        answer: One of a stream.
        lines: As JSON lines have it, a list of classes with all that is known of each; otherwise a list by column.
    """
    if lines:
        return answer.to_dict()
    columns = {"class": answer.classes, "index": answer.indices, "score": answer.scores}
    return {"file": answer.file, "error": answer.error, **{name: list(values) for name, values in columns.items()}}


def comma_separated(answers: Iterable[Prediction], count: int) -> Iterator[Prediction]:
    """A header, and a row for each file: name, reason, then class and score by rank."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header(count))
    for answer in answers:
        scored = zip(answer.classes, answer.scores, strict=True)
        writer.writerow([answer.file, answer.error or "", *(cell for pair in scored for cell in pair)])
        sys.stdout.flush()
        yield answer


WRITERS: dict[str, Writer] = {"table": table, "json": json_list, "jsonl": json_lines, "csv": comma_separated}
