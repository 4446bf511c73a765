"""How much memory there is, and a sentence for when it was not enough."""

import os
import sys
from pathlib import Path

import torch

GIB = 2**30


def available(device: torch.device) -> int | None:
    """Bytes that are free on a device, the limit of a container counted; ``None`` where nobody can tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    if device.type != "cpu":
        return None
    found = [free for free in (_machine(), _container()) if free is not None]
    return min(found) if found else None


def _machine() -> int | None:
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    known = "SC_AVPHYS_PAGES" in os.sysconf_names and "SC_PAGE_SIZE" in os.sysconf_names
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else None


def _container() -> int | None:
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if not (limit.exists() and used.exists()) or not limit.read_text().strip().isdecimal():
        return None
    return max(int(limit.read_text()) - int(used.read_text()), 0)


def peak(device: torch.device) -> int:
    """Most bytes that this process has held so far: of a GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if sys.platform == "win32":
        return 0
    import resource

    kilo = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo


def told(device: torch.device) -> str:
    """What there is and what this run holds, for a message; empty where nobody can tell."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return ""
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        return f"{whole / GIB:.1f} GiB in all, {peak(device) / GIB:.1f} GiB of it held by this run"
    free = available(device)
    return (
        "" if free is None else f"{free / GIB:.1f} GiB are free now, {peak(device) / GIB:.1f} GiB were held by this run"
    )
