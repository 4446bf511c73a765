"""``mvitv2 predict``: names for pictures and clips."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from tyro.conf import Positional, arg

from mvitv2.cli.failures import UsageError, one_line
from mvitv2.cli.words import Maybe

if TYPE_CHECKING:
    from mvitv2.core.model import MViT
    from mvitv2.tasks.found import ObjectsFound
    from mvitv2.tasks.prediction import Prediction
    from mvitv2.tasks.records import Done

CAMERAS = ("webcam", "camera", "screen", "screenshot")
"""What other programs read pictures from by these names, or by the number of a camera."""
EXAMPLES = """\
  mvitv2 predict runs/demo digit.png
  mvitv2 predict mvitv2_t cat.jpg --top-k 1                       # published weights, fetched once
  mvitv2 predict MViTv2_T_in1k.pyth photos/ "more/*.png" --format csv > answers.csv
  mvitv2 predict runs/photos archive/ --output answers.parquet --resume    # again: goes on where it stopped
  mvitv2 predict runs/photos holiday/ --save seen                 # pictures with the answers on them
  mvitv2 predict runs/photos https://example.com/cat.jpg --allow-urls
  mvitv2 predict runs/clips match.mp4 --seconds                   # what happens when
  mvitv2 predict runs/clips match.mp4 --timeline seen             # as a table, JSON, a chart and on the film
  mvitv2 predict runs/boxes holiday/ --save seen --min-score 0.5  # a detector's: boxes and masks on them
  mvitv2 predict runs/boxes match.mp4 --save seen --output match.jsonl     # and on every frame of a clip
  find . -name "*.jpg" | mvitv2 predict runs/photos - --format jsonl
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which model, which pictures, which answers."""

    model: Positional[str]
    """A weights file of any codebase, the folder of a run, or the name of a published model."""
    files: Annotated[Positional[tuple[str, ...]], arg(help_behavior_hint="(required)")]
    """Files, folders, patterns, addresses with --allow-urls; - reads their names from standard input, one a line."""
    task: Literal["auto", "classify", "detect", "segment"] = "auto"
    """What the model is for: classes of pictures, boxes of objects, or boxes and masks; it says so itself."""
    top_k: Annotated[int, arg(aliases=["-k"])] = 5
    """Classes per picture, likeliest first."""
    allow_urls: bool = False
    """Fetch pictures named by https:// or http:// addresses, of at most 64 MiB each and 30 seconds."""
    format: Literal["table", "json", "jsonl", "csv", "coco"] = "table"
    """A line of text, one JSON list, a JSON object a line, comma-separated values, or of objects COCO's results."""
    output: Maybe[Path] = None
    """Write the answers to this file instead: .jsonl, .csv, or a folder .parquet."""
    resume: bool = False
    """Go on with that file: pictures that are in it are not read again."""
    save: Maybe[Path] = None
    """Write every picture with its answer below it, or its objects on it, into this folder, under its own path; of a
    detector clips too."""
    batch_size: Annotated[int, arg(aliases=["-b"])] = 32
    """Pictures in one forward pass."""
    workers: Annotated[int, arg(aliases=["-j"])] = 2
    """Threads that read pictures."""
    img_size: Maybe[tuple[int, ...]] = None
    """Side in pixels, or height and width, where it is not to be the model's own."""
    crop_pct: Maybe[float] = None
    """Part of the resized picture that the crop is, where it is not to be the model's own."""
    num_frames: Maybe[int] = None
    """Frames of a clip, where they are not to be the model's own."""
    seconds: bool = False
    """Of clips: also the likeliest classes of every second."""
    step: float = 1.0
    """Of clips: seconds from one window to the next."""
    timeline: Maybe[Path] = None
    """Of clips: write every second into this folder as JSON, as CSV, as a chart, and onto the clip itself."""
    boxes: Maybe[Path] = None
    """Of models that tell actions: the people of the clip, as AVA lists them: video, second, x1, y1, x2, y2."""
    min_score: Maybe[float] = None
    """Of a detector: objects with a lower score are left out, where it is not to be the model's own."""
    nms_iou: Maybe[float] = None
    """Of a detector: of two boxes of one class that overlap more, the one with the higher score stays."""
    max_detections: Maybe[int] = None
    """Of a detector: most objects of a picture."""
    tile: Maybe[int] = None
    """Of a detector: look at larger pictures in overlapping squares of this side, and once as a whole."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Numbers in the forward pass."""


