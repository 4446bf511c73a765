"""``mvitv2 eval``: how good a model is on a data set."""

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from mvitv2.cli.failures import one_line
from mvitv2.cli.output import check_folder, columns, counter
from mvitv2.cli.words import Maybe

if TYPE_CHECKING:
    from torch import device

    from mvitv2.core.model import MViT
    from mvitv2.data.samples import Unreadable
    from mvitv2.tasks.clips import ViewEvaluation
    from mvitv2.tasks.detected import ActionEvaluation
    from mvitv2.tasks.evaluation import Evaluation
    from mvitv2.tasks.processes import Processes
    from mvitv2.tasks.scoring import Scoring

EXAMPLES = """\
  mvitv2 eval runs/demo digits
  mvitv2 eval runs/photos photos                     # photos/val, or photos itself if it holds class folders
  mvitv2 eval runs/clips clips --views 5x1           # 5 clips of each file, scores averaged; goes on if stopped
  mvitv2 eval cascade_mask_rcnn_mvitv2_t coco --results found.json    # boxes and masks
  mvitv2 eval mvitv2_t imagenet --batch-size 128 --json mvitv2_t.json --report mvitv2_t.html
  mvitv2 eval mvitv2_t imagenet --labels real.json   # ImageNet-ReaL: any number of right answers for each picture
  mvitv2 eval mvitv2_t imagenet-a                    # 200 of the 1000 classes: answers are restricted to them
  mvitv2 eval mvitv2_s imagenet --img-size 288 --crop-pct 1.0 --crops 10 --results-file all.csv
  torchrun --nproc-per-node 8 -m mvitv2 eval mvitv2_b imagenet       # each picture once, shared by eight GPUs
"""
SHOWN = 20
"""Classes and files that are named in the text; the JSON file has all."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which model, on what, and where the figures go."""

    model: Positional[str]
    """A weights file of any codebase, the folder of a run, or the name of a published model."""
    data: Positional[str]
    """A folder of class folders, a folder with val/ or test/ in it, a folder in COCO's form, or `digits`."""
    task: Literal["auto", "classify", "detect", "segment"] = "auto"
    """What the model is for: classes of pictures, boxes of objects, or boxes and masks; it says so itself."""
    split: Literal["val", "test", "train"] = "val"
    """Which part of the data, where it has parts."""
    labels: Maybe[Path] = None
    """A JSON file with the right answers, one or several for each picture, such as real.json of ImageNet-ReaL."""
    json: Maybe[str] = None
    """Write all figures to this file; - prints them instead of the table."""
    report: Maybe[Path] = None
    """Write a self-contained HTML page to this file: figures, confusion matrix, pictures or frames with attention."""
    results_file: Maybe[Path] = None
    """Add a row to this CSV file, in the columns of timm's."""
    predictions: Maybe[Path] = None
    """Write what is said about each picture or clip to this file: .csv, .jsonl, or a folder .parquet."""
    views: str = "1x1"
    """Of clips: CLIPSxCROPS of each file, such as 5x1, 1x3 or 5x3."""
    scores: Maybe[Path] = None
    """Of clips: folder that keeps the scores of all views, and that a stopped evaluation goes on from."""
    batch_size: Annotated[int, arg(aliases=["-b"])] = 64
    """Pictures, or views of clips, in one forward pass."""
    workers: Annotated[int, arg(aliases=["-j"])] = 2
    """Processes that read pictures; 0 reads between the passes."""
    img_size: Maybe[tuple[int, ...]] = None
    """Side in pixels, or height and width, where it is not to be the model's own."""
    crop_pct: Maybe[float] = None
    """Part of the resized picture that the crop is, where it is not to be the model's own."""
    crops: Literal[1, 5, 10] = 1
    """Looks at each picture: the centre, four corners too, or these and their mirror images; answers are averaged."""
    flip: bool = False
    """Look at mirror images too."""
    scales: tuple[float, ...] = (1.0,)
    """Look at each picture at so many times its size, several times."""
    min_score: Maybe[float] = None
    """Of a detector: objects with a lower score are left out, where it is not to be the model's own."""
    nms_iou: Maybe[float] = None
    """Of a detector: of two boxes of one class that overlap more, the one with the higher score stays."""
    max_detections: Maybe[int] = None
    """Of a detector: most objects of a picture."""
    results: Maybe[Path] = None
    """Of a detector: write what is found to this file, in COCO's result format."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Numbers in the forward pass."""
    timeout_minutes: float = 10.0
    """Of processes of torchrun or srun, which share the work: how long one waits for another."""


def run(options: Options) -> int:
    """Measure, and print or write the figures; processes of torchrun or srun share the pictures."""
    from mvitv2.cli.clips import eval_clips, refuse_clip_options
    from mvitv2.cli.detect import evaluated, model_for
    from mvitv2.tasks.detect.detector import Detector
    from mvitv2.tasks.devices import own_device
    from mvitv2.tasks.processes import joined

    for path in (options.json, options.report, options.results_file):
        check_folder(Path(path or ""))
    with joined(options.device, minutes=options.timeout_minutes) as processes:
        device = own_device(options.device, processes)  # before weights are read
        # one after the other: what the first one downloads is there for the others
        model = processes.first(lambda: model_for(options.model, options.task))
        if isinstance(model, Detector):
            return evaluated(options, model, device, processes)
        if model.config.rank == len("thw"):
            return eval_clips(options, model, device, processes)
        refuse_clip_options({"scores": options.scores, "views": options.views != "1x1"})
        return eval_pictures(options, model, device, processes)


