"""What commands do with models of clips: views, timelines, films, vectors of clips and of their seconds."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvitv2.cli.failures import UsageError, one_line
from mvitv2.cli.output import columns, counter

if TYPE_CHECKING:
    from torch import device

    from mvitv2.cli.eval import Options as EvalOptions
    from mvitv2.cli.features import Options as FeatureOptions
    from mvitv2.cli.predict import Options as PredictOptions
    from mvitv2.core.model import MViT
    from mvitv2.preprocessing import Preprocessing
    from mvitv2.tasks.clips import ViewEvaluation
    from mvitv2.tasks.features import Features
    from mvitv2.tasks.processes import Processes
    from mvitv2.tasks.timeline import Ranked, Timeline

ENDINGS = ("json", "csv", "mp4", "png")
"""What a timeline is written as: figures, a table, the clip with answers on it, a chart."""


def eval_clips(options: "EvalOptions", model: "MViT", device: "device", processes: "Processes") -> int:
    """Measure a model of clips: classes by views of each clip, or actions of people in boxes."""
    from mvitv2.cli.actions import eval_actions
    from mvitv2.cli.eval import as_json, table, tell_unreadable, write
    from mvitv2.cli.measured import write_page, write_row
    from mvitv2.tasks.clips import clip_dataset_for

    given = {name: getattr(options, name) for name in ("labels", "flip")}
    given |= {"crops": options.crops != 1, "scales": options.scales != (1.0,)}
    refuse(given, "of pictures; clips have --views and --scores")
    if model.card.get("task") == "actions":
        useless = {name: getattr(options, name) for name in ("report", "predictions", "results_file")}
        refuse(useless, "of classes of pictures and clips; actions have --scores and --json")
        return eval_actions(options, model, device, processes)
    found = evaluated(options, model, device, processes)
    if not processes.leads:
        return 0
    if options.json == "-":
        print(as_json(options, found))
    else:
        print(f"{table(found.mean, 'clips')}\n\n{views_table(found)}")
        if options.json is not None:
            write(Path(options.json), as_json(options, found))
    if options.results_file is not None:
        write_row(options.results_file, options, model, found.mean)
    if options.report is not None:
        write_page(options, model, clip_dataset_for(model, options.data, options.split), found.mean)
    tell_unreadable(found.mean.unreadable)
    return 0


def evaluated(options: "EvalOptions", model: "MViT", device: "device", processes: "Processes") -> "ViewEvaluation":
    """A model on views of clips; scores of all views are kept, and an evaluation that was stopped goes on."""
    from mvitv2.cli.measured import answers_kept
    from mvitv2.cli.pictures import resized
    from mvitv2.tasks.clips import Views, clip_dataset_for, clip_preprocessing_of, evaluate_views

    views = Views.of(options.views)
    folder = options.scores or scores_folder(options.model, options.data, options.split, str(views))
    model.card["preprocessing"] = resized(clip_preprocessing_of(model), options.img_size, options.crop_pct).to_dict()
    if not model.card.get("classes"):
        model.card.pop("classes", None)
    dataset = processes.first(lambda: clip_dataset_for(model, options.data, options.split, views))
    with ExitStack() as stack:
        return evaluate_views(
            model,
            dataset,
            views,
            folder=folder,
            batch_size=options.batch_size,
            workers=options.workers,
            device=device,
            precision=options.precision,
            on_batch=stack.enter_context(counter("measuring")) if processes.leads else None,
            on_answer=stack.enter_context(answers_kept(options.predictions, dataset, processes)),
            processes=processes,
        )


def scores_folder(model: str, data: str, split: str, views: str) -> Path:
    """Where the scores of views are kept: in the folder of the run, or beside other runs."""
    name = f"views-{Path(data).resolve().name}-{split}-{views}"
    path = Path(model)
    return path / name if path.is_dir() else Path("runs") / f"{path.stem}-{name}"


def views_table(found: "ViewEvaluation") -> str:
    """What the views are worth, one by one."""
    each = ", ".join(f"{100 * rate:.2f}" for rate in found.each)
    rows = [("views", f"{found.views}, softmax scores averaged"), ("each view alone", f"{each} % top-1")]
    return columns([*rows, ("their scores", str(found.scores))] if found.scores else rows)


def predict_clips(options: "PredictOptions", model: "MViT") -> int:
    """Print what is seen in each clip as soon as it is read to its end; 1 if there were clips without an answer."""
    from mvitv2.cli.pictures import names
    from mvitv2.tasks.devices import device_named
    from mvitv2.tasks.timeline import predict_clips as timelines

    given = {name: getattr(options, name) for name in ("output", "resume", "save")}
    refuse(given, "of pictures; clips have --format, --seconds and --timeline")
    if model.card.get("task") == "actions":
        from mvitv2.cli.actions import predict_actions

        return predict_actions(options, model)
    refuse({"boxes": options.boxes}, "of models that tell actions, and this one tells clips apart")
    record = clip_record(options, model)
    answers = timelines(
        model,
        clip_sources(names(options.files)),
        top=options.top_k,
        step=options.step,
        batch_size=max(min(options.batch_size, 8), 1),
        device=device_named(options.device),
        precision=options.precision,
        preprocessing=record,
    )
    total = failed = 0
    for answer in WRITERS[options.format](answers, options.seconds):
        total += 1
        failed += answer.error is not None
        if options.timeline is not None and answer.seconds:
            write_timeline(answer, options.timeline, total)
    if failed:
        print(f"{failed} of {total} could not be predicted", file=sys.stderr)
    return 1 if failed else 0


def clip_record(options: "PredictOptions | FeatureOptions", model: "MViT") -> "Preprocessing":
    """How a model wants its clips, at another size or with other frames where that is asked for."""
    from dataclasses import replace

    from mvitv2.cli.pictures import resized
    from mvitv2.tasks.clips import clip_preprocessing_of

    record = resized(clip_preprocessing_of(model), options.img_size, options.crop_pct)
    return record if options.num_frames is None else replace(record, num_frames=options.num_frames)


def clip_rows(options: "FeatureOptions", model: "MViT", skip: Callable[[str], bool]) -> "Iterator[Features]":
    """Features of clips, in the order of the files.

    Raises:
        UsageError: Maps are asked for.
    """
    from mvitv2.cli.pictures import names
    from mvitv2.tasks.clip_features import clip_features
    from mvitv2.tasks.devices import device_named

    if options.layer != "pooled" or options.average:
        raise UsageError(f"--layer {options.layer}: of clips there is one vector, pooled, for the clip or each second")
    return clip_features(
        model,
        clip_sources(names(options.files)),
        seconds=options.seconds,
        normalise=options.normalise,
        step=options.step,
        batch_size=max(min(options.batch_size, 8), 1),
        device=device_named(options.device),
        precision=options.precision,
        preprocessing=clip_record(options, model),
        skip=skip,
    )


def clip_sources(names: Iterator[str]) -> Iterator[Path]:
    """Files as they are named; of a folder that holds clips, all of them; a folder of pictures is a clip itself."""
    from mvitv2.data.sources import VIDEO_SUFFIXES

    for name in names:
        path = Path(name)
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES) if path.is_dir() else []
        yield from inside or [path]


def write_timeline(timeline: "Timeline", folder: Path, number: int) -> None:
    """A clip's timeline in all its forms.

    Args:
        timeline: Of one clip.
        folder: Made where it is not there.
        number: Of the clip, for clips of one name.
    """
    from mvitv2.data.images import ImageError
    from mvitv2.report.film import film_of, write_chart, write_film

    folder.mkdir(parents=True, exist_ok=True)
    stem = Path(timeline.file).stem
    name = f"{stem}-{number}" if (folder / f"{stem}.json").exists() else stem
    as_file = {ending: folder / f"{name}.{ending}" for ending in ENDINGS}
    as_file["json"].write_text(json.dumps(timeline.to_dict(), indent=2) + "\n", encoding="utf-8")
    with as_file["csv"].open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["start", "end", "rank", "class", "score"])
        writer.writerows(rows_of(timeline.seconds))
    write_chart(timeline, as_file["png"])
    try:
        write_film(Path(timeline.file), as_file["mp4"], film_of(timeline))
    except ImageError as error:
        print(f"{one_line(timeline.file)}: no film: {one_line(error.reason)}", file=sys.stderr)


def rows_of(seconds: Sequence["Ranked"]) -> Iterator[tuple[Any, ...]]:
    """A row for each second and class."""
    for second in seconds:
        for rank, (name, score) in enumerate(zip(second.classes, second.scores, strict=True), 1):
            yield f"{second.start:g}", f"{second.end:.2f}", rank, name, f"{score:.4f}"


def spoken(file: str, ranked: "Ranked") -> str:
    """A line for people."""
    scored = "  ".join(f"{100 * s:5.1f} % {one_line(n)}" for s, n in zip(ranked.scores, ranked.classes, strict=True))
    return f"{one_line(file)}  {scored}"


def table(answers: Iterator["Timeline"], seconds: bool) -> Iterator["Timeline"]:
    """A line for each clip, and one for each of its seconds where they are asked for."""
    for answer in answers:
        if answer.error is not None:
            print(f"{one_line(answer.file)}: {one_line(answer.error)}", file=sys.stderr, flush=True)
        if answer.whole is not None:
            print(spoken(answer.file, answer.whole), flush=True)
        for second in answer.seconds if seconds else ():
            print(spoken(f"  {second.start:6.0f} s", second), flush=True)
        yield answer


def json_lines(answers: Iterator["Timeline"], seconds: bool) -> Iterator["Timeline"]:
    """An object a line; seconds are in it in any case."""
    for answer in answers:
        print(json.dumps(answer.to_dict()), flush=True)
        yield answer


def json_list(answers: Iterator["Timeline"], seconds: bool) -> Iterator["Timeline"]:
    """One list."""
    opening = "["
    for answer in answers:
        print(opening + "\n  " + json.dumps(answer.to_dict()), end="", flush=True)
        opening = ","
        yield answer
    print("[]" if opening == "[" else "\n]")


def comma_separated(answers: Iterator["Timeline"], seconds: bool) -> Iterator["Timeline"]:
    """A row for each class of each clip, and of each second where they are asked for."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["file", "error", "start", "end", "rank", "class", "score"])
    for answer in answers:
        stretches = [*([answer.whole] if answer.whole else []), *(answer.seconds if seconds else [])]
        if not stretches:
            writer.writerow([answer.file, answer.error or ""])
        writer.writerows([answer.file, answer.error or "", *row] for row in rows_of(stretches))
        sys.stdout.flush()
        yield answer


Writer = Callable[[Iterator["Timeline"], bool], Iterator["Timeline"]]
WRITERS: dict[str, Writer] = {"table": table, "json": json_list, "jsonl": json_lines, "csv": comma_separated}


def refuse_clip_options(given: dict[str, Any]) -> None:
    """Refuse options of clips for a model of pictures.

    Raises:
        UsageError: One is given.
    """
    refuse(given, "of clips, and this model takes pictures")


def refuse(given: dict[str, Any], why: str) -> None:
    """Refuse options that would be ignored.

    Raises:
        UsageError: One is given.
    """
    if named := [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, False)]:
        raise UsageError(f"{' and '.join(named)}: {why}")
