"""How a run went, as curves over its epochs: the same for the page of a run that is under way and for the last one."""

from collections.abc import Mapping, Sequence
from typing import Any

from mvitv2.report.charts import Curve, line_chart, percent

Rows = Sequence[Mapping[str, Any]]


def training(history: Rows, steps: Rows, *, per_epoch: float | None = None, unit: str = "images") -> str:
    """Loss, accuracy or precision, learning rate and speed over the run; nothing where nothing is known.

    Args:
        history: Rows per epoch, of :class:`mvitv2.train.loop.Outcome`.
        steps: Lines of ``metrics.jsonl``.
        per_epoch: Steps of an epoch; ``None``: as the history says.
        unit: What is counted, ``"images"`` or ``"clips"``.
    """
    known = per_epoch or (history[0]["step"] / history[0]["epoch"] if history else 1.0)
    cards = (
        ("Loss", _loss(history, steps, known)),
        (f"Accuracy on validation {unit}", _accuracy(history)),
        (f"Average precision on validation {unit}", _precision(history)),
        ("Learning rate", _rate(history, steps, known)),
        (f"{unit.capitalize()} per second", _speed(steps, known, unit)),
    )
    drawn = "".join(f'<div class="card"><h3>{name}</h3>{chart}</div>' for name, chart in cards if chart)
    return f'<section><h2>Training</h2><div class="cards two">{drawn}</div></section>' if drawn else ""


def over_epochs(steps: Rows, name: str, per_epoch: float) -> list[tuple[float, float]]:
    """A figure of the steps by epochs."""
    return [(step["step"] / per_epoch, step[name]) for step in steps if name in step]


def by_epoch(history: Rows, name: str) -> list[tuple[float, float]]:
    """A figure of the epochs that have it."""
    return [(row["epoch"], row[name]) for row in history if name in row]


def _loss(history: Rows, steps: Rows, per_epoch: float) -> str:
    return line_chart(
        "Loss by epoch",
        [
            Curve("each step", over_epochs(steps, "loss", per_epoch), "faint"),
            Curve("training", by_epoch(history, "train_loss"), "a", marks=True),
            Curve("validation", by_epoch(history, "val_loss"), "b", marks=True),
        ],
        x_name="epoch",
    )


def _accuracy(history: Rows) -> str:
    return line_chart(
        "Accuracy by epoch",
        [
            Curve("top-1", by_epoch(history, "top1"), "b", marks=True),
            Curve("top-1 without averaging", by_epoch(history, "raw_top1"), "faint"),
        ],
        x_name="epoch",
        spoken=percent,
        top=1.0,
    )


def _precision(history: Rows) -> str:
    return line_chart(
        "Average precision by epoch",
        [
            Curve("boxes", by_epoch(history, "box_ap"), "b", marks=True),
            Curve("masks", by_epoch(history, "mask_ap"), "a", marks=True),
            Curve("boxes without averaging", by_epoch(history, "raw_box_ap"), "faint"),
        ],
        x_name="epoch",
        spoken=lambda value: f"{100 * value:.1f}",
        low=0.0,
    )


def _rate(history: Rows, steps: Rows, per_epoch: float) -> str:
    rates = over_epochs(steps, "lr", per_epoch) or by_epoch(history, "lr")
    return line_chart("Learning rate by epoch", [Curve("rate", rates, "a")], x_name="epoch")


def _speed(steps: Rows, per_epoch: float, unit: str) -> str:
    speed = [Curve(f"{unit} per second", over_epochs(steps, "images_per_second", per_epoch), "a")]
    return line_chart(f"{unit.capitalize()} per second by epoch", speed, x_name="epoch", low=0.0)
