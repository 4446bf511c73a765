"""How good a classifier of clips is: each clip seen in several views, whose softmax scores are averaged.

Views are clips over the length of a file times crops along its longer side; how SlowFast tests all MViTs (``5x1`` on
Kinetics, ``1x3`` on Something-Something). The scores of every view are kept in a file, which is also what a stopped
evaluation goes on from: batches are the same whether it was stopped or not, and so is the result.
"""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvitv2.core.model import MViT
from mvitv2.data.samples import Unreadable
from mvitv2.data.video.clips import ViewedClips
from mvitv2.data.video.open import open_clip_files
from mvitv2.data.video.sampling import Sampling
from mvitv2.data.video.transforms import EvalClip
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.evaluation import (
    Evaluation,
    Example,
    Examples,
    batches,
    evaluating,
    evaluation,
    placed,
    probabilities,
)
from mvitv2.tasks.metrics import Tally
from mvitv2.tasks.processes import ALONE, Processes
from mvitv2.tasks.viewscores import ViewScores


@dataclass(frozen=True)
class Views:
    """How often each clip is looked at."""

    clips: int = 1
    """Over the length of the file."""
    crops: int = 1
    """1: the centre; 3: along the longer side."""

    @classmethod
    def of(cls, text: str) -> "Views":
        """``"5x1"``: 5 clips of 1 crop.

        Raises:
            ValueError: It is no such text.
        """
        match = re.fullmatch(r"([1-9]\d{0,3})x([13])", text.strip().lower())
        if match is None:
            raise ValueError(f"views={text!r}: expected CLIPSxCROPS with 1 or 3 crops, such as 1x1, 5x1, 1x3 or 5x3")
        return cls(int(match[1]), int(match[2]))

    @property
    def count(self) -> int:
        """Views of one clip."""
        return self.clips * self.crops

    def __str__(self) -> str:
        return f"{self.clips}x{self.crops}"


