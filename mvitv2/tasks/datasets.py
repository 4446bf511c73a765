"""What people mean by their data, prepared for a model or for training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mvitv2.core.model import MViT
from mvitv2.data.labelled import Transform
from mvitv2.data.open import open_dataset, open_splits
from mvitv2.data.transforms import EvalTransform
from mvitv2.tasks.prediction import preprocessing_of


def datasets(data: str | Path, transforms: Mapping[str, Transform | None], *, need: Sequence[str]) -> dict[str, Any]:
    """The splits of some data; a file that cannot be read gives an ``Unreadable`` in its place.

    Args:
        data: In any form of :mod:`mvitv2.data.open`.
        transforms: Split -> transform; other splits are not opened.
        need: Splits without which it is an error.

    Raises:
        mvitv2.data.labelled.DataError: The data cannot be used; the message says what is there and what to do.
    """
    return dict(open_splits(data, transforms, need=need, on_error="skip"))


def dataset_for(model: MViT, data: str | Path, split: str = "val") -> Any:
    """Data to measure a model on, prepared as its card says, with the classes in its order.

    Args:
        model: Its ``card`` has ``preprocessing``, and ``classes`` where those of the data are to be matched with them.
        data: In any form of :mod:`mvitv2.data.open`; of data that is not split, all.
        split: Which split, where there are any.

    Raises:
        mvitv2.data.labelled.DataError: There is no such split, or it has other classes than the model.
    """
    return open_dataset(
        data,
        EvalTransform(preprocessing_of(model)),
        split=split,
        classes=model.card.get("class_folders") or model.card.get("classes"),
        class_names=model.card.get("classes"),
        on_error="skip",
    )
