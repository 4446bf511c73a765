"""Detectors in ``mvitv2 predict``: objects in pictures and in the frames of clips, written as they are found."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mvitv2.cli.failures import UsageError, one_line

if TYPE_CHECKING:
    from mvitv2.cli.predict import Options
    from mvitv2.data.sources import Problem
    from mvitv2.tasks.detect.detector import Detector
    from mvitv2.tasks.found import ObjectsFound
    from mvitv2.tasks.records import Done

FORMATS = {".json": ("json", "coco"), ".jsonl": ("jsonl",), ".csv": ("csv",), ".parquet": ("parquet",)}
"""What a file of objects can hold, by the end of its name; the first where nothing else is asked for."""


def predicted(options: "Options", model: "Detector") -> int:
    """Objects in each picture or frame as soon as there are any; 1 if there were pictures without an answer."""
    from mvitv2.cli.clips import refuse
    from mvitv2.cli.output import check_folder

    given = {name: getattr(options, name) for name in ("crop_pct", "num_frames", "seconds", "timeline", "boxes")}
    refuse(given, "of classifiers, and this is a detector; it has --min-score, --nms-iou, --max-detections and --tile")
    if options.output is None:
        return _told(answered(options, model), options.format, sys.stdout)
    check_folder(options.output)
    form = _form(options, options.output)
    if form in ("json", "coco"):
        if options.resume:
            raise UsageError(
                f"--resume goes on with .jsonl, .csv or .parquet; {form} is written at the end, as a whole"
            )
        with _whole(options.output) as target:
            return _told(answered(options, model), form, target)
    return _kept(options, model, options.output)


def _form(options: "Options", path: Path) -> str:
    """What is written into a file.

    Raises:
        UsageError: The end of its name and the format say different things, or nothing that is known.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"--output {path}: objects are written as {', '.join(FORMATS)}")
    form = FORMATS[suffix][0] if options.format == "table" else options.format
    if form not in FORMATS[suffix]:
        raise UsageError(f"--output {path} with --format {form}: the file would hold {' or '.join(FORMATS[suffix])}")
    return form


def _told(answers: Iterator["ObjectsFound"], form: str, target: IO[str]) -> int:
    """Answers on a stream, and at the end how many there are not."""
    total = failed = 0
    for answer in WRITERS[form](answers, target):
        total += 1
        failed += answer.error is not None
    if failed:
        print(f"{failed} of {total} could not be predicted", file=sys.stderr)
    return 1 if failed else 0


def _kept(options: "Options", model: "Detector", path: Path) -> int:
    """Answers in a file that grows, and that a stopped prediction goes on with; figures to standard error."""
    from mvitv2.cli.pictures import Count, kept
    from mvitv2.tasks.object_records import opened_objects

    with ExitStack() as stack:
        records, done = stack.enter_context(kept(opened_objects(path, resume=options.resume)))
        count = stack.enter_context(Count(done, path))
        for answer in answered(options, model, done):
            records.write(answer.to_dict())
            count.add(answer.file, answer.error)
    print(count.told("could not be predicted"), file=sys.stderr)
    return 1 if count.failed else 0


@contextmanager
def _whole(path: Path) -> Iterator[IO[str]]:
    """A file that is there whole or not at all."""
    from mvitv2.weights.files import replacing

    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file


def answered(options: "Options", model: "Detector", done: "Done | None" = None) -> Iterator["ObjectsFound"]:
    """The stream of answers in the order of the sources, without those that are done."""
    skip = None if done is None else done.__contains__
    for film, group in groupby(sources(options.files), key=is_film):
        if not film:
            yield from in_pictures(options, model, group, skip)
            continue
        for path in group:
            if skip is None or not skip(str(path)):
                yield from in_film(options, model, Path(str(path)))


def sources(files: Iterable[str]) -> Iterator["Path | Problem | str"]:
    """Pictures and clips that were named, of folders and patterns all; addresses as they are."""
    from mvitv2.cli.pictures import names
    from mvitv2.data.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, expand
    from mvitv2.data.web import is_address

    for name in names(files):
        if is_address(name):
            yield name
        else:
            yield from expand(name, suffixes=IMAGE_SUFFIXES | VIDEO_SUFFIXES)


def is_film(source: "Path | Problem | str") -> bool:
    """Whether a source is a clip, by the end of its name."""
    from mvitv2.data.sources import VIDEO_SUFFIXES

    return isinstance(source, Path) and source.suffix.lower() in VIDEO_SUFFIXES


def how(options: "Options", model: "Detector") -> dict[str, Any]:
    """What pictures and frames are looked at with."""
    from mvitv2.cli.detect import preprocessing_of, selection_of
    from mvitv2.tasks.devices import device_named

    return {
        "batch_size": min(options.batch_size, 8),
        "device": device_named(options.device),
        "precision": options.precision,
        "preprocessing": preprocessing_of(options, model),
        "selection": selection_of(options, model),
        "tile": options.tile,
    }


