"""The last page of a run: its best weights measured once more, with pictures, curves, recipe and environment."""

from collections.abc import Callable
from pathlib import Path

from mvitv2.core.model import MViT
from mvitv2.report import report_on, write_report
from mvitv2.report.live import NAME
from mvitv2.report.objects import report_on_detector, write_objects_report
from mvitv2.tasks.classify import evaluate
from mvitv2.tasks.clips import clip_dataset_for, clip_preprocessing_of
from mvitv2.tasks.datasets import dataset_for
from mvitv2.tasks.detect.detector import Detector
from mvitv2.tasks.detect_evaluation import evaluate_detector
from mvitv2.tasks.detect_prediction import detector_preprocessing
from mvitv2.train.detection import images_of
from mvitv2.train.folder import read_run
from mvitv2.train.loop import Outcome
from mvitv2.train.recipe import Recipe
from mvitv2.train.settings import Settings
from mvitv2.weights.load import load_model

Told = Callable[[int, int], None]


def classified(data: str | Path, outcome: Outcome, recipe: Recipe, settings: Settings, told: Told) -> Path:
    """The page of a classifier, on its validation images, or one view of each of its validation clips.

    Raises:
        TypeError: The weights hold something else.
    """
    model = load_model(outcome.weights)
    if not isinstance(model, MViT):
        raise TypeError(f"{outcome.weights} holds a {type(model).__name__}, expected the classifier that was trained")
    clips = model.config.rank == len("thw")
    dataset = (clip_dataset_for if clips else dataset_for)(model, data, "val")
    unit, views = ("clips", f" --views {usual_views(model)}") if clips else ("images", "")
    found = evaluate(
        model,
        dataset,
        batch_size=recipe.batch_size,
        workers=settings.workers,
        device=settings.device,
        precision=recipe.precision,
        on_batch=told,
    )
    page = report_on(
        model,
        dataset,
        found,
        title=f"{recipe.model} on {Path(data).name}",
        run=read_run(outcome.folder),
        images=f"validation {unit}{', which chose the epoch' if recipe.select == 'best' else ''}",
        next_steps=(
            (f"Predict your own {unit} with this model", f"mvitv2 predict {outcome.folder} my-{unit}/"),
            (f"Measure it on {unit} it has not seen", f"mvitv2 eval {outcome.folder} {data} --split test{views}"),
            ("Compare it with other runs", f"mvitv2 runs {outcome.folder.parent}"),
        ),
        unreadable=outcome.unreadable,
    )
    return write_report(outcome.folder / NAME, page)


def usual_views(model: MViT) -> str:
    """How models like it are measured: several clips of a file, or several crops where a clip spans all of it."""
    return "5x1" if clip_preprocessing_of(model).sampling_rate is not None else "1x3"


def detected(data: str | Path, outcome: Outcome, recipe: Recipe, settings: Settings, told: Told) -> Path:
    """The page of a detector, on its validation images.

    Raises:
        TypeError: The weights hold something else.
    """
    model = load_model(outcome.weights)
    if not isinstance(model, Detector):
        raise TypeError(f"{outcome.weights} holds a {type(model).__name__}, expected the detector that was trained")
    dataset = images_of(data, recipe, detector_preprocessing(model))[1]
    found = evaluate_detector(
        model,
        dataset,
        batch_size=recipe.batch_size,
        workers=settings.workers,
        device=settings.device,
        precision=recipe.precision,
        on_batch=told,
    )
    page = report_on_detector(
        model,
        dataset,
        found,
        title=f"{recipe.model} on {Path(data).name}",
        run=read_run(outcome.folder),
        images="validation images" + (", which chose the epoch" if recipe.select == "best" else ""),
        next_steps=(
            ("Find objects in your own pictures and films", f"mvitv2 predict {outcome.folder} my-images/ --save seen"),
            ("Measure it on images it has not seen", f"mvitv2 eval {outcome.folder} {data} --split test"),
            ("Compare it with other runs", f"mvitv2 runs {outcome.folder.parent}"),
        ),
        unreadable=outcome.unreadable,
    )
    return write_objects_report(outcome.folder / NAME, page)


MAKERS: dict[str, Callable[[str | Path, Outcome, Recipe, Settings, Told], Path]] = {
    "classify": classified,
    "video": classified,
    "detect": detected,
    "segment": detected,
}
"""Who makes the last page of a task; a task without keeps the page of its curves."""
