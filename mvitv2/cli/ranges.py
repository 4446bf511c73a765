"""Numbers on the command line: refused where they mean nothing, before anything is read or computed."""

from typing import Any

from mvitv2.cli.failures import UsageError

ABOVE_0 = ("step", "timeout_minutes")
LEAST = {
    "batch_size": 1, "frames": 1, "img_size": 1, "max_aspect": 1, "max_detections": 1, "max_imbalance": 1,
    "min_images": 0, "min_side": 0, "num_classes": 0, "num_frames": 1, "rounds": 1, "show": 0, "threads": 1,
    "tile": 32, "top_k": 1, "workers": 0,
}  # fmt: skip
"""The smallest value of an option; ``None`` and words are none of numbers."""
PARTS = ("max_unreadable", "min_score", "nms_iou", "similar")
"""Options from 0 to 1."""


def check_ranges(options: Any) -> None:
    """Refuse numbers that are out of range, all at once.

    Args:
        options: Of any command; names that mean numbers do so in all of them.

    Raises:
        UsageError: There are some.
    """
    wrong = []
    for name, given in vars(options).items():
        for value in given if isinstance(given, tuple) else (given,):
            if isinstance(value, int | float) and (wanted := expected(name, value)):
                wrong.append(f"--{name.replace('_', '-')} {value} must be {wanted}")
    if wrong:
        raise UsageError("; ".join(wrong))


def expected(name: str, value: float) -> str:
    """What an option must be; empty where the value is that."""
    if name in PARTS and not 0 <= value <= 1:
        return "from 0 to 1"
    if name in ABOVE_0 and not value > 0:
        return "above 0"
    if name in LEAST and not value >= LEAST[name]:
        return f"at least {LEAST[name]}"
    return ""
