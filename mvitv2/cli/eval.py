"""``mvitv2 eval``: how good a model is on a data set."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from mvitv2.cli.failures import one_line
from mvitv2.cli.output import check_folder, columns, counter
from mvitv2.cli.words import Maybe

if TYPE_CHECKING:
    from mvitv2.core.model import MViT
    from mvitv2.tasks.evaluation import Evaluation

EXAMPLES = """\
  mvitv2 eval runs/demo digits
  mvitv2 eval runs/photos photos                     # photos/val, or photos itself if it holds class folders
  mvitv2 eval mvitv2_t imagenet --batch-size 128 --json mvitv2_t.json --report mvitv2_t.html
"""
SHOWN = 20
"""Classes and files that are named in the text; the JSON file has all."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which model, on what, and where the figures go."""

    model: Positional[str]
    """A weights file of any codebase, the folder of a run, or the name of a published model."""
    data: Positional[str]
    """A folder of class folders, a folder with val/ or test/ in it, or `digits`."""
    split: Literal["val", "test", "train"] = "val"
    """Which part of the data, where it has parts."""
    json: Maybe[str] = None
    """Write all figures to this file; - prints them instead of the table."""
    report: Maybe[Path] = None
    """Write a self-contained HTML page to this file: figures, confusion matrix, pictures with attention."""
    batch_size: Annotated[int, arg(aliases=["-b"])] = 64
    """Pictures in one forward pass."""
    workers: Annotated[int, arg(aliases=["-j"])] = 2
    """Processes that read pictures; 0 reads between the passes."""
    img_size: Maybe[int] = None
    """Side in pixels, where it is not to be the model's own."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Numbers in the forward pass."""


def run(options: Options) -> int:
    """Measure, and print or write the figures."""
    from mvitv2.cli.checkpoints import classifier
    from mvitv2.tasks.datasets import dataset_for
    from mvitv2.tasks.devices import device_named
    from mvitv2.tasks.evaluation import evaluate

    for path in (options.json, options.report):
        check_folder(Path(path or ""))
    device = device_named(options.device)
    model = prepared(classifier(options.model), options.img_size)
    dataset = dataset_for(model, options.data, options.split)
    with counter("measuring") as told:
        found = evaluate(
            model,
            dataset,
            batch_size=options.batch_size,
            workers=0 if options.data == "digits" else options.workers,
            device=device,
            precision=options.precision,
            on_batch=told,
        )
    if options.json == "-":
        print(as_json(options, found))
    else:
        print(table(found))
    if options.json not in (None, "-"):
        write(Path(options.json), as_json(options, found))
    if options.report is not None:
        write_page(options, model, dataset, found)
    for item in found.unreadable[:SHOWN]:
        print(f"unreadable, left out: {one_line(item.path)}: {one_line(item.reason)}", file=sys.stderr)
    if len(found.unreadable) > SHOWN:
        print(f"unreadable, left out: {len(found.unreadable) - SHOWN} more", file=sys.stderr)
    return 0


def prepared(model: "MViT", img_size: int | None) -> "MViT":
    """The model, told to be given pictures of another size; one that names no classes takes those of the data."""
    from mvitv2.tasks.prediction import preprocessing_of

    if img_size is not None:
        model.card["preprocessing"] = preprocessing_of(model).at(img_size).to_dict()
    if not model.card.get("classes"):
        model.card.pop("classes", None)
    return model


def table(found: "Evaluation") -> str:
    """The figures, and the classes if there are not too many."""
    low, high = found.top1_interval
    lines = [
        ("images", f"{found.images}"),
        ("top-1", f"{percent(found.top1)}  (95 % interval {100 * low:.2f} to {100 * high:.2f})"),
        ("top-5", percent(found.top5)),
        ("mean of classes", percent(found.mean_class)),
        ("loss", f"{found.loss:.4f}"),
        ("calibration error", f"{found.calibration_error:.4f}"),
        ("unreadable", f"{len(found.unreadable)}"),
        ("speed", f"{found.images / max(found.seconds, 1e-9):.1f} images/s"),
    ]
    text = columns(lines)
    if len(found.per_class) <= SHOWN:
        header = ("CLASS", "IMAGES", "CORRECT", "RECALL", "PRECISION")
        rows = [(c.name, c.images, c.correct, percent(c.recall), percent(c.precision)) for c in found.per_class]
        text += "\n\n" + columns([header, *rows], right=(1, 2, 3, 4))
    return text


def percent(rate: float | None) -> str:
    """A rate of 0 to 1 in per cent; a dash where there is none."""
    return "-" if rate is None else f"{100 * rate:.2f} %"


def as_json(options: Options, found: "Evaluation") -> str:
    """All figures, and what they are of."""
    return json.dumps(
        {"model": options.model, "data": options.data, "split": options.split, **found.to_dict()}, indent=2
    )


def write_page(options: Options, model: "MViT", dataset: Any, found: "Evaluation") -> None:
    """The HTML page, and where it is."""
    from mvitv2.report import Report, samples, write_report
    from mvitv2.train.checkpoint import versions

    facts = {
        "Pictures": f"{found.images:,}",
        "Classes": f"{len(found.per_class):,}",
        "Parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "Data": f"{options.data} ({options.split})",
    }
    title, shown = f"{options.model} on {Path(options.data).name}", samples(model, dataset, found)
    report = Report(title=title, evaluation=found, facts=facts, samples=shown, versions=versions())
    print(f"report: {write_report(str(options.report), report)}", file=sys.stderr)


def write(path: Path, text: str) -> None:
    """A text file, whole or not at all."""
    from mvitv2.weights.files import replacing

    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
