"""How good a detector is on a data set: every picture once, boxes and masks in the pictures' own pixels."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mvitv2.data.detection.dataset import DetectionBatch, DetectionImages, detection_batch
from mvitv2.data.samples import Unreadable
from mvitv2.tasks.detect.config import Selection
from mvitv2.tasks.detect.detector import Detector
from mvitv2.tasks.detect_metrics import (
    DetectionMeasure,
    Detections,
    coco_results,
    gathered,
    ground_truth,
    measured,
    rle_masks,
)
from mvitv2.tasks.evaluation import AUTOCAST, evaluating, placed
from mvitv2.tasks.processes import ALONE, Processes
from mvitv2.tasks.workers import loading


@dataclass(frozen=True)
class DetectionEvaluation:
    """How good a detector is on a data set."""

    box: DetectionMeasure
    mask: DetectionMeasure | None
    """``None`` where the model or the data has no masks."""
    images: int
    """That were read; each counts once."""
    unreadable: list[Unreadable]
    """Pictures that could not be read; they are in no figure above."""
    seconds: float
    results: list[dict[str, Any]] = field(repr=False)
    """What was found, in COCO's result format."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without what was found."""
        return {
            "images": self.images,
            "box": self.box.to_dict(),
            "mask": None if self.mask is None else self.mask.to_dict(),
            "unreadable": [{"path": one.path, "reason": one.reason} for one in self.unreadable],
            "seconds": self.seconds,
        }


def evaluate_detector(
    model: Detector,
    dataset: DetectionImages,
    *,
    batch_size: int = 1,
    workers: int = 0,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    selection: Selection | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    processes: Processes = ALONE,
) -> DetectionEvaluation:
    """Measure a detector; every picture counts once, however many processes share the work.

    Args:
        model: Moved to ``device``, and left in the mode it was in.
        dataset: Its transform resizes alone, and it skips what cannot be read.
        batch_size: Pictures in one forward pass, of any sizes.
        workers: Processes that load pictures; 0 loads in this one.
        device: Where to compute; ``None``: where the model is.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (autocast).
        selection: Thresholds other than the model's.
        on_batch: Told pictures done and in all.
        processes: Those that call this together, with the same model and data; all get the whole result.

    Raises:
        ValueError: The model has another number of classes than the data, or no picture can be read.
    """
    if model.config.num_classes != len(dataset.classes):
        raise ValueError(
            f"the model tells {model.config.num_classes} classes apart, the data has {len(dataset.classes)}"
        )
    started, unreadable, found = time.monotonic(), [], []
    place = placed(model, device)
    places = _places(len(dataset), batch_size, processes)
    with evaluating(model), loading(dataset, places, detection_batch, workers) as stream:
        for number, batch in enumerate(stream, 1):
            unreadable += batch.unreadable
            if batch.num_samples:
                found += _found(model, batch.to(place), dataset, precision, selection)
            elif processes.count > 1:  # where a model is shared out, all must call it equally often
                detect(model, [torch.zeros(3, 64, 64, device=place)], [(64, 64)], precision=precision)
            if on_batch is not None:
                on_batch(min(number * batch_size * processes.count, len(dataset)), len(dataset))
    lost = [one for part in processes.gathered(unreadable) for one in part]
    parts, seconds = processes.gathered(found), time.monotonic() - started
    return evaluation_of(dataset, parts, lost, seconds, masks=model.config.masks)


def evaluation_of(
    dataset: DetectionImages,
    parts: Sequence[Sequence[Detections]],
    unreadable: Sequence[Unreadable],
    seconds: float,
    *,
    masks: bool,
) -> DetectionEvaluation:
    """What follows from the detections of one or several processes; each picture counts once.

    Raises:
        ValueError: There are none.
    """
    found = gathered(parts)
    if not found:
        first = f", first {unreadable[0].path}: {unreadable[0].reason}" if unreadable else ""
        raise ValueError(f"there is no picture to measure on; {len(unreadable)} could not be read{first}")
    truth, ids = ground_truth(dataset.annotations), [one.image_id for one in found]
    results = coco_results(found, dataset.annotations.category_ids)
    return DetectionEvaluation(
        box=measured(truth, results, image_ids=ids),
        mask=measured(truth, results, kind="mask", image_ids=ids) if masks and dataset.masks else None,
        images=len(found),
        unreadable=sorted(set(unreadable), key=lambda one: one.index),
        seconds=seconds,
        results=results,
    )


def detect(
    model: Detector,
    images: Sequence[torch.Tensor],
    sizes: Sequence[tuple[int, int]],
    *,
    precision: str = "fp32",
    selection: Selection | None = None,
) -> list[Any]:
    """Detections in pictures ``(3, H, W)`` of any sizes, in the pixels of pictures of ``sizes``."""
    dtype = AUTOCAST[precision]
    with torch.inference_mode(), torch.autocast(images[0].device.type, dtype, enabled=dtype is not None):
        # through the module itself: where processes have parts of it, they are put together when it is called
        return model(images, sizes=sizes, selection=selection)


def _found(
    model: Detector, batch: DetectionBatch, dataset: DetectionImages, precision: str, selection: Selection | None
) -> list[Detections]:
    """What is in a batch, masks as run lengths, numbers on the CPU."""
    rows = [int(dataset.places[index]) for index in batch.indices]
    sizes = [dataset.size(index) for index in batch.indices]
    answers = detect(model, batch.images, sizes, precision=precision, selection=selection)
    return [
        Detections(
            int(dataset.annotations.image_ids[row]),
            answer.boxes.float().cpu(),
            answer.scores.float().cpu(),
            answer.labels.cpu(),
            None if answer.masks is None else rle_masks(answer.masks),
        )
        for row, answer in zip(rows, answers, strict=True)
    ]


def _places(count: int, batch_size: int, processes: Processes) -> list[list[int]]:
    """Batches of this process's pictures, some of them twice where several processes are to have equally many."""
    each = -(-count // processes.count)
    mine = [(processes.rank + step * processes.count) % count for step in range(each)]
    return [mine[start : start + batch_size] for start in range(0, each, batch_size)]
