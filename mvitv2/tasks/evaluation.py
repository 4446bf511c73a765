"""How good a classifier is on a data set: every image once, in figures that are exact."""

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from mvitv2.core.model import MViT
from mvitv2.data.samples import Batch, Unreadable, collate
from mvitv2.tasks.devices import device_named
from mvitv2.tasks.metrics import ClassResult, Tally, class_results, wilson
from mvitv2.tasks.processes import ALONE, Processes
from mvitv2.tasks.scoring import Scoring
from mvitv2.tasks.workers import loading

AUTOCAST = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


PLAIN = Scoring()
"""The label is right, and every class may be an answer."""


@dataclass(frozen=True)
class Example:
    """One image of a data set and what a model says about it."""

    index: int
    """Its place in the data set."""
    label: int
    predicted: int
    score: float
    """Of the predicted class."""


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on a data set."""

    images: int
    """Images that were read; each counts once."""
    top1: float
    top1_interval: tuple[float, float]
    """95 % Wilson interval."""
    top5: float
    mean_class: float
    """Recall, averaged over classes that have images."""
    loss: float
    """Mean ``-log p`` of the true class."""
    calibration_error: float
    per_class: list[ClassResult]
    confusion: list[list[int]] | None
    """Counts, true class by row; ``None`` for very many classes."""
    mistakes: list[Example]
    """The most confident ones, worst first."""
    correct: list[Example]
    """Some of each class."""
    unreadable: list[Unreadable]
    """Files that could not be read; they are in no figure above."""
    seconds: float
    unlabelled: int = 0
    """Images for which no answer is right; they are in no figure above."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = asdict(self)
        values["top1_interval"] = list(self.top1_interval)
        for one, result in zip(values["per_class"], self.per_class, strict=True):
            one.update(recall=result.recall, precision=result.precision, f1=result.f1)
        return values


def evaluate(
    model: MViT,
    dataset: Any,
    *,
    batch_size: int = 64,
    workers: int = 0,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    examples: int = 24,
    scoring: Scoring = PLAIN,
    on_batch: Callable[[int, int], None] | None = None,
    on_answer: Callable[[Example], None] | None = None,
    processes: Processes = ALONE,
) -> Evaluation:
    """Measure a model; every image counts exactly once, however many processes share the work.

    Args:
        model: A classifier; moved to ``device``, and left in the mode it was in.
        dataset: Items ``(image, label)`` or :class:`~mvitv2.data.samples.Unreadable`, and ``class_names``.
        batch_size: Images in one forward pass; the last batch may be smaller.
        workers: Processes that load images, one thread each; 0 loads in this one.
        device: Where to compute; ``None``: where the model is.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (autocast).
        examples: How many mistakes are kept, and how many correct ones.
        scoring: Which of the model's classes count, and what is right; the labels of the data if not given.
        on_batch: Called with images done and images in all, equally often in every process.
        on_answer: Called with every image that counts, in the process that saw it.
        processes: Those that call this together, with the same model and data; all get the whole result.

    Raises:
        ValueError: The model has another number of classes than the data set, or there is no image to measure on.
    """
    names, count = list(dataset.class_names), model.config.num_classes
    if (count if scoring.columns is None else len(scoring.columns)) != len(names):
        raise ValueError(f"the model tells {count} classes apart, the data has {len(names)}")
    place = placed(model, device)
    tally, collection = Tally(len(names)), Examples(examples, len(names))
    started, unreadable, unlabelled = time.monotonic(), [], 0
    with evaluating(model), batches(dataset, batch_size, workers, processes) as stream:
        for number, (indices, batch) in enumerate(stream):
            unreadable.extend(batch.unreadable)
            missing = {item.index for item in batch.unreadable}
            if len(batch.labels):
                scores = probabilities(model, batch.images.to(place, non_blocking=True), precision).cpu()
                scores, labels, seen = scoring.of(scores, batch.labels, [i for i in indices if i not in missing])
                tally.update(scores, labels)
                collection.add(seen, scores, labels, on_answer)
                unlabelled += len(batch.labels) - len(seen)
            elif processes.count > 1:
                # where each process has a part of the model, all must go through it together
                probabilities(model, blank(model, place), precision)
            if on_batch is not None:
                on_batch(min((number + 1) * batch_size * processes.count, len(dataset)), len(dataset))
    tally, collection = tally.merged(processes), collection.merged(processes)
    unreadable = sorted((i for part in processes.gathered(unreadable) for i in part), key=lambda item: item.index)
    found = evaluation(tally, names, collection, unreadable, time.monotonic() - started)
    return replace(found, unlabelled=int(sum(row[0] for row in processes.table([unlabelled]))))


