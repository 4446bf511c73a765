"""``mvitv2 check``: what is wrong with a data set, before weeks are spent on it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from tyro.conf import Positional, arg

from mvitv2.cli.failures import one_line
from mvitv2.cli.output import check_folder, columns, counter
from mvitv2.cli.words import Maybe

if TYPE_CHECKING:
    from mvitv2.data.findings import Limits, Report
    from mvitv2.data.preflight import Examined, Told

EXAMPLES = """\
  mvitv2 check photos                                # a folder with train/ and val/
  mvitv2 check photos --show 16 --output sheet.png   # pictures as training sees them
  mvitv2 check train.csv,val.csv --data-root /data/photos
  mvitv2 check "shards/train-{000..146}.tar,shards/val-{000..006}.tar" --json report.json
  mvitv2 check hf:food101 --html report.html
  mvitv2 check coco --show 16                        # boxes and masks: COCO, LVIS, lines of one's own
  mvitv2 check clips --show 8 --recipe ssv2_s        # video files; every frame of each is decoded
Exit code 0: clean; 1: training cannot start; 3: warnings alone.
"""
T = TypeVar("T")
SHOWN = 3
"""Examples under a finding."""
CLASSES = 30
"""Classes that are listed; of more, the largest and the smallest."""
BAR = 30
"""Characters of the longest bar."""
OfRecipe = Annotated[T | None, arg(help_behavior_hint="(default: the recipe's)")]
"""A field that the recipe decides where it is not given."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which data, what is too much, and where the report goes."""

    data: Positional[str]
    """A folder, lists, tar shards, hf:NAME, or `digits`; TRAIN,VAL where they lie apart."""
    task: Literal["auto", "classify", "detect", "video"] = "auto"
    """What the data is for; boxes and clips are recognised by their files."""
    need: tuple[str, ...] = ("train", "val")
    """Parts without which training cannot start."""
    json: Maybe[str] = None
    """Write the report to this file; - prints it instead of the text."""
    html: Maybe[Path] = None
    """Write the report as one page with pictures."""
    show: int = 0
    """Draw so many samples as training sees them, beside what they were made of."""
    output: Path = Path("sheet.png")
    """File of that sheet."""
    recipe: Annotated[str | None, arg(help_behavior_hint="(default: imagenet_t, k400_s for clips)")] = None
    """Whose augmentation the sheet shows, and whose frames clips must have: a name of `mvitv2 recipes`, or the
    recipe.json of a run."""
    img_size: Maybe[int] = None
    """Side of the pictures on the sheet, where it is not to be the recipe's."""
    seed: int = 0
    """Which samples the sheet shows."""
    workers: Annotated[int | None, arg(aliases=["-j"], help_behavior_hint="(default: one per core)")] = None
    """Threads that read pictures."""
    cache: bool = True
    """Remember what was seen, for as long as no file changes."""
    frames: OfRecipe[int] = None
    """Of clips: how many frames the model is given; shorter ones are told."""
    rate: OfRecipe[int | Literal["none"]] = None
    """Of clips: how far apart these are, at 30 a second; none: equal parts of the whole."""
    quick: bool = False
    """Of clips: decode four frames of each, and not all."""
    min_side: int = 32
    """Pictures with a shorter side are tiny, in pixels."""
    max_aspect: float = 4.0
    """Pictures of a longer shape are odd."""
    max_imbalance: float = 10.0
    """How many times the smallest class the largest may be."""
    min_images: int = 5
    """Pictures that a class needs."""
    max_unreadable: float = 0.5
    """Part of the pictures that may be unreadable before training stops."""
    similar: float = 0.99
    """Correlation of thumbnails from which on two pictures are one."""
    data_root: Maybe[Path] = None
    """Folder that the paths in lists start from."""
    allow_outside: bool = False
    """Take files of lists outside that folder."""
    classes_file: Maybe[Path] = None
    """Lists the classes in the order of their numbers."""
    file_column: Maybe[str] = None
    """Column of the files in lists, where it is not called so."""
    label_column: Maybe[str] = None
    """Column of the labels, where it is not called so."""
    image_column: Maybe[str] = None
    """Column of the pictures in a Hugging Face data set."""


READING = ("data_root", "allow_outside", "classes_file", "file_column", "label_column", "image_column")
"""Options that say how data is read."""


def run(options: Options) -> int:
    """Look at all pictures; print, write and draw what is asked for."""
    for path in (options.html, Path(options.json) if options.json not in (None, "-") else None):
        if path is not None:
            check_folder(path)
    if options.show:
        check_folder(options.output)
    with counter("looking at pictures") as told:
        examined, report = looked_at(options, lambda _split, done, total: told(done, total))
    if options.json == "-":
        print(as_json(report))
    else:
        print("\n".join(lines(report, examined.unit)))
    write(options, examined, report)
    return report.exit_code


