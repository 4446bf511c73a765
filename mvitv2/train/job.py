"""What the engine is given to train: the parts that a task makes and the engine only calls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mvitv2.data.samples import Samples, collate
from mvitv2.train.objective import Objective

Measure = Callable[[Any, Callable[[int, int], None]], Mapping[str, float]]
"""A model, and a function told images done and in all; gives figures by name.

Of several processes, each calls it, gets the same figures, and is told equally often; they may share the work (see
:func:`mvitv2.tasks.processes.current`), and must where the model is shared out among them."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A task's model, data and measures."""

    model: Any
    """An :class:`~mvitv2.core.model.MViT` or a :class:`~mvitv2.tasks.detect.detector.Detector`."""
    dataset: Any
    """Training samples by :class:`~mvitv2.data.samples.SampleKey`, with a length."""
    objective: Objective
    measure: Measure
    dataset_at: Callable[[int], Any] | None = None
    """The same samples with pictures of another size in pixels, for progressive resolution."""
    order: Any = None
    """The data set's own :class:`~mvitv2.train.order.Shuffle`, where it has one that reads faster than any other."""
    labels: Any = None
    """The class of every sample of ``dataset``, for balanced sampling; ``None`` where samples have not one class."""
    collate: Callable[[Sequence[Any]], Samples] = collate
    """Samples of ``dataset`` to a batch that ``objective`` takes."""
    metric: str = "top1"
    """The figure of ``measure`` by which epochs are compared; more is better."""
    unit: str = "images"
    """What a sample of ``dataset`` is, in the plural, for people: ``"images"``, ``"clips"``, ``"keyframes"``."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """What travels with the weights: classes, preprocessing."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What the data is, as plain values; a run goes on only with the same."""