def evaluation(
    tally: Tally, names: list[str], collection: "Examples", unreadable: list[Unreadable], seconds: float
) -> Evaluation:
    """What follows from the counts.

    Raises:
        ValueError: Nothing was counted.
    """
    total = tally.total
    if total == 0:
        told = (
            f"; {len(unreadable)} could not be read, first {unreadable[0].path}: {unreadable[0].reason}"
            if unreadable
            else ""
        )
        raise ValueError(f"there is no image to measure on{told}")
    results = class_results(tally, names)
    recalls = [r.recall for r in results if r.recall is not None]
    return Evaluation(
        images=total,
        top1=tally.top1 / total,
        top1_interval=wilson(tally.top1, total),
        top5=tally.top5 / total,
        mean_class=sum(recalls) / len(recalls),
        loss=tally.loss / total,
        calibration_error=tally.calibration_error(),
        per_class=results,
        confusion=None if tally.confusion is None else tally.confusion.tolist(),
        mistakes=collection.mistakes(),
        correct=collection.correct(),
        unreadable=unreadable,
        seconds=seconds,
    )


class Examples:
    """The most confident mistakes and some correct answers of each class, in bounded memory.

    Args:
        most: How many of either.
        num_classes: Classes that share the correct ones.
    """

    def __init__(self, most: int, num_classes: int):
        self.most, self.share = most, max(most // num_classes, 1)
        self._wrong: list[tuple[float, int, Example]] = []
        self._right: dict[int, list[Example]] = {}

    def add(
        self,
        indices: Sequence[int],
        scores: Tensor,
        labels: Tensor,
        on_answer: Callable[[Example], None] | None = None,
    ) -> None:
        """Look at a batch: places in the data set, ``(B, C)`` probabilities, ``(B,)`` labels; pass each image on."""
        best, guess = scores.float().max(dim=1)
        rows = zip(indices, labels.tolist(), guess.tolist(), best.tolist(), strict=True)
        for example in (Example(*row) for row in rows):
            if on_answer is not None:
                on_answer(example)
            if example.label != example.predicted:
                heapq.heappush(self._wrong, (example.score, -example.index, example))
                if len(self._wrong) > self.most:
                    heapq.heappop(self._wrong)
            elif len(kept := self._right.setdefault(example.label, [])) < self.share:
                kept.append(example)

    def merged(self, processes: Processes) -> "Examples":
        """Those of all processes, as one that saw all images in order would have kept."""
        kept = processes.gathered((self._wrong, self._right))
        both = Examples(self.most, 1)
        both.share = self.share
        both._wrong = heapq.nlargest(self.most, (one for wrong, _ in kept for one in wrong))
        for label in sorted({label for _, right in kept for label in right}):
            found = [example for _, right in kept for example in right.get(label, [])]
            both._right[label] = sorted(found, key=lambda example: example.index)[: self.share]
        return both

    def mistakes(self) -> list[Example]:
        """Worst first."""
        return [example for _, _, example in sorted(self._wrong, reverse=True)]

    def correct(self) -> list[Example]:
        """One class after another."""
        return [example for _, kept in sorted(self._right.items()) for example in kept][: self.most]


@contextmanager
def batches(
    dataset: Any, size: int, workers: int, processes: Processes = ALONE, *, skip: int = 0
) -> Iterator[Iterator[tuple[list[int], Batch]]]:
    """Every sample once and in order, without the first batches: places in the data set, and the batch; while inside.

    Several processes take turns; one whose turn does not come in the last round gets a batch of nothing.
    """
    left = [list(range(i, min(i + size, len(dataset)))) for i in range(0, len(dataset), size)][skip:]
    own = left[processes.rank :: processes.count]
    rest = [([], collate([]))] * (-(-len(left) // processes.count) - len(own))
    with loading(dataset, own, collate, workers) as loaded:
        yield chain(zip(own, loaded, strict=True), rest)


def blank(model: MViT, device: torch.device) -> Tensor:
    """One picture of nothing, ``(1, C, *input_size)``."""
    return torch.zeros(1, model.config.in_channels, *model.config.input_size, device=device)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; after, the mode that was."""
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


def placed(model: nn.Module, device: str | torch.device | None) -> torch.device:
    """Move a model where it is wanted; gives the device it is on."""
    if device is not None:
        model.to(device_named(device) if isinstance(device, str) else device)
    return next(model.parameters()).device


def probabilities(model: MViT, images: Tensor, precision: str = "fp32") -> Tensor:
    """``(B, C, H, W)`` to probabilities ``(B, num_classes)``, float32, whatever the model's head does itself.

    Of several views of each, ``(B, V, C, H, W)``, the mean of their probabilities. Sigmoid heads answer for each class
    alone; their probabilities do not sum to 1.
    """
    dtype = AUTOCAST[precision]
    views = images.unbind(1) if images.ndim == model.config.rank + 3 else [images]
    with torch.inference_mode(), torch.autocast(images.device.type, dtype, enabled=dtype is not None):
        scores = [model(view).float() for view in views]
    given = [one.softmax(dim=-1) for one in scores] if model.config.head_activation == "none" else scores
    return given[0] if len(given) == 1 else torch.stack(given).mean(dim=0)
