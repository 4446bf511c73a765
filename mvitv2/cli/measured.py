"""What ``mvitv2 eval`` leaves in files: what is said about each picture or clip, a row among other models', a page."""

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvitv2.cli.eval import Options
    from mvitv2.core.model import MViT
    from mvitv2.tasks.evaluation import Evaluation, Example
    from mvitv2.tasks.processes import Processes
    from mvitv2.tasks.scoring import Scoring

COLUMNS = (
    "model", "top1", "top1_err", "top5", "top5_err", "param_count", "img_size", "crop_pct", "interpolation",
    "data", "split", "labels", "crops", "images",
)  # fmt: skip
"""timm's (``validate.py --results-file``), then ours."""


class Answers:
    """A file of what a model says about each picture or clip of a data set.

    Args:
        path: ``.csv``, ``.jsonl`` or a folder ``.parquet`` that is not there yet.
        dataset: Tells files and classes.
    """

    def __init__(self, path: Path, dataset: Any):
        from mvitv2.tasks.records import opened

        kinds = dict.fromkeys(("file", "label", "predicted", "score"), "text")
        self.records = opened(path, {**kinds, "score": "number"}, list(kinds), resume=False)
        self.dataset = dataset

    def __enter__(self) -> "Answers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.records.close()

    def __call__(self, example: "Example") -> None:
        """Write one."""
        names = self.dataset.class_names
        path = getattr(self.dataset, "path", None)
        file = str(path(example.index)) if path else str(example.index)
        said = {"label": names[example.label], "predicted": names[example.predicted], "score": example.score}
        self.records.write({"file": file, **said})


@contextmanager
def answers_kept(
    path: Path | None, dataset: Any, processes: "Processes"
) -> "Iterator[Callable[[Example], None] | None]":
    """What is to be told of every picture, for a file of answers; ``None`` where none is wanted.

    Several processes bring theirs to the first one at the end, which writes them in the order of the data.
    """
    if path is None:
        yield None
        return
    file, mine = processes.kept(lambda: Answers(path, dataset)), list["Example"]()
    with file or nullcontext():
        yield file if processes.count == 1 else mine.append
        for example in sorted((one for part in processes.gathered(mine) for one in part), key=lambda one: one.index):
            if file is not None:
                file(example)


def write_row(path: Path, options: "Options", model: "MViT", found: "Evaluation") -> None:
    """Add a row to a table of results; the header is written with the first. Of clips, crops are views.

    Raises:
        ValueError: The file is a table of other columns.
    """
    from mvitv2.tasks.clips import Views, clip_preprocessing_of
    from mvitv2.tasks.prediction import preprocessing_of

    clips = model.config.rank == len("thw")
    record = (clip_preprocessing_of if clips else preprocessing_of)(model)
    looks = Views.of(options.views).count if clips else options.crops * len(options.scales)
    size, resize = record.size or (0, 0), record.resize
    side = resize if isinstance(resize, int) else (resize or size)[0]
    there = next(csv.reader(path.read_text(encoding="utf-8").splitlines()), None) if path.exists() else None
    if there not in (None, list(COLUMNS)):
        raise ValueError(f"{path} has the columns {', '.join(there or ())}; expected {', '.join(COLUMNS)}")
    top1, top5 = (round(100 * rate, 3) for rate in (found.top1, found.top5))
    values = (
        options.model, top1, round(100 - top1, 3), top5, round(100 - top5, 3),
        round(sum(p.numel() for p in model.parameters()) / 1e6, 2), "x".join(map(str, dict.fromkeys(size))),
        round(size[0] / side, 3) if side else 1.0, record.interpolation,
        options.data, options.split, options.labels or "", looks, found.images,
    )  # fmt: skip
    with path.open("a", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        if there is None:
            rows.writerow(COLUMNS)
        rows.writerow(values)


def write_picture_page(
    options: "Options", model: "MViT", dataset: Any, scoring: "Scoring", found: "Evaluation"
) -> None:
    """The HTML page of a model of pictures, and where it is."""
    from mvitv2.data.transforms import EvalTransform
    from mvitv2.tasks.prediction import preprocessing_of

    dataset.transform = EvalTransform(preprocessing_of(model))  # one look is enough for the eye
    write_page(options, model, dataset, found, columns=scoring.columns)


def write_page(
    options: "Options", model: "MViT", dataset: Any, found: "Evaluation", *, columns: Sequence[int] | None = None
) -> None:
    """The HTML page, and where it is.

    Args:
        options: Names of model and data, and the file.
        model: What was measured.
        dataset: One view of each picture or clip.
        found: The figures.
        columns: The model's class of each of the data's, where the data has some of them only.
    """
    from mvitv2.report import Report, samples, write_report
    from mvitv2.train.checkpoint import versions

    unit = "clips" if model.config.rank == len("thw") else "images"
    facts = {
        "Clips" if unit == "clips" else "Pictures": f"{found.images:,}",
        "Classes": f"{len(found.per_class):,}",
        "Parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "Data": f"{options.data} ({options.split})",
    }
    if unit == "clips":
        facts["Views"] = options.views
    shown = samples(model, dataset, found, columns=columns)
    title = f"{options.model} on {Path(options.data).name}"
    report = Report(
        title=title, evaluation=found, images=unit, unit=unit, facts=facts, samples=shown, versions=versions()
    )
    print(f"report: {write_report(str(options.report), report)}", file=sys.stderr)
