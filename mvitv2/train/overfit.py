"""A few batches to learn by heart: the first check of a new model, loss or data set."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mvitv2.data.samples import SampleKey, split_key
from mvitv2.train.order import Order
from mvitv2.train.recipe import Recipe


class Part:
    """Some samples of a data set, in the order given.

    Args:
        dataset: With ``labels`` and the names of its classes.
        indices: Which samples.
        transform: Another one than that of the data set.
    """

    def __init__(self, dataset: Any, indices: Sequence[int], transform: Any = None):
        self.dataset, self.indices = dataset, list(indices)
        if transform is not None:
            self.dataset = copy.copy(dataset)
            self.dataset.transform = transform
        self.labels = np.asarray(dataset.labels)[self.indices]
        self.classes, self.class_names = dataset.classes, dataset.class_names

    def __len__(self) -> int:
        return len(self.indices)

    def path(self, index: int) -> Path:
        """The file of a sample, or a name that tells where it is."""
        return self.dataset.path(self.indices[index])

    def __getitem__(self, key: int | SampleKey) -> Any:
        """The sample, under its seed if the key has one."""
        index, seed = split_key(key)
        there = self.indices[index]
        return self.dataset[there if seed is None else SampleKey(there, seed)]


def few_batches(dataset: Any, recipe: Recipe) -> list[int]:
    """The samples of the recipe's first ``overfit_batches`` batches."""
    wanted = (recipe.overfit_batches or 0) * recipe.batch_size * recipe.accumulation
    keys = Order(len(dataset), recipe.seed, labels=dataset.labels if recipe.sampling == "balanced" else None).keys(0)
    return list(dict.fromkeys(key.index for key in keys))[:wanted]
