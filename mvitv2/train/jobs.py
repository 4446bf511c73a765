"""From words to a job for the engine, whatever the task: one row per task."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from mvitv2.tasks.processes import joined
from mvitv2.train.job import Job
from mvitv2.train.loop import Outcome, fit
from mvitv2.train.progress import Progress
from mvitv2.train.recipe import Recipe
from mvitv2.train.settings import Settings

MakeJob = Callable[[str | Path, Recipe, Settings], Job]

MAKERS = {
    "classify": ("mvitv2.train.classification", "classification_job"),
    "video": ("mvitv2.train.video", "video_job"),
    "maskfeat": ("mvitv2.train.maskfeat", "maskfeat_job"),
    "actions": ("mvitv2.train.actions", "actions_job"),
    "detect": ("mvitv2.train.detection", "detection_job"),
    "segment": ("mvitv2.train.detection", "detection_job"),
}
"""Module and function that make the job of a task; the module is imported when it is asked for."""


def train(data: str | Path, recipe: Recipe, settings: Settings, progress: Progress | None = None) -> Outcome:
    """Train a model for the recipe's task, or go on with a run of the same folder.

    Args:
        data: ``"digits"``, or a folder with ``train/`` and ``val/`` of class folders.
        recipe: What decides the numbers; see :mod:`mvitv2.train.recipes`.
        settings: Folder of the run, device, workers, resuming.
        progress: Who is told; :func:`mvitv2.train.progress.progress_on` talks to a terminal.

    Returns:
        Where the weights are and how it went; ``mvitv2.load_model(outcome.weights)`` is ready to predict.

    Raises:
        mvitv2.data.folder.DataError: The data cannot be used as it lies there.
        ValueError: The recipe makes no model, or the folder holds another run.
        TrainingError: See :func:`mvitv2.train.loop.fit`.
    """
    with joined(settings.device, minutes=settings.timeout_minutes) as processes:
        # one after the other: what the first one downloads or indexes is there for the others
        job = processes.first(lambda: job_for(data, recipe, settings))
        return fit(job, recipe, settings, progress)


def job_for(data: str | Path, recipe: Recipe, settings: Settings) -> Job:
    """Model, data, objective and measures of a recipe on some data.

    Raises:
        mvitv2.data.labelled.DataError: The data cannot be used as it lies there.
        ValueError: The recipe makes no model.
    """
    module, name = MAKERS[recipe.task]
    make: MakeJob = getattr(import_module(module), name)
    return make(data, recipe, settings)
