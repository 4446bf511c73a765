"""Times that can be compared on a machine with neighbours: contenders take turns, and medians are kept."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """What one contender took."""

    median: float
    """Seconds per batch: of processor time on a CPU, where others cannot add to it; of the clock on a GPU."""
    spread: float
    """The slowest round less the fastest, as a share of the median."""
    peak_bytes: int | None
    """Most memory of the GPU in use at a time; ``None`` on a CPU."""


def interleaved(contenders: dict[str, Callable[[], None]], *, rounds: int, device: torch.device) -> dict[str, Timing]:
    """Let every contender compute once to warm up, then once in each round.

    Args:
        contenders: What to time, by name.
        rounds: How often; at least 1.
        device: Where they compute.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: at least 1 is needed")
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    peaks: dict[str, int | None] = {name: peak_of(run, device) for name, run in contenders.items()}
    for _ in range(rounds):
        for name, run in contenders.items():
            seconds[name].append(timed(run, device))
    return {name: timing(taken, peaks[name]) for name, taken in seconds.items()}


def timing(seconds: list[float], peak_bytes: int | None) -> Timing:
    """The summary of some rounds."""
    median = statistics.median(seconds)
    return Timing(median=median, spread=(max(seconds) - min(seconds)) / median, peak_bytes=peak_bytes)


def timed(run: Callable[[], None], device: torch.device) -> float:
    """Seconds of one call."""
    if device.type != "cuda":
        start = time.process_time()
        run()
        return time.process_time() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak_of(run: Callable[[], None], device: torch.device) -> int | None:
    """Most bytes of the GPU in use during one call, which also warms up."""
    if device.type != "cuda":
        run()
        return None
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_allocated(device)
