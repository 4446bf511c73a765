"""Times of several candidates, taken in turns, so that what disturbs one disturbs all."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Timing:
    """Seconds of one step."""

    median: float
    low: float
    high: float
    """Tenth and ninetieth percentile."""
    peak_bytes: int | None
    """Most memory taken on the device in a step; only devices that count are asked."""
    slowest: float = 0.0
    """Ninety-ninth percentile: the slowest, where there are fewer than a hundred rounds."""
    rounds: int = 0


def interleaved(
    steps: Mapping[str, Callable[[], object]], *, rounds: int, device: str = "cpu", clock: str = "wall"
) -> dict[str, Timing]:
    """Run every candidate once per round.

    Args:
        steps: Candidates.
        rounds: How often each is timed, after one round that is not.
        device: ``"cpu"`` or ``"cuda"``; work on a device is waited for.
        clock: ``"wall"``, or ``"cpu"`` for the process's own time where a machine is shared.
    """
    now = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    peaks: dict[str, int] = {}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            start = now()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
                peaks[name] = max(peaks.get(name, 0), torch.cuda.max_memory_allocated())
            if turn:
                seconds[name].append(now() - start)
    return {name: timing(times, peaks.get(name)) for name, times in seconds.items()}


def timing(seconds: list[float], peak: int | None = None) -> Timing:
    """Percentiles of measured seconds."""
    ordered = sorted(seconds)
    last = len(ordered) - 1
    low, high, slowest = (ordered[round(share * last)] for share in (0.1, 0.9, 0.99))
    return Timing(statistics.median(ordered), low, high, peak, slowest, len(ordered))
