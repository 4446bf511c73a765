"""The page of a model that was measured, with what is known of the run that trained it."""

from collections.abc import Mapping
from typing import Any

import torch

from mvitv2._version import __version__
from mvitv2.core.model import MViT
from mvitv2.report.page import Report
from mvitv2.report.pictures import samples
from mvitv2.tasks.evaluation import Evaluation
from mvitv2.tasks.spoken import seconds_spoken


def report_on(
    model: MViT,
    dataset: Any,
    evaluation: Evaluation,
    *,
    title: str,
    run: Mapping[str, Any] | None = None,
    images: str = "images",
    next_steps: tuple[tuple[str, str], ...] = (),
    unreadable: Mapping[str, str] | None = None,
) -> Report:
    """What a page shows of a model on some data.

    Args:
        model: What was measured.
        dataset: What it was measured on; pictures and attention maps are taken from it.
        evaluation: The figures.
        title: Stands above them.
        run: What :func:`mvitv2.train.folder.read_run` gives of the run that trained the model: curves, recipe, time.
        images: What they are, to be read after their number.
        next_steps: Sentences and commands for the reader.
        unreadable: Reason by file, of training images that could not be read.
    """
    run = run or {}
    summary = run.get("summary") or {}
    facts = {
        "Images": f"{evaluation.images:,}",
        "Classes": f"{len(evaluation.per_class):,}",
        "Parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "Image size": _size(model),
    }
    if summary:
        facts["Training"] = seconds_spoken(summary["seconds"])
        facts["Epoch"] = f"{summary['best']['epoch']} of {summary['epochs']}"
    return Report(
        title=title,
        images=images,
        evaluation=evaluation,
        facts=facts,
        history=run.get("history", ()),
        steps=run.get("steps", ()),
        samples=samples(model, dataset, evaluation),
        recipe=run.get("recipe", {}),
        versions=summary.get("versions") or {"mvitv2": __version__, "torch": str(torch.__version__)},
        next_steps=next_steps,
        unreadable=unreadable or {},
    )


def _size(model: MViT) -> str:
    """What the model is given, in words."""
    size = (model.card.get("preprocessing") or {}).get("size") or model.config.input_size
    return " x ".join(str(side) for side in size)