def in_pictures(
    options: "Options", model: "Detector", pictures: Iterable[Any], skip: Callable[[str], bool] | None
) -> Iterator["ObjectsFound"]:
    """Answers for pictures, each written with its objects on it where that is asked for."""
    from mvitv2.cli.predict import Bodies, saved
    from mvitv2.tasks.detect_prediction import predict_objects

    bodies = Bodies(keep=options.save is not None)
    fetch = bodies.fetch if options.allow_urls else None
    answers = predict_objects(model, pictures, workers=options.workers, skip=skip, fetch=fetch, **how(options, model))
    return answers if options.save is None else saved(answers, options.save, bodies)


def in_film(options: "Options", model: "Detector", path: Path) -> Iterator["ObjectsFound"]:
    """Answers for the frames of a clip, and the clip with its objects on it where that is asked for."""
    from mvitv2.cli.predict import place_of
    from mvitv2.data.images import ImageError
    from mvitv2.data.video.reader import probe
    from mvitv2.report.film import new_film
    from mvitv2.tasks.detect_prediction import predict_frames

    frames = predict_frames(model, path, name=str(path), **how(options, model))
    with ExitStack() as stack:
        film = None
        if options.save is not None:
            target = place_of(str(path), options.save, (".mp4",))
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                film = stack.enter_context(new_film(target, probe(path).fps))
            except ImageError:
                film = None  # the frames say why
        for answer, picture in frames:
            if film is not None and picture is not None:
                film.add(answer.plot(picture), answer.seconds or 0.0)
            yield answer


def _lines(answers: Iterable["ObjectsFound"], target: IO[str]) -> Iterator["ObjectsFound"]:
    """A line for each picture; reasons go to standard error."""
    for answer in answers:
        if answer.error is not None:
            print(f"{one_line(answer.file)}: {one_line(answer.error)}", file=sys.stderr, flush=True)
        else:
            told = ", ".join(f"{one_line(one.name)} {100 * one.score:.0f} %" for one in answer.objects)
            when = "" if answer.seconds is None else f" {answer.seconds:8.2f} s"
            print(f"{one_line(answer.file)}{when}  {told or 'nothing found'}", file=target, flush=True)
        yield answer


def _json(answers: Iterable["ObjectsFound"], target: IO[str]) -> Iterator["ObjectsFound"]:
    """One list, opened before the first picture and closed after the last."""
    opening = "["
    for answer in answers:
        print(opening + "\n  " + json.dumps(answer.to_dict()), end="", file=target, flush=True)
        opening = ","
        yield answer
    print("[]" if opening == "[" else "\n]", file=target)


def _json_lines(answers: Iterable["ObjectsFound"], target: IO[str]) -> Iterator["ObjectsFound"]:
    """An object a line."""
    for answer in answers:
        print(json.dumps(answer.to_dict()), file=target, flush=True)
        yield answer


def _comma_separated(answers: Iterable["ObjectsFound"], target: IO[str]) -> Iterator["ObjectsFound"]:
    """A row for each object; one without an object for pictures that have none."""
    from mvitv2.tasks.object_records import COLUMNS, rows_of

    writer = csv.DictWriter(target, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for answer in answers:
        writer.writerows(rows_of(answer.to_dict()))
        target.flush()
        yield answer


def _coco(answers: Iterable["ObjectsFound"], target: IO[str]) -> Iterator["ObjectsFound"]:
    """COCO's result format as one list.

    Pictures are numbered by their names if those are numbers, else in order, as the frames of clips are.
    """
    results = []
    for number, answer in enumerate(answers, 1):
        stem = Path(answer.file).stem
        image_id = int(stem) if stem.isdecimal() and answer.frame is None else number
        for one in answer.objects:
            left, top, right, bottom = one.box
            record: dict[str, Any] = {"image_id": image_id, "file_name": answer.file, "category_id": one.category_id}
            record |= {} if answer.frame is None else {"frame": answer.frame, "seconds": answer.seconds}
            record |= {"bbox": [left, top, right - left, bottom - top], "score": one.score}
            results.append(record if one.mask is None else {**record, "segmentation": dict(one.mask)})
        yield answer
    print(json.dumps(results), file=target)


WRITERS: dict[str, Callable[[Iterable["ObjectsFound"], IO[str]], Iterator["ObjectsFound"]]] = {
    "table": _lines,
    "json": _json,
    "jsonl": _json_lines,
    "csv": _comma_separated,
    "coco": _coco,
}
"""By the name of the format."""
