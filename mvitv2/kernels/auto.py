"""The backend of choice for a call, by a rule one can ask."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mvitv2.core.attend import Attend, reference

from .sdpa import folded, masked


def choose(*, device: str, trains: bool) -> Attend:
    """The backend that ``"auto"`` takes.

    Args:
        device: ``"cpu"``, ``"cuda"``, ...
        trains: Whether gradients are needed.
    """
    if device != "cpu":
        return folded
    return reference if trains else masked


def auto(q: Tensor, k: Tensor, v: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """:func:`mvitv2.core.attend.reference` by the backend of choice; shapes as there."""
    trains = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    return choose(device=q.device.type, trains=trains)(q, k, v, terms)
