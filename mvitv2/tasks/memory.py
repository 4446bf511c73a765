"""How much memory a process has, for people who watch a run."""

import os
import sys
from pathlib import Path

import torch

GIB = 2**30
_STATUS = Path("/proc/self/statm")


def process_gib() -> float:
    """Memory of this process in GiB: what it has now, or the most it had where the system does not tell."""
    try:
        return int(_STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / GIB
    except OSError:
        return most_gib()


def most_gib() -> float:
    """The most memory this process ever had, in GiB; 0 where the system does not tell."""
    try:
        import resource  # Windows has none
    except ImportError:
        return 0.0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / GIB if sys.platform == "darwin" else most * 1024 / GIB


def device_gib(device: torch.device) -> float | None:
    """The most memory that tensors on a CUDA device had, in GiB; ``None`` for other devices."""
    return torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None
