"""How a model's answers are compared with what is right, where data and model have other classes or labels.

ImageNet-A and -R have 200 of the 1000 classes, ImageNet-V2 numbers its folders, ImageNet-ReaL ("Are we done with
ImageNet?", arXiv 2006.07159) gives every validation image any number of right answers.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvitv2.data.labelled import DataError

VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})")
"""Name of a validation image of ImageNet-1K; its number, from 1, is its place in ``real.json``."""
VALIDATION_IMAGES = 50_000


@dataclass(frozen=True)
class Scoring:
    """What of the scores counts, and what is right."""

    columns: tuple[int, ...] | None = None
    """The model's classes that the data has, in the data's order; others cannot be answers. ``None``: all are."""
    accepted: Sequence[tuple[int, ...]] | None = None
    """Right classes of every item of the data, maybe none; ``None``: its label is."""

    def of(self, scores: Tensor, labels: Tensor, places: Sequence[int]) -> tuple[Tensor, Tensor, list[int]]:
        """Scores, labels and places of the images that count.

        Of several right classes, the label is the one that the model finds likeliest: then top-1, top-5 and loss are
        those of the best of them. Images without a right class are left out.

        Args:
            scores: Probabilities ``(B, C)`` of the model's classes.
            labels: ``(B,)``.
            places: In the data set.

        Returns:
            ``(B', C')``, ``(B',)`` and places.
        """
        if self.columns is not None:
            scores = scores[:, list(self.columns)]
            scores = scores / scores.sum(dim=1, keepdim=True).clamp_min(1e-30)  # the softmax of these alone
        if self.accepted is None:
            return scores, labels, list(places)
        right = [self.accepted[place] for place in places]
        kept = [row for row, classes in enumerate(right) if classes]
        best = [max(right[row], key=lambda label: float(scores[row, label])) for row in kept]
        return scores[kept], torch.tensor(best, dtype=torch.int64), [places[row] for row in kept]


def read_accepted(path: str | Path, dataset: Any) -> list[tuple[int, ...]]:
    """Right classes of every item of a data set, from a file.

    Read are ``real.json`` of ImageNet-ReaL (a list of 50000 lists of class numbers, by the number in the name of a
    validation image), and JSON objects from a file's name (with or without folder and suffix) to a class or a list of
    them, by name or number.

    Args:
        path: The file.
        dataset: Has ``path(index)``, ``classes`` and ``class_names``.

    Raises:
        DataError: The file is in none of these forms, names unknown classes, or has nothing about an item.
    """
    file = Path(path)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: labels cannot be read ({error})") from error
    numbers = _numbers(dataset)
    if isinstance(values, list):
        found = [_by_number(file, values, dataset.path(index)) for index in range(len(dataset))]
    elif isinstance(values, dict):
        found = [_by_name(file, values, dataset.path(index)) for index in range(len(dataset))]
    else:
        raise DataError(f"{file}: expected a list of lists, or an object from file names to classes")
    return [tuple(_class(file, one, numbers, len(dataset.classes)) for one in classes) for classes in found]


def _numbers(dataset: Any) -> dict[str, int]:
    """Number of a class by its name, for people or not."""
    return {name: i for names in (dataset.class_names, dataset.classes) for i, name in enumerate(names)}


def _by_number(file: Path, values: list[Any], path: Path) -> list[Any]:
    match = VALIDATION.search(path.name)
    if match is None or len(values) != VALIDATION_IMAGES:
        raise DataError(
            f"{file}: a list of {len(values)} is read as ImageNet's {VALIDATION_IMAGES} validation images, by the "
            f"number in their names; {path.name} has none. Give an object from file names to classes instead"
        )
    return list(values[int(match[1]) - 1])


def _by_name(file: Path, values: Mapping[str, Any], path: Path) -> list[Any]:
    for name in (str(path), f"{path.parent.name}/{path.name}", path.name, path.stem):
        if name in values:
            found = values[name]
            return list(found) if isinstance(found, list) else [found]
    raise DataError(f"{file}: has nothing about {path.name}; an empty list leaves it out")


def _class(file: Path, value: Any, numbers: Mapping[str, int], count: int) -> int:
    """A class as the data numbers it."""
    if isinstance(value, int) and 0 <= value < count:
        return value
    if str(value) in numbers:
        return numbers[str(value)]
    raise DataError(f"{file}: {value!r} is neither a class nor a number from 0 to {count - 1}")
