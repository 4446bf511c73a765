"""What this installation consists of: versions, devices, threads, optional libraries, and what is wrong with them."""

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mvitv2 import kernels
from mvitv2._version import __version__
from mvitv2.extras import MissingExtra, required
from mvitv2.weights.download import cache_folder, is_offline

DEVELOPMENT = {"dev", "docs"}
"""Extras that only people who work on this package need."""
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[[\w,-]+\])?>=(?P<least>[\d.]+)(; extra == '(?P<extra>[\w-]+)')?")


@dataclass(frozen=True)
class Library:
    """One library that this package uses."""

    name: str
    installed: str | None
    """Its version; ``None`` where it is missing."""
    least: str
    extras: tuple[str, ...]
    """What brings it; empty for libraries that are always there."""

    @property
    def state(self) -> str:
        """In words: fine, too old, or missing and how to get it."""
        if self.installed is None:
            return f"missing: pip install 'mvitv2[{self.extras[0]}]'" if self.extras else "missing: pip install mvitv2"
        return "ok" if _numbers(self.installed) >= _numbers(self.least) else f"too old, {self.least} is needed"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def libraries() -> list[Library]:
    """The libraries that this package declares, those of every installation first; none where it was not installed."""
    try:
        lines = importlib.metadata.requires("mvitv2") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    least: dict[str, str] = {}
    extras: dict[str, list[str]] = {}
    for match in filter(None, map(REQUIREMENT.fullmatch, lines)):
        if match["extra"] not in DEVELOPMENT:
            least[match["name"]] = match["least"]
            extras.setdefault(match["name"], []).extend([match["extra"]] if match["extra"] else [])
    found = [Library(name, installed_version(name), least[name], tuple(extras[name])) for name in least]
    return sorted(found, key=lambda library: (bool(library.extras), library.name))


def installed_version(distribution: str) -> str | None:
    """The version of a distribution, ``None`` where it is missing."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Of everything below this package."""
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    return {
        "mvitv2": f"{__version__} in {Path(__file__).parents[1]}",
        "python": f"{platform.python_version()} at {sys.executable}",
        "system": platform.platform(),
        "torch": f"{torch.__version__} ({cuda})",
    }


def threads() -> dict[str, Any]:
    """Processors, and how many threads torch takes."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    settings = {name: os.environ.get(name, "not set") for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    return {"cores": os.cpu_count(), "usable_cores": usable, "torch_threads": torch.get_num_threads(), **settings}


def cache() -> dict[str, Any]:
    """Where downloaded weights are, and how much room there is."""
    folder = cache_folder()
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    room = f"{shutil.disk_usage(existing).free / 2**30:.1f} GiB free"
    return {"cache": f"{folder} ({room})", "network": "MVITV2_OFFLINE forbids it" if is_offline() else "allowed"}


def devices() -> list[dict[str, str]]:
    """Every device that can compute, with the attention backend that ``"auto"`` takes there."""
    names = {"cpu": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        names[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        names["mps"] = "Apple GPU"
    return [{"device": device, "what": what, **backends(device)} for device, what in names.items()]


def backends(device: str) -> dict[str, str]:
    """The attention backend for each use of a device."""
    kind = device.partition(":")[0]
    uses = {"inference": False, "training": True}
    return {use: kernels.choice(device=kind, trains=trains).backend for use, trains in uses.items()}


def operators() -> dict[str, str]:
    """Whether there are C++ operators for this processor; they are built to find out."""
    built = f"built for this machine, products by {kernels.cpp.instructions()}"
    there = kernels.triton.available()
    triton = f"run on {there.reason}" if there else f"not here: {there.reason}"
    return {"cpp_operators": kernels.cpp.missing() or built, "triton_kernels": triton}


def rule() -> str:
    """Why those: how ``"auto"`` chooses, in the words of its own documentation."""
    text = (kernels.__doc__ or "").partition("\n\n")[2]
    return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", " ".join(text.split())).replace("``", "")


def problems() -> Iterator[str]:
    """What keeps something from working, each with what to do."""
    for library in libraries():
        if library.installed and library.state != "ok":
            yield f"{library.name} {library.installed}: {library.state}"
    if installed_version("torchvision"):
        try:
            required("torchvision", extra="train")
        except MissingExtra as error:
            yield f"{error} (torch and torchvision must be of one kind: both for CPU or both for the same CUDA)"
    if torch.version.cuda and torch.cuda.device_count() == 0 and Path("/dev/nvidia0").exists():
        yield "there is an NVIDIA GPU, but torch cannot use it: its driver may be older than CUDA " + torch.version.cuda
