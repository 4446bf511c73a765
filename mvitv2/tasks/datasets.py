"""What people mean by their data: a folder of class folders, or the name of a set that is built in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mvitv2.core.model import MViT
from mvitv2.data.digits import Digits
from mvitv2.data.folder import ImageFolder, Transform
from mvitv2.data.splits import find_splits, open_splits
from mvitv2.data.transforms import EvalTransform
from mvitv2.tasks.prediction import preprocessing_of

BUILT_IN = ("digits",)


def datasets(data: str | Path, transforms: Mapping[str, Transform | None], *, need: Sequence[str]) -> dict[str, Any]:
    """The splits of some data; a file that cannot be read gives an ``Unreadable`` in its place.

    Args:
        data: ``"digits"``, or a folder with ``train/``, ``val/``, ``test/`` of class folders.
        transforms: Split -> transform; other splits are not opened.
        need: Splits without which it is an error.

    Raises:
        mvitv2.data.folder.DataError: The folder cannot be used; the message says what is there and what to do.
    """
    if str(data) == "digits":
        return {split: Digits(split, transform) for split, transform in transforms.items()}
    return dict(open_splits(data, transforms, need=need, on_error="skip"))


def dataset_for(model: MViT, data: str | Path, split: str = "val") -> Any:
    """Data to measure a model on, prepared as its card says, with the classes in its order.

    Args:
        model: Its ``card`` has ``preprocessing``, and ``classes`` where folders are to be matched with them.
        data: ``"digits"``, a folder with split folders, or a folder of class folders.
        split: Which split, where there are any.

    Raises:
        mvitv2.data.folder.DataError: There is no such split, or it has other classes than the model.
    """
    transform = EvalTransform(preprocessing_of(model))
    if str(data) == "digits":
        return Digits(split, transform)
    classes = model.card.get("class_folders") or model.card.get("classes")
    options: dict[str, Any] = {"classes": classes, "class_names": model.card.get("classes"), "on_error": "skip"}
    if find_splits(data):
        return open_splits(data, {split: transform}, need=(split,), **options)[split]
    return ImageFolder(data, transform, **options)