def looked_at(options: Options, told: "Told") -> "tuple[Examined[Any], Report]":
    """All pictures, and what follows from them, by what the data is for.

    Raises:
        ValueError: Options that data of boxes has no use for.
    """
    from mvitv2.cli.sheets import clip_record
    from mvitv2.data.detection.open import is_detection
    from mvitv2.data.preflight import examine, report_on
    from mvitv2.data.video.preflight import examine_clips, holds_clips, report_on_clips
    from mvitv2.data.video.sampling import Sampling

    common = {"need": options.need, "threads": options.workers, "cached": options.cache, "on_progress": told}
    given = {name: getattr(options, name) for name in READING}
    boxed = options.task == "detect" or (options.task == "auto" and is_detection(options.data))
    if options.task == "video" or (options.task == "auto" and not boxed and holds_clips(options.data)):
        wanted = Sampling.of(clip_record(options))  # before hours are spent on decoding
        clips = examine_clips(options.data, every_frame=not options.quick, **common, **given)
        return clips, report_on_clips(clips, limits(options), wanted)
    if not boxed:
        examined = examine(options.data, **common, **given)
        return examined, report_on(examined, limits(options))
    from mvitv2.data.detection.preflight import examine_detection, report_on_boxes

    useless = [f"--{name.replace('_', '-')}" for name, value in given.items() if value and name != "data_root"]
    if useless:
        raise ValueError(f"{', '.join(useless)} are of no use for boxes; leave them out, or say --task classify")
    boxes = examine_detection(options.data, data_root=options.data_root, **common)
    return boxes, report_on_boxes(boxes, limits(options))


def limits(options: Options) -> "Limits":
    """From where on something is told."""
    from dataclasses import fields

    from mvitv2.data.findings import Limits

    known = {field.name for field in fields(Options)}
    return Limits(**{f.name: getattr(options, f.name) for f in fields(Limits) if f.name in known})


def as_json(report: "Report") -> str:
    """The report for programs."""
    return json.dumps(report.to_dict(), indent=2)


def write(options: Options, examined: "Examined[Any]", report: "Report") -> None:
    """The files that are asked for, each whole or not at all."""
    from mvitv2.weights.files import replacing

    if options.json not in (None, "-"):
        with replacing(Path(options.json)) as temporary:
            temporary.write_text(as_json(report) + "\n", encoding="utf-8")
    if options.html is not None:
        from mvitv2.data.preflight_page import page

        with replacing(options.html) as temporary:
            temporary.write_text(page(examined, report), encoding="utf-8")
    if options.show:
        from mvitv2.cli.sheets import drawn

        picture = drawn(options, examined)
        with replacing(options.output) as temporary:
            picture.save(temporary, format="PNG")
        if options.json != "-":
            print(f"{options.output}: {options.show} samples as training sees them")


def lines(report: "Report", unit: str = "pictures") -> Iterator[str]:
    """The report for people."""
    rows = [("SPLIT", unit.upper(), "UNREADABLE", "CLASSES", "SHORTER SIDE", "FORMATS")]
    for split, facts in report.splits.items():
        sides = f"{facts.sides[0]} .. {facts.sides[1]} .. {facts.sides[2]}"
        kinds = ", ".join(f"{count} {kind}" for kind, count in list(facts.kinds.items())[:4])
        rows.append((split, str(facts.images), str(facts.unreadable), str(len(facts.counts)), sides, kinds))
    yield columns(rows, right=(1, 2, 3))
    yield from box_lines(report)
    yield ""
    yield from class_lines(report)
    yield ""
    for finding in report.findings:
        yield f"{finding.severity}: {one_line(finding.text)}"
        told = [example for example in finding.examples if example not in finding.text]
        yield from (f"    {one_line(within(report.data, example))}" for example in told[:SHOWN])
        if len(told) > SHOWN:
            yield "    ... (all in the report: --json, --html)"
    mean, std = (" ".join(f"{value:g}" for value in report.normalisation[key]) for key in ("mean", "std"))
    source = "ImageNet's" if report.normalisation["source"] == "imagenet" else "their own"
    yield f"normalise by {source} mean {mean} and deviation {std}"
    counts = [(len(report.of(severity)), severity) for severity in ("problem", "warning", "note")]
    told = [f"{count} {severity}{'s' * (count > 1)}" for count, severity in counts if count]
    yield ", ".join(told) or "nothing wrong was found"


def box_lines(report: "Report") -> Iterator[str]:
    """Figures of objects, where the data has boxes."""
    from mvitv2.data.detection.preflight import BoxFacts

    rows: list[tuple[str, ...]] = [
        ("SPLIT", "OBJECTS", "CROWDS", "WITH MASK", "SMALL", "MEDIUM", "LARGE", "EMPTY PICTURES")
    ]
    for split, facts in report.splits.items():
        if isinstance(facts, BoxFacts):
            numbers = (facts.objects, facts.crowds, facts.masks, *facts.by_size, facts.without)
            rows.append((split, *map(str, numbers)))
    if len(rows) > 1:
        yield ""
        yield columns(rows, right=tuple(range(1, 8)))


def within(data: str, example: str) -> str:
    """An example with the paths in it as they are in the data."""
    folder = f"{data.rstrip('/')}/"
    return " = ".join(part.removeprefix(folder) for part in example.split(" = "))


def class_lines(report: "Report") -> Iterator[str]:
    """Pictures (or objects) of every class in every split, with bars for the first split."""
    names = list(dict.fromkeys(name for facts in report.splits.values() for name in facts.counts))
    first = next(iter(report.splits.values())).counts
    longest = max([*first.values(), 1])
    if len(names) > CLASSES:
        ranked = sorted(names, key=lambda name: -first.get(name, 0))
        names = [*ranked[: CLASSES // 2], "", *ranked[-(CLASSES // 2) :]]
    rows: list[tuple[str, ...]] = [("CLASS", *(split.upper() for split in report.splits), "")]
    for name in names:
        if not name:
            rows.append(("...",))
            continue
        counts = [str(facts.counts.get(name, "-")) for facts in report.splits.values()]
        rows.append((name, *counts, bar(first.get(name, 0) / longest)))
    yield columns(rows, right=tuple(range(1, len(report.splits) + 1)))


def bar(part: float) -> str:
    """A bar of text; whatever is more than nothing shows."""
    return "#" * max(round(BAR * part), 1 if part > 0 else 0)
