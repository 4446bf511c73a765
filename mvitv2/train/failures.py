"""What stops a run, told so that one knows what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mvitv2.train import memory
from mvitv2.train.recipe import Recipe


class TrainingError(RuntimeError):
    """A run cannot go on; the message says why, what is safe and what to do."""


class TrainingStopped(TrainingError):
    """Somebody asked the run to stop, and it saved first.

    Attributes:
        signal_number: Of the signal; a shell reports 128 and this.
    """

    def __init__(self, message: str, signal_number: int = 0) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class CheckpointError(TrainingError):
    """A checkpoint cannot be written or read."""


class FolderBusy(TrainingError):
    """Another run works in the same folder."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or Python means that memory ran out, of a GPU or of the machine."""
    text = str(error)
    marks = ("out of memory", "DefaultCPUAllocator", "can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(mark in text for mark in marks)
    )


@contextmanager
def memory_explained(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Turn running out of memory into a sentence that says what to change.

    Raises:
        TrainingError: It did run out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(advice(recipe, device)) from error


def advice(recipe: Recipe, device: torch.device) -> str:
    """What to change where memory ran out, the change that leaves the numbers as they are first."""
    where = f"memory of {device} ran out" if device.type != "cpu" else "memory ran out"
    if room := memory.told(device):
        where += f" ({room})"
    half = max(recipe.batch_size // 2, 1)
    ways = []
    if recipe.batch_size > 1:
        ways.append(
            f"batch_size={half} accumulation={recipe.accumulation * 2} (the same global batch; --batch-size auto finds "
            "what fits)"
        )
    if not recipe.grad_checkpointing:
        ways.append("grad_checkpointing=true (slower)")
    if recipe.precision in ("fp32", "tf32"):
        ways.append("precision=bf16")
    smaller = max(recipe.img_size * 3 // 4 // 32 * 32, 32)
    less = f"img_size={smaller} ({(smaller / recipe.img_size) ** 2:.0%} of the pixels)"
    ways.append(f"{less} or a smaller model" if smaller < recipe.img_size else "a smaller model")
    return (
        f"{where} at batch_size={recipe.batch_size}, img_size={recipe.img_size}, {recipe.precision}; "
        f"try {', or '.join(ways)}. The last checkpoint is safe"
    )