def eval_pictures(options: Options, model: "MViT", device: "device", processes: "Processes") -> int:
    """Measure a classifier of pictures; the first process tells."""
    from mvitv2.cli.measured import answers_kept, write_picture_page, write_row
    from mvitv2.tasks.evaluation import evaluate

    model = prepared(options, model)
    dataset, scoring, note = processes.first(lambda: data_for(options, model))
    if note and processes.leads:
        print(f"note: {note}", file=sys.stderr)
    with ExitStack() as stack:
        found = evaluate(
            model,
            dataset,
            batch_size=options.batch_size,
            workers=0 if options.data == "digits" else options.workers,
            device=device,
            precision=options.precision,
            scoring=scoring,
            on_batch=stack.enter_context(counter("measuring")) if processes.leads else None,
            on_answer=stack.enter_context(answers_kept(options.predictions, dataset, processes)),
            processes=processes,
        )
    if not processes.leads:
        return 0
    tell(options, found)
    if options.results_file is not None:
        write_row(options.results_file, options, model, found)
    if options.report is not None:
        write_picture_page(options, model, dataset, scoring, found)
    tell_unreadable(found.unreadable)
    return 0


def tell(options: Options, found: "Evaluation") -> None:
    """The figures as a table or as JSON, and in their file."""
    print(as_json(options, found) if options.json == "-" else table(found))
    if options.json not in (None, "-"):
        write(Path(options.json), as_json(options, found))


def tell_unreadable(items: "list[Unreadable]") -> None:
    """Name some of the files that are in no figure."""
    for item in items[:SHOWN]:
        print(f"unreadable, left out: {one_line(item.path)}: {one_line(item.reason)}", file=sys.stderr)
    if len(items) > SHOWN:
        print(f"unreadable, left out: {len(items) - SHOWN} more", file=sys.stderr)


def prepared(options: Options, model: "MViT") -> "MViT":
    """The model, told to be given pictures of another size; one that names no classes takes those of the data."""
    from mvitv2.cli.pictures import resized
    from mvitv2.tasks.prediction import preprocessing_of

    record = resized(preprocessing_of(model), options.img_size, options.crop_pct)
    model.card["preprocessing"] = record.to_dict()
    if not model.card.get("classes"):
        model.card.pop("classes", None)
    return model


def data_for(options: Options, model: "MViT") -> tuple[Any, "Scoring", str]:
    """The data as the model is to see it, what counts as right, and what is unusual."""
    from mvitv2.tasks.matching import matched
    from mvitv2.tasks.prediction import preprocessing_of
    from mvitv2.tasks.scoring import Scoring, read_accepted
    from mvitv2.tasks.views import ViewsTransform

    record = preprocessing_of(model)
    one = options.crops == 1 and not options.flip and options.scales == (1.0,)
    views = None if one else ViewsTransform(record, options.crops, options.flip, options.scales)
    found = matched(model, options.data, options.split, views)
    accepted = None if options.labels is None else read_accepted(options.labels, found.dataset)
    return found.dataset, Scoring(found.columns, accepted), found.note


def table(found: "Evaluation", unit: str = "images") -> str:
    """The figures, and the classes if there are not too many."""
    low, high = found.top1_interval
    lines = [
        (unit, f"{found.images}"),
        ("top-1", f"{percent(found.top1)}  (95 % interval {100 * low:.2f} to {100 * high:.2f})"),
        ("top-5", percent(found.top5)),
        ("mean of classes", percent(found.mean_class)),
        ("loss", f"{found.loss:.4f}"),
        ("calibration error", f"{found.calibration_error:.4f}"),
        ("unreadable", f"{len(found.unreadable)}"),
        *([("without a right answer", f"{found.unlabelled}")] if found.unlabelled else []),
        ("speed", f"{found.images / max(found.seconds, 1e-9):.1f} {unit}/s"),
    ]
    text = columns(lines)
    if len(found.per_class) <= SHOWN:
        header = ("CLASS", unit.upper(), "CORRECT", "RECALL", "PRECISION")
        rows = [(c.name, c.images, c.correct, percent(c.recall), percent(c.precision)) for c in found.per_class]
        text += "\n\n" + columns([header, *rows], right=(1, 2, 3, 4))
    return text


def percent(rate: float | None) -> str:
    """A rate of 0 to 1 in per cent; a dash where there is none."""
    return "-" if rate is None else f"{100 * rate:.2f} %"


def as_json(options: Options, found: "Evaluation | ViewEvaluation | ActionEvaluation") -> str:
    """All figures, and what they are of."""
    about = {"model": options.model, "data": options.data, "split": options.split}
    if options.labels is not None:
        about["labels"] = str(options.labels)
    looks = {"crops": options.crops, "flip": options.flip, "scales": list(options.scales)}
    return json.dumps({**about, **looks, **found.to_dict()}, indent=2)


def write(path: Path, text: str) -> None:
    """A text file, whole or not at all."""
    from mvitv2.weights.files import replacing

    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
