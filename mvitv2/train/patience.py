"""When a run ends early: a function of its history, so that a run that is resumed ends where it would have ended."""

from collections.abc import Mapping, Sequence
from typing import Any


def epochs_waited(history: Sequence[Mapping[str, Any]], metric: str) -> int:
    """Epochs since the best one, the first of equals; 0 where there is none yet."""
    figures = [row[metric] for row in history]
    return len(figures) - 1 - figures.index(max(figures)) if figures else 0


def exhausted(history: Sequence[Mapping[str, Any]], metric: str, patience: int | None) -> bool:
    """Whether the figure has not been better for ``patience`` epochs; more is better."""
    return patience is not None and epochs_waited(history, metric) >= patience
