"""The whole way in two minutes: train from scratch on handwritten digits, measure, predict, explain, report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvitv2.core.model import MViT
from mvitv2.data.digits import Digits
from mvitv2.report import report_on, write_report
from mvitv2.tasks.classify import Evaluation, Prediction, evaluate, predict
from mvitv2.tasks.datasets import dataset_for
from mvitv2.train.folder import read_run, write_json
from mvitv2.train.jobs import train
from mvitv2.train.loop import Outcome
from mvitv2.train.progress import Progress
from mvitv2.train.recipe import overridden
from mvitv2.train.recipes import recipe
from mvitv2.train.settings import Settings
from mvitv2.weights.load import load_model

SINGLE = 5
"""Images that are predicted one by one, from files, as a user's would be."""


@dataclass(frozen=True)
class Demo:
    """What the demonstration made."""

    outcome: Outcome
    evaluation: Evaluation
    """On test images that neither training nor the choice of the best epoch has seen."""
    predictions: list[tuple[str, Prediction]]
    """True class and answer, of single files."""
    report: Path


def run_demo(
    output: str | Path,
    *,
    seed: int = 0,
    changes: dict[str, Any] | None = None,
    device: str = "auto",
    resume: str = "auto",
    progress: Progress | None = None,
) -> Demo:
    """Train a small MViTv2 on scikit-learn's digits, measure it, predict single files and write ``report.html``.

    Args:
        output: Folder for everything; a run that was interrupted there goes on.
        seed: Of the run.
        changes: Fields of the recipe ``digits`` to set otherwise.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        resume: As :class:`~mvitv2.train.settings.Settings` has it.
        progress: Who is told.

    Raises:
        ImportError: scikit-learn is missing; the message names the extra that brings it.
    """
    folder = Path(output)
    chosen = overridden(recipe("digits"), {"seed": seed, **(changes or {})})
    outcome = train("digits", chosen, Settings(output=folder, device=device, resume=resume), progress)
    model = load_model(outcome.weights)
    if not isinstance(model, MViT):
        raise TypeError(f"{outcome.weights} holds a {type(model).__name__}, expected the classifier that was trained")
    test = dataset_for(model, "digits", "test")
    evaluation = evaluate(model, test)
    predictions = predicted(model, folder / "digits")
    write_json(folder / "test.json", evaluation.to_dict())
    title, steps = "MViTv2 on handwritten digits", next_steps(outcome.weights)
    unseen = "images it had not seen"
    page = report_on(model, test, evaluation, title=title, run=read_run(folder), images=unseen, next_steps=steps)
    return Demo(outcome, evaluation, predictions, write_report(folder / "report.html", page))


def predicted(model: MViT, folder: Path) -> list[tuple[str, Prediction]]:
    """Some test digits as PNG files, each with its true class and the model's answer."""
    folder.mkdir(exist_ok=True)
    digits = Digits("test")
    files: list[Path] = []
    truths: list[str] = []
    for index in range(0, len(digits), len(digits) // SINGLE)[:SINGLE]:
        truths.append(digits.class_names[int(digits.labels[index])])
        files.append(folder / f"digit-{index}-is-{truths[-1]}.png")
        digits.read(index).save(files[-1])
    return list(zip(truths, predict(model, files, top=3), strict=True))


def next_steps(weights: Path) -> tuple[tuple[str, str], ...]:
    """What to do with one's own folder."""
    return (
        ("Predict your own images with this model", f"mvitv2 predict {weights.parent} my-images/"),
        (
            "Train on your own folder: train/CLASS/image.jpg and val/CLASS/image.jpg",
            "mvitv2 train my-folder --pretrained --model mvitv2_t --output runs/mine",
        ),
        ("Measure a model on a folder", "mvitv2 eval runs/mine my-folder"),
        ("See which models there are", "mvitv2 list"),
    )
