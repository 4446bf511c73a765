"""Triton kernels for CUDA devices: pooling with its norm, and attention with position terms, each in one pass.

Importing this loads torch only; Triton is loaded by the first call. :func:`available` says whether the kernels run
here. What they cannot do raises an error, there is no way round in silence. They are checked in Triton's interpreter;
how fast they are on a GPU is not measured.
"""

from .attend import attend, takes
from .device import Availability, available
from .pool import Pool, pool_norm, pool_norm_each
from .whole import fused, pool_tokens, whole

__all__ = [
    "Availability",
    "Pool",
    "attend",
    "available",
    "fused",
    "pool_norm",
    "pool_norm_each",
    "pool_tokens",
    "takes",
    "whole",
]
