"""Detectors in ``mvitv2 eval``: figures of boxes and masks; and which model, thresholds and sizes are meant."""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvitv2.cli.failures import UsageError, one_line
from mvitv2.cli.output import columns, counter

if TYPE_CHECKING:
    from torch import device

    from mvitv2.cli import eval as eval_command
    from mvitv2.core.model import MViT
    from mvitv2.data.detection.dataset import DetectionImages
    from mvitv2.preprocessing import Preprocessing
    from mvitv2.tasks.detect.config import Selection
    from mvitv2.tasks.detect.detector import Detector
    from mvitv2.tasks.detect_evaluation import DetectionEvaluation
    from mvitv2.tasks.processes import Processes

SHOWN = 20
"""Classes and files that are named in the text; the JSON file has all."""


def model_for(model: str, task: str) -> "MViT | Detector":
    """MODEL: a detector, or a classifier of pictures.

    Raises:
        UsageError: The task and the model do not fit.
        ValueError: It is neither.
    """
    from mvitv2.cli.checkpoints import opened
    from mvitv2.core.model import MViT
    from mvitv2.tasks.detect.detector import Detector

    found = opened(model)
    if isinstance(found, Detector):
        if task == "classify":
            raise UsageError(f"--task classify: {model} is a detector")
        if task == "segment" and not found.config.masks:
            raise UsageError(f"{model} has no mask head; use --task detect")
        return boxes_alone(found) if task == "detect" else found
    if not isinstance(found, MViT):
        raise ValueError(f"{model} is the backbone of a detector; this command needs a classifier or a whole detector")
    if task not in ("auto", "classify"):
        raise UsageError(f"--task {task}: {model} is no detector")
    return found


def boxes_alone(model: "Detector") -> "Detector":
    """A detector without its mask head, if it has one: masks cost time, and nobody asked for them."""
    model.roi_heads.mask_head = None
    model.config = model.roi_heads.config = replace(model.config, masks=False)
    return model


def selection_of(options: Any, model: "Detector") -> "Selection":
    """The model's thresholds with those of the command line."""
    given = {name: getattr(options, name) for name in ("min_score", "nms_iou", "max_detections")}
    return replace(model.config.selection, **{name: value for name, value in given.items() if value is not None})


def preprocessing_of(options: Any, model: "Detector") -> "Preprocessing":
    """How the model wants its pictures, or with another shorter side."""
    from mvitv2.tasks.detect_prediction import detector_preprocessing

    record, side = detector_preprocessing(model), options.img_size
    if side is None:
        return record
    shorter = side[0] if isinstance(side, tuple) else side
    if isinstance(side, tuple) and len(side) != 1:
        raise UsageError(f"--img-size {' '.join(map(str, side))}: a detector takes one number, the shorter side")
    longest = (
        None
        if record.longest is None or not isinstance(record.resize, int)
        else (round(record.longest * shorter / record.resize))
    )
    return replace(record, resize=shorter, longest=longest)


def evaluated(options: "eval_command.Options", model: "Detector", device: "device", processes: "Processes") -> int:
    """Measure a detector, and print or write the figures."""
    from mvitv2.data.detection.augment import resize_of
    from mvitv2.data.detection.open import open_detection
    from mvitv2.data.splits import WHOLE
    from mvitv2.tasks.detect_evaluation import evaluate_detector

    resize = resize_of(preprocessing_of(options, model))
    masks = None if options.task == "auto" and model.config.masks else options.task == "segment"
    names = model.card.get("classes") or None
    both = {options.split: resize, WHOLE: resize}
    found = open_detection(options.data, both, need=(), classes=names, masks=masks, on_error="skip")
    dataset = found.get(options.split) or found.get(WHOLE)
    if dataset is None:
        raise UsageError(f"{options.data} has no boxes of {options.split}; --split train or test?")
    dataset = dataset.whole(resize)
    with counter("measuring") if processes.leads else nullcontext() as told:
        measure = evaluate_detector(
            model,
            dataset,
            batch_size=min(options.batch_size, 8),
            workers=options.workers,
            device=device,
            precision=options.precision,
            selection=selection_of(options, model),
            on_batch=told,
            processes=processes,
        )
    if processes.leads:
        tell(options, measure)
        if options.report is not None:
            write_page(options, model, dataset, measure)
    return 0


def write_page(
    options: "eval_command.Options", model: "Detector", dataset: "DetectionImages", measure: "DetectionEvaluation"
) -> None:
    """The HTML page, with the curves of the run where MODEL is one; and where it is."""
    from mvitv2.report.objects import report_on_detector, write_objects_report
    from mvitv2.train.folder import read_run

    page = report_on_detector(
        model,
        dataset,
        measure,
        title=f"{options.model} on {Path(options.data).name}",
        run=read_run(Path(options.model)) if Path(options.model).is_dir() else None,
        images=f"images ({options.split})",
    )
    print(f"report: {write_objects_report(str(options.report), page)}", file=sys.stderr)


def tell(options: "eval_command.Options", measure: "DetectionEvaluation") -> None:
    """The figures as a table or as JSON, and in their files."""
    content = {"model": options.model, "data": options.data, "split": options.split, **measure.to_dict()}
    if options.json == "-":
        print(json.dumps(content, indent=2))
    else:
        print(table(measure))
    for path, value in ((options.json, content), (options.results, measure.results)):
        if path not in (None, "-"):
            _write(Path(str(path)), value)
    for item in measure.unreadable[:SHOWN]:
        print(f"unreadable, left out: {one_line(item.path)}: {one_line(item.reason)}", file=sys.stderr)


def table(measure: "DetectionEvaluation") -> str:
    """The figures, and the classes if there are not too many."""
    both = [one for one in (measure.box, measure.mask) if one is not None]
    rows = [("", *(one.kind.upper() for one in both))]
    rows += [(name, *(percent(one.figures[name]) for one in both)) for name in measure.box.figures]
    rows += [("pictures", str(measure.images)), ("unreadable", str(len(measure.unreadable)))]
    text = columns(rows, right=(1, 2))
    there = [place for place, one in enumerate(measure.box.per_class) if one.objects]
    if len(there) <= SHOWN:
        cells: list[tuple[str, ...]] = [("CLASS", "OBJECTS", *(f"{one.kind.upper()} AP" for one in both))]
        for place in there:
            first = measure.box.per_class[place]
            cells.append((first.name, str(first.objects), *(percent(one.per_class[place].precision) for one in both)))
        text += "\n\n" + columns(cells, right=(1, 2, 3))
    return text


def percent(value: float | None) -> str:
    """A figure of 0 to 1 times 100, as papers print it; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.1f}"


def _write(path: Path, content: Any) -> None:
    """A JSON file, whole or not at all."""
    from mvitv2.weights.files import replacing

    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
