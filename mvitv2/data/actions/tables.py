"""AVA's files: boxes with actions, detected people, names of actions, keyframes that do not count.

``ava_train_v2.2.csv``, ``ava_val_v2.2.csv``: ``video, second, x1, y1, x2, y2, action, person``, corners as parts of the
frame, actions counted from 1. Detected people, and predictions in the official form, have a score in the last column.
``*.pbtxt`` names the actions that count; ``*excluded*.csv`` lists keyframes that do not.
"""

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvitv2.data.labelled import DataError

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as parts of the frame, 0 to 1."""
_CORNERS = 4
_DETECTED = 0.8
"""Score from which a detected person counts (SlowFast ``AVA.DETECTION_SCORE_THRESH``)."""


@dataclass(frozen=True)
class Keyframe:
    """A second of a video, its boxes and their actions."""

    video: str
    second: float
    boxes: np.ndarray
    """``(K, 4)`` float32: left, top, right, bottom as parts of the frame."""
    actions: tuple[tuple[int, ...], ...]
    """Numbers of the actions of every box, counted from 0; empty for detected people."""

    @property
    def key(self) -> str:
        """``"video,0904"``, as the official evaluation names it."""
        return frame_key(self.video, self.second)


def frame_key(video: str, second: float) -> str:
    """A keyframe's name, the same for ``904``, ``0904`` and ``904.0``."""
    return f"{video},{round(second):04d}" if float(second).is_integer() else f"{video},{second:g}"


def read_keyframes(path: Path, *, num_classes: int | None = None) -> list[Keyframe]:
    """The keyframes of a list of boxes with actions; rows of one box are one box with several actions.

    Raises:
        DataError: A row has too few columns, or numbers that cannot be.
    """
    found: dict[tuple[str, float], dict[Box, list[int]]] = {}
    for number, row in rows(path):
        video, second, box = place_of(path, number, row)
        actions = found.setdefault((video, second), {}).setdefault(box, [])
        word = row[6].strip() if len(row) > 6 else ""
        if word:
            actions.append(action_of(path, number, word, num_classes))
    return [
        Keyframe(video, second, np.array(list(boxes), np.float32).reshape(-1, _CORNERS), actions_of(boxes))
        for (video, second), boxes in found.items()
    ]


def actions_of(boxes: Mapping[Box, list[int]]) -> tuple[tuple[int, ...], ...]:
    """Actions of every box, each once and in order."""
    return tuple(tuple(sorted(set(numbers))) for numbers in boxes.values())


def read_people(path: Path, *, least: float = _DETECTED) -> dict[str, np.ndarray]:
    """Detected people by keyframe, ``(K, 4)`` float32, of a score of ``least`` at least.

    Raises:
        DataError: A row has too few columns, or numbers that cannot be.
    """
    found: dict[str, list[Box]] = {}
    for number, row in rows(path):
        video, second, box = place_of(path, number, row)
        if number_in(path, number, row[-1]) >= least:
            found.setdefault(frame_key(video, second), []).append(box)
    return {key: np.array(boxes, np.float32) for key, boxes in found.items()}


def rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines of a CSV file that are not empty, with their numbers.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from ((number, row) for number, row in enumerate(csv.reader(file), 1) if row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from error


def place_of(path: Path, number: int, row: list[str]) -> tuple[str, float, Box]:
    """Video, second and corners of a row.

    Raises:
        DataError: It has too few columns, or a box that is none.
    """
    if len(row) < 2 + _CORNERS:
        raise DataError(f"{path}: line {number} has {len(row)} columns, expected video, second, x1, y1, x2, y2, ...")
    second, x1, y1, x2, y2 = (number_in(path, number, word) for word in row[1 : 2 + _CORNERS])
    if not (0 <= x1 <= x2 <= 1.01 and 0 <= y1 <= y2 <= 1.01):
        raise DataError(
            f"{path}: line {number}: box {x1}, {y1}, {x2}, {y2} is no left, top, right, bottom in parts of the frame"
        )
    return row[0].strip(), second, (x1, y1, x2, y2)


def number_in(path: Path, number: int, word: str) -> float:
    """A number.

    Raises:
        DataError: It is none.
    """
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path}: line {number}: {word!r} is no number")
    return value


def action_of(path: Path, number: int, word: str, num_classes: int | None) -> int:
    """An action counted from 0.

    Raises:
        DataError: It is no whole number from 1, or beyond the known ones.
    """
    value = number_in(path, number, word)
    if not value.is_integer() or value < 1 or (num_classes is not None and value > num_classes):
        most = "" if num_classes is None else f" to {num_classes}"
        raise DataError(f"{path}: line {number}: action {word} must be a whole number, 1{most}")
    return int(value) - 1


def read_names(path: Path) -> dict[int, str]:
    """Names of actions by number, counted from 0, of a ``.pbtxt`` file: ``item { name: "bend" id: 1 }``.

    Raises:
        DataError: There are no items in it.
    """
    text = path.read_text(encoding="utf-8")
    found: dict[int, str] = {}
    for item in re.findall(r"\{(.*?)\}", text, flags=re.S):
        name = re.search(r"name\s*:\s*[\"'](.*?)[\"']", item)
        place = re.search(r"(?:id|label_id)\s*:\s*(\d+)", item)
        if name and place:
            found[int(place[1]) - 1] = name[1]
    if not found:
        raise DataError(f'{path}: names no actions; expected item {{ name: "bend" id: 1 }} ...')
    return found


def read_excluded(path: Path) -> set[str]:
    """Keyframes that do not count.

    Raises:
        DataError: A row has too few columns.
    """
    found: set[str] = set()
    for number, row in rows(path):
        if len(row) < 2:
            raise DataError(f"{path}: line {number}: expected video, second")
        found.add(frame_key(row[0].strip(), number_in(path, number, row[1])))
    return found


def write_predictions(path: Path, lines: Iterable[tuple[str, float, Box, int, float]]) -> None:
    """Predictions in the form of the official evaluation: video, second, box, action from 1, score."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for video, second, box, action, score in lines:
            when = f"{round(second):04d}" if float(second).is_integer() else f"{second:g}"
            writer.writerow([video, when, *(f"{v:.3f}" for v in box), action + 1, f"{score:.4f}"])
