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
    images: str = "",
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
        images: What they are, to be read after their number; images or clips if not given.
        next_steps: Sentences and commands for the reader.
        unreadable: Reason by file, of training images that could not be read.
    """
    run = run or {}
    summary, unit = run.get("summary") or {}, "clips" if model.config.rank == len("thw") else "images"
    facts = {
        unit.capitalize(): f"{evaluation.images:,}",
        "Classes": f"{len(evaluation.per_class):,}",
        "Parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        **_size(model),
    }
    if summary:
        facts["Training"] = seconds_spoken(summary["seconds"])
        facts["Epoch"] = f"{summary['best']['epoch']} of {summary['epochs']}"
    return Report(
        title=title,
        images=images or unit,
        unit=unit,
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


def _size(model: MViT) -> dict[str, str]:
    """What the model is given, in words."""
    record = model.card.get("preprocessing") or {}
    size = " x ".join(str(side) for side in record.get("size") or model.config.input_size[-2:])
    if model.config.rank == len("hw"):
        return {"Image size": size}
    return {"Frames": f"{record.get('num_frames') or model.config.input_size[0]} of {size}"}