def run(options: Options) -> int:
    """Give an answer for each picture as soon as there is one; 1 if there were pictures without an answer."""
    from mvitv2.cli.answers import WRITERS
    from mvitv2.cli.clips import predict_clips, refuse_clip_options
    from mvitv2.cli.detect import model_for
    from mvitv2.cli.objects import predicted
    from mvitv2.tasks.detect.detector import Detector
    from mvitv2.tasks.devices import device_named

    if options.resume and options.output is None:
        raise UsageError("--resume goes on with a file of answers; name it with --output")
    refuse_unread(options.files, allow_urls=options.allow_urls)
    device_named(options.device)
    model = model_for(options.model, options.task)
    if isinstance(model, Detector):
        return predicted(options, model)
    if options.format == "coco":
        raise UsageError("--format coco is for objects; classifiers have table, json, jsonl and csv")
    if model.config.rank == len("thw"):
        if options.allow_urls:
            raise UsageError("--allow-urls fetches pictures, and this model takes clips; give files of clips")
        return predict_clips(options, model)
    refuse_clip_options({n: getattr(options, n) for n in ("num_frames", "seconds", "timeline", "boxes")})
    if options.output is not None:
        return into_file(options, model, options.output)
    total = failed = 0
    answers = answered(options, model)
    for answer in WRITERS[options.format](answers, min(options.top_k, model.config.num_classes)):
        total += 1
        failed += answer.error is not None
    if failed:
        print(f"{failed} of {total} could not be predicted", file=sys.stderr)
    return 1 if failed else 0


def refuse_unread(files: tuple[str, ...], *, allow_urls: bool) -> None:
    """Say before anything is loaded that cameras are not read, and addresses only where that is allowed.

    Raises:
        UsageError: One of the sources is one of these.
    """
    from mvitv2.data.web import SCHEMES, is_address

    for name in files:
        scheme = name.partition("://")[0].lower() if is_address(name) else ""
        if (name in CAMERAS or name.isdecimal()) and not Path(name).exists():
            raise UsageError(
                f"{name} is a camera or a screen to other programs, which is not supported here; give files, folders, "
                "patterns or, with --allow-urls, addresses of pictures"
            )
        if scheme and scheme not in SCHEMES:
            raise UsageError(f"{one_line(name)}: {scheme}:// is not supported; only https:// and http:// pictures are")
        if scheme and not allow_urls:
            raise UsageError(f"{one_line(name)} is an address; --allow-urls fetches it")


def answered(options: Options, model: "MViT", done: "Done | None" = None) -> Iterator["Prediction"]:
    """The stream of answers, without pictures that are done; each picture written with its own where asked for."""
    from mvitv2.cli.pictures import names, resized
    from mvitv2.tasks.devices import device_named
    from mvitv2.tasks.prediction import predict, preprocessing_of

    bodies = Bodies(keep=options.save is not None)
    answers = predict(
        model,
        names(options.files),
        top=options.top_k,
        batch_size=options.batch_size,
        workers=options.workers,
        device=device_named(options.device),
        precision=options.precision,
        preprocessing=resized(preprocessing_of(model), options.img_size, options.crop_pct),
        skip=None if done is None else done.__contains__,
        fetch=bodies.fetch if options.allow_urls else None,
    )
    return answers if options.save is None else saved(answers, options.save, bodies)


def into_file(options: Options, model: "MViT", path: Path) -> int:
    """Answers to a file, figures to standard error."""
    from mvitv2.cli.answers import header, record
    from mvitv2.cli.pictures import Count, kept
    from mvitv2.tasks.records import opened

    kinds = {"file": "text", "error": "text", "class": "texts", "index": "integers", "score": "numbers"}
    columns = header(min(options.top_k, model.config.num_classes))
    with ExitStack() as stack:
        records, done = stack.enter_context(kept(opened(path, kinds, columns, resume=options.resume)))
        count = stack.enter_context(Count(done, path))
        for answer in answered(options, model, done):
            records.write(record(answer, lines=path.suffix.lower() == ".jsonl"))
            count.add(answer.file, answer.error)
    print(count.told("could not be predicted"), file=sys.stderr)
    return 1 if count.failed else 0


class Bodies:
    """Fetches pictures.

    Args:
        keep: Hold each until it has been written with its answer.
    """

    def __init__(self, *, keep: bool):
        from mvitv2.data.web import Web

        self.web, self.keep, self.held = Web(), keep, dict[str, bytes]()

    def fetch(self, url: str) -> bytes:
        """The bytes behind an address."""
        body = self.web(url)
        if self.keep:
            self.held[url] = body
        return body


A = TypeVar("A", bound="Prediction | ObjectsFound")


def saved(answers: Iterator[A], folder: Path, bodies: Bodies) -> Iterator[A]:
    """Answers handed on, each picture written with its own on it.

    Args:
        answers: The stream.
        folder: Where pictures go.
        bodies: What was fetched; let go as it is used.
    """
    from mvitv2.data.images import read_image

    for answer in answers:
        body = bodies.held.pop(answer.file, None)
        if answer.error is None:
            target = place_of(answer.file, folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            answer.save(target, None if body is None else read_image(body))
        yield answer


def place_of(file: str, folder: Path, suffixes: tuple[str, ...] = (".jpg", ".jpeg")) -> Path:
    """Where a picture or clip is saved: under its own path, as JPEG or MP4, and never outside the folder."""
    path = Path(file.partition("://")[2].partition("?")[0] or file)
    parts = [part for part in path.parts if part not in (path.anchor, "..", ".")]
    name = parts[-1] if path.suffix.lower() in suffixes else f"{parts[-1]}{suffixes[0]}"
    return folder.joinpath(*parts[:-1], name)
