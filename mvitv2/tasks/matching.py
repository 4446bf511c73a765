"""Data to measure a model on, where it has some of the model's classes, or calls them by number."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mvitv2.core.model import MViT
from mvitv2.data.labelled import DataError, Transform
from mvitv2.data.open import open_dataset
from mvitv2.data.transforms import EvalTransform
from mvitv2.data.truth import WNID
from mvitv2.extras import MissingExtra, required
from mvitv2.tasks.prediction import preprocessing_of

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Matched:
    """A data set, and which of the model's classes its own are."""

    dataset: Any
    columns: tuple[int, ...] | None = None
    """``None``: all, in the same order."""
    note: str = ""
    """A sentence where classes are fewer, or known by number."""


def matched(model: MViT, data: str | Path, split: str = "val", transform: Transform | None = None) -> Matched:
    """Data to measure a model on, prepared as its card says, its classes found among the model's.

    Args:
        model: Its ``card`` has ``preprocessing``, and ``class_folders`` or ``classes`` where classes go by name.
        data: In any form of :mod:`mvitv2.data.open`; of data that is not split, all.
        split: Which split, where there are any.
        transform: In place of the card's.

    Raises:
        mvitv2.data.labelled.DataError: There is no such split, or it has classes that the model has not.
    """
    transform = transform or EvalTransform(preprocessing_of(model))
    card, count = model.card, model.config.num_classes
    names = card.get("class_folders") or card.get("classes") or None
    alone = open_dataset(data, transform, split=split, on_error="skip")
    own = tuple(alone.classes)
    for known in (names, wordnet_ids(own, count)):
        # of one's own classes, one that is missing is a mistake, not another benchmark
        if known and set(own) <= set(known) and (len(own) == count or all(map(WNID.fullmatch, own))):
            return chosen(alone, [list(known).index(name) for name in own], card.get("classes") or known)
    if all(map(str.isdecimal, own)) and max(map(int, own)) < count:
        found = chosen(alone, list(map(int, own)), card.get("classes") or [str(i) for i in range(count)])
        return replace(found, note=f"class folders are numbers of the model's classes; {found.note}".rstrip("; "))
    if names is None and len(own) == count:
        return Matched(alone)
    # opened once more for the message that names what is missing and what is unknown
    options = {"classes": names, "class_names": card.get("classes"), "on_error": "skip"}
    return Matched(open_dataset(data, transform, split=split, **options))


def chosen(dataset: Any, columns: Sequence[int], names: Sequence[str]) -> Matched:
    """A data set whose classes are those columns of a model that calls its classes so."""
    count = len(names)
    dataset.name_classes(dataset.classes, [names[column] for column in columns])
    if len(columns) == count:
        return Matched(in_order(dataset, columns))
    told = f"the data has {len(columns)} of the model's {count} classes; answers are restricted to them"
    return Matched(dataset, tuple(columns), told)


def in_order(dataset: Any, columns: Sequence[int]) -> Any:
    """A data set of all classes, its labels renumbered to the order of the model's."""
    order = np.argsort(columns)
    dataset.labels = np.asarray(columns, dtype=np.int64)[dataset.labels]
    dataset.name_classes([dataset.classes[i] for i in order], [dataset.class_names[i] for i in order])
    return dataset


def wordnet_ids(own: Sequence[str], count: int) -> list[str] | None:
    """ImageNet-1K's WordNet ids in the order of its classes, for a model of 1000 and data of such ids.

    Raises:
        DataError: They are needed, and the library that keeps them is not installed.
    """
    if count != IMAGENET_CLASSES or not all(WNID.fullmatch(name) for name in own):
        return None
    if len(own) == count:
        return sorted(own)  # the order of ImageNet's classes is that of their ids
    try:
        info = required("timm.data", extra="train").ImageNetInfo()
    except MissingExtra as error:
        raise DataError(
            f"the data has {len(own)} WordNet ids, and which classes they are, timm knows: {error}"
        ) from error
    return [info.index_to_label_name(index) for index in range(count)]
