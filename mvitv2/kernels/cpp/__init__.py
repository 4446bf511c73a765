"""Pooling attention in C++, for CPUs: built at first use where there is a compiler, not missed where there is none."""

from .build import BuildError
from .fused import DTYPES, attend, fused, pool_tokens, whole
from .operators import available, load, missing

__all__ = ["DTYPES", "BuildError", "attend", "available", "fused", "load", "missing", "pool_tokens", "whole"]
