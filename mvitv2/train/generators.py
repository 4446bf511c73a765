"""Every random generator a run draws from: seeded together, saved, restored, and given back as they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from mvitv2.data.samples import seeded


def state() -> dict[str, Any]:
    """The generators of ``random``, NumPy, torch and every GPU as tensors and plain data."""
    version, numbers, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(place),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore(saved: dict[str, Any]) -> None:
    """Set all of :func:`state` again; states of GPUs that are not there are left out."""
    version, numbers, gauss = saved["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, place, has_gauss, cached = saved["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), place, has_gauss, cached))
    torch.set_rng_state(saved["torch"])
    for device, one in enumerate(saved["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(one, device)


def start(seed: int, device: torch.device) -> None:
    """Let all generators that a forward pass may draw from start from a 64-bit seed."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)


@contextmanager
def own_generators(seed: int) -> Iterator[None]:
    """Inside, all generators start from ``seed``; after, those of the CPU are as they were."""
    with seeded(seed):
        torch.cuda.manual_seed_all(seed)
        yield


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside, torch takes operations that give the same bits every time, also where those are slower.

    On a CPU that concerns sums into shared places from several threads; nothing is filled or checked beyond that.
    """
    if not wanted:
        yield
        return
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    extra: Any = torch.utils.deterministic
    fills = extra.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    extra.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
        extra.fill_uninitialized_memory = fills
