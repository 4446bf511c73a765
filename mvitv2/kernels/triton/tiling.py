"""How work is cut into tiles: one fixed rule of types and sizes, so that the same call always runs the same way.

The sizes are the largest that compile for compute capability 9.0 with few spilled registers; how fast they are, against
each other or anything else, is not measured.
"""

from dataclasses import dataclass

import torch

LONGEST_HELD = 128
LONGEST_SUMMED = 256
PROGRAMS = 512


@dataclass(frozen=True)
class Tiling:
    """Sizes of tiles of attention, warps of a program, and stages of its software pipeline."""

    queries: int
    keys: int
    warps: int
    stages: int


def padded(n: int, *, least: int = 16) -> int:
    """The next power of two that a tile can have."""
    return max(least, 1 << (n - 1).bit_length())


def channel_parts(dim: int) -> tuple[int, ...]:
    """Powers of two that hold ``dim`` channels with the least padding in at most two parts: 96 is 64 and 32."""
    whole = padded(dim)
    half = whole // 2
    rest = padded(dim - half) if dim > half else 0
    return (half, rest) if half >= 16 and 0 < rest < half else (whole,)


@dataclass(frozen=True)
class Load:
    """What a program of attention has to hold, by which its tiles are chosen.

    Attributes:
        dtype: Of queries, keys and values.
        num_q: Queries of a head.
        dim: Channels of a head.
        positions: Of all axes whose terms are held, together.
        read: Whether there are terms that are not held, but read number by number.
        summed: Positions of all axes whose gradients are summed, together.
    """

    dtype: torch.dtype
    num_q: int
    dim: int
    positions: int
    read: bool
    summed: int

    @property
    def single(self) -> bool:
        """Whether numbers are float32, whose products do not run on tensor cores."""
        return self.dtype == torch.float32


def forward_tiling(load: Load) -> Tiling:
    """Tiles of the forward pass."""
    if load.single:
        return Tiling(queries=32, keys=32, warps=4, stages=2) if load.dim <= 128 else Tiling(16, 32, 8, 1)
    if load.dim > 128:
        return Tiling(queries=64, keys=32, warps=8, stages=1)
    if load.num_q <= 64 or load.positions > 128 or load.read:
        return Tiling(queries=64, keys=64, warps=4, stages=2)
    return Tiling(queries=128, keys=64, warps=8, stages=2)


def backward_queries_tiling(load: Load) -> Tiling:
    """Tiles of the gradients of queries and terms."""
    if load.single:
        return Tiling(queries=32, keys=32, warps=8, stages=1) if load.dim <= 128 else Tiling(16, 16, 8, 1)
    if load.dim > 128:
        return Tiling(queries=32, keys=32, warps=8, stages=1)
    if load.summed > 192:
        return Tiling(queries=32, keys=32, warps=8, stages=1)
    return Tiling(queries=64, keys=64 if load.summed <= 64 and load.dim <= 96 else 32, warps=8, stages=2)


def backward_keys_tiling(load: Load) -> Tiling:
    """Tiles of the gradients of keys and values."""
    if load.single:
        return Tiling(queries=32, keys=32, warps=8, stages=1) if load.dim <= 128 else Tiling(16, 16, 8, 1)
    if load.dim > 128:
        return Tiling(queries=32, keys=32, warps=8, stages=1)
    return Tiling(queries=64, keys=64, warps=8, stages=2)


def num_splits(num_q: int, programs: int, block: int) -> int:
    """Into how many stretches of queries the gradients of keys are cut, so that few heads still fill a device.

    Args:
        num_q: Queries of a head.
        programs: Tiles of keys, over all heads.
        block: Queries of a tile; a stretch has at least eight.
    """
    return max(1, min(-(-PROGRAMS // programs), num_q // (8 * block)))


def stretch(num_q: int, splits: int, block: int) -> int:
    """Queries of one stretch: whole tiles."""
    return -(-num_q // (splits * block)) * block
