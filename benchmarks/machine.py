"""What a measurement was made on: without it a number says nothing."""

import os
import platform
from importlib import metadata
from pathlib import Path

import torch

from mvitv2.kernels import cpp

LIBRARIES = ("torch", "torchvision", "timm", "openvino", "onnxruntime", "mvitv2")


def describe() -> dict[str, object]:
    """Processor, devices, threads and versions."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "products": cpp.instructions(),
        "threads": torch.get_num_threads(),
        "devices": devices,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def processor() -> str:
    """The processor's own name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
