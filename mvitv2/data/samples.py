"""What data sets hand to a loader: samples, keys that carry a seed, and batches that account for what is missing.

Augmentation is repeatable however many workers there are and wherever a run is resumed, because the seed travels with
the index: a sampler yields ``SampleKey(index, sample_seed(seed, epoch, index))`` and the data set draws that sample's
random numbers from it alone. A plain index draws from the worker's own generators, as usual.
"""

import hashlib
import random
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor


class SampleKey(NamedTuple):
    """Which sample, and the seed of its augmentation."""

    index: int
    seed: int


@dataclass(frozen=True)
class Unreadable:
    """Stands in a batch for a sample whose file cannot be read, so that it is counted and named, never replaced."""

    index: int
    path: str
    reason: str


class Samples(Protocol):
    """What the engine asks of a batch, whatever the task."""

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """Samples that could not be read."""
        ...

    @property
    def num_samples(self) -> int:
        """Samples that could be read."""
        ...

    def to(self, device: torch.device, *, channels_last: bool = False) -> "Samples":
        """The batch on a device."""
        ...

    def saved(self) -> dict[str, Any]:
        """What a file needs so that the batch can be looked into later."""
        ...

    def finite(self) -> bool:
        """Whether all pixels are numbers."""
        ...


class Batch(NamedTuple):
    """``images (B, ...)``, ``labels (B,)`` int64, and the samples that could not be read; ``B`` may be 0."""

    images: Tensor
    labels: Tensor
    unreadable: tuple[Unreadable, ...]

    @property
    def num_samples(self) -> int:
        """``B``, without those that could not be read."""
        return len(self.labels)

    def to(self, device: torch.device, *, channels_last: bool = False) -> "Batch":
        """The batch on a device; images of one frame with channels last where asked for."""
        images = self.images.to(device, non_blocking=True)
        if channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, self.labels.to(device, non_blocking=True), self.unreadable)

    def saved(self) -> dict[str, Any]:
        """Plain tensors, for a file that is looked into later."""
        return {"images": self.images, "labels": self.labels}

    def finite(self) -> bool:
        """Whether all pixels are numbers."""
        return bool(self.images.isfinite().all())


def collate(items: Sequence[tuple[Tensor, int] | Unreadable]) -> Batch:
    """The samples that could be read as one batch, the others beside it; for ``DataLoader(collate_fn=...)``."""
    good = [item for item in items if not isinstance(item, Unreadable)]
    images = torch.stack([image for image, _ in good]) if good else torch.empty(0)
    labels = torch.tensor([label for _, label in good], dtype=torch.int64)
    return Batch(images, labels, tuple(item for item in items if isinstance(item, Unreadable)))


def split_key(key: int | SampleKey) -> tuple[int, int | None]:
    """``(index, seed)`` of a key; the seed is ``None`` for a plain index."""
    return (key.index, key.seed) if isinstance(key, SampleKey) else (key, None)


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """A 64-bit seed for one sample in one epoch; neighbours are unrelated, and it is the same on every machine."""
    digest = hashlib.blake2b(struct.pack("<qqq", seed, epoch, index), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Inside, the CPU generators of ``random``, NumPy and torch start from ``seed``; after, they are as before.

    All three, because timm and torchvision draw from all three. ``None`` leaves everything alone.
    """
    if seed is None:
        yield
        return
    before: tuple[Any, Any, Tensor] = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