@dataclass(frozen=True)
class ViewEvaluation:
    """How good a model is on clips, all views together and each alone."""

    views: Views
    mean: Evaluation
    """Of the mean of the views' softmax scores."""
    each: list[float]
    """Top-1 of every view alone: all crops of the first clip, then of the second."""
    scores: Path | None
    """The file with the scores of every view."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        kept = None if self.scores is None else str(self.scores)
        return {**self.mean.to_dict(), "views": str(self.views), "top1_of_views": self.each, "view_scores": kept}


def clip_preprocessing_of(model: MViT) -> Preprocessing:
    """How a model wants its clips, from its card.

    Raises:
        ValueError: It is none of clips, or its card does not say.
    """
    if model.config.rank != len("thw"):
        raise ValueError("this model takes pictures, not clips")
    record = model.card.get("preprocessing")
    if record is None:
        raise ValueError("the model's card has no 'preprocessing'; set it, as model.card['preprocessing'] = "
                         "mvitv2.preprocessing.KINETICS.to_dict()")  # fmt: skip
    return Preprocessing.from_dict(record)


def clip_dataset_for(model: MViT, data: str | Path, split: str = "val", views: Views | None = None) -> ViewedClips:
    """Clips to measure a model on, prepared as its card says, with the classes in its order.

    Args:
        model: Its ``card`` has ``preprocessing``, and ``classes`` where those of the data are to be matched with them.
        data: In any form of :mod:`mvitv2.data.video.open`; of data that is not split, all.
        split: Which split, where there are any.
        views: Of each clip; one in the middle if not given.

    Raises:
        mvitv2.data.labelled.DataError: There is no such split, or it has other classes than the model.
    """
    views, preprocessing = views or Views(), clip_preprocessing_of(model)
    names = model.card.get("classes")
    files = open_clip_files(data, split=split, classes=model.card.get("class_folders") or names)
    if names:
        files.name_classes(files.classes, names)
    transform = EvalClip(preprocessing, views.crops)
    return ViewedClips(files, Sampling.of(preprocessing), transform, num_clips=views.clips, on_error="skip")


def evaluate_views(
    model: MViT,
    dataset: ViewedClips,
    views: Views,
    *,
    folder: Path | None = None,
    batch_size: int = 16,
    workers: int = 0,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    examples: int = 24,
    on_batch: Callable[[int, int], None] | None = None,
    on_answer: Callable[[Example], None] | None = None,
    processes: Processes = ALONE,
) -> ViewEvaluation:
    """Measure a model on several views of each clip; every clip counts once, however many processes share the work.

    Args:
        model: A classifier of clips; moved to ``device``, and left in the mode it was in.
        dataset: With those views, as :func:`clip_dataset_for` gives it.
        views: The views.
        folder: Where the scores of all views are kept, and taken from where they are there already; ``None``: nowhere.
        batch_size: Views in one forward pass.
        workers: Processes that read clips.
        device: Where to compute; ``None``: where the model is.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (autocast).
        examples: How many mistakes are kept, and how many correct ones.
        on_batch: Called with clips done and clips in all, in the first process.
        on_answer: Called with every clip that counts and what all its views say together, in the order of the data,
            in the first process; with those whose scores were kept as well.
        processes: Those that call this together; the first one counts and keeps the scores, all get the result. An
            evaluation that was stopped may go on among more or fewer.

    Raises:
        ValueError: The model has other classes than the data, the folder holds scores of something else, or there is
            no clip to measure on.
    """
    if model.config.num_classes != (classes := len(dataset.class_names)):
        raise ValueError(f"the model tells {model.config.num_classes} classes apart, the data has {classes}")
    place, files = placed(model, device), max(batch_size // views.count, 1)
    count = _Count(dataset, views, examples, on_answer)
    about = {**_about(model, dataset, views), "files": files, "batch": batch_size, "precision": precision}
    store, started = processes.kept(lambda: None if folder is None else ViewScores(folder, about)), time.monotonic()
    for record in store.records() if store is not None else ():
        count.add(*record)
    done = processes.sent(count.batches, 0)
    with evaluating(model), batches(dataset, files, workers, processes, skip=done) as stream:
        for indices, batch in stream:
            missing = {item.index for item in batch.unreadable}
            good = [index for index in indices if index not in missing]
            scores = viewed(model, batch.images, views, place, batch_size=batch_size, precision=precision)
            for record in processes.gathered((good, batch.unreadable, scores)):
                if not processes.leads or not (record[0] or record[1]):
                    continue
                if store is not None:
                    store.append(*record)
                count.add(*record)
            if on_batch is not None and processes.leads:
                on_batch(count.seen, len(dataset))
    if store is not None:
        store.close()
    return processes.led(lambda: count.result(time.monotonic() - started, store and store.path))


def _about(model: MViT, dataset: ViewedClips, views: Views) -> dict[str, Any]:
    """What scores are of, as plain values."""
    weights, data = fingerprint_of(model), fingerprint_of_data(dataset)
    return {"views": str(views), "model": weights, "data": data, "classes": len(dataset.class_names)}


def viewed(
    model: MViT, clips: Tensor, views: Views, device: torch.device, *, batch_size: int, precision: str
) -> Tensor:
    """Softmax scores ``(B, V, classes)`` of every view of ``(B, V, C, T, H, W)`` or ``(B, C, T, H, W)``, on the CPU."""
    if not len(clips):
        return torch.empty(0, views.count, model.config.num_classes)
    flat = clips.flatten(0, 1) if views.count > 1 else clips
    scores = [probabilities(model, part.to(device), precision).cpu() for part in flat.split(batch_size)]
    return torch.cat(scores).unflatten(0, (len(clips), views.count))


class _Count:
    """What adds up over clips: the mean of the views, and each view."""

    def __init__(self, dataset: ViewedClips, views: Views, examples: int, on_answer: Callable[[Example], None] | None):
        self.names, self.views, self.on_answer = list(dataset.class_names), views, on_answer
        self.labels = torch.from_numpy(dataset.labels)
        self.mean, self.examples = Tally(len(self.names)), Examples(examples, len(self.names))
        self.right, self.batches, self.seen = torch.zeros(views.count, dtype=torch.int64), 0, 0
        self.unreadable: list[Unreadable] = []

    def add(self, indices: list[int], unreadable: tuple[Unreadable, ...], scores: Tensor) -> None:
        """Count a batch: places in the data set, and ``(B, V, classes)``."""
        self.batches += 1
        self.seen += len(indices) + len(unreadable)
        self.unreadable.extend(unreadable)
        if indices:
            labels, together = self.labels[indices], scores.double().mean(dim=1)
            self.mean.update(together, labels)
            self.examples.add(indices, together, labels, self.on_answer)
            self.right += (scores.argmax(dim=2) == labels[:, None]).sum(dim=0)

    def result(self, seconds: float, scores: Path | None) -> ViewEvaluation:
        """What follows from the counts."""
        mean = evaluation(self.mean, self.names, self.examples, self.unreadable, seconds)
        return ViewEvaluation(self.views, mean, (self.right / self.mean.total).tolist(), scores)


def fingerprint_of(model: MViT) -> str:
    """Tells other weights from the same."""
    digest = hashlib.sha256(repr(model.config).encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def fingerprint_of_data(dataset: ViewedClips) -> str:
    """Tells other clips, labels or preparation from the same; files are told by name, size and time."""
    digest = hashlib.sha256(repr((dataset.classes, dataset.sampling, dataset.transform)).encode())
    for index, label in enumerate(dataset.labels.tolist()):
        digest.update(f"{dataset.stamp(index)}\0{label}\n".encode())
    return digest.hexdigest()[:16]
