"""Pooling attention in C++, for CPUs: built at first use where there is a compiler, not missed where there is none."""

from .build import BuildError
from .fused import DTYPES, attend, fused, pool_tokens, whole
from .operators import available, has_tiles, instructions, load, missing

__all__ = [
    "DTYPES",
    "BuildError",
    "attend",
    "available",
    "fused",
    "has_tiles",
    "instructions",
    "load",
    "missing",
    "pool_tokens",
    "whole",
]
