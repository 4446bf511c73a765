"""Where the kernels run: a CUDA device, or any tensor in Triton's interpreter."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

OLDEST = (8, 0)


@dataclass(frozen=True)
class Availability:
    """Whether the kernels run here, and why not.

    Attributes:
        ok: What the record is worth in a condition.
        reason: What is missing, or the device that is there.
    """

    ok: bool
    reason: str

    def __bool__(self) -> bool:
        return self.ok


def available() -> Availability:
    """Whether there are Triton and a CUDA device that it knows.

    The interpreter does not count: it runs the kernels anywhere, to check them, thousands of times slower.
    """
    if find_spec("triton") is None:
        return Availability(
            False, "triton is not installed; CUDA builds of torch for Linux bring it: pip install triton"
        )
    if not torch.cuda.is_available():
        return Availability(False, "torch sees no CUDA device")
    capability = torch.cuda.get_device_capability()
    if torch.version.cuda and capability < OLDEST:
        return Availability(
            False, f"the device has compute capability {capability}; the kernels need {OLDEST} or later"
        )
    return Availability(True, f"{torch.cuda.get_device_name()}")


def check_runs_on(x: Tensor) -> None:
    """Refuse a tensor that the kernels cannot run on.

    Raises:
        ImportError: Triton is not installed.
        ValueError: The tensor is on no CUDA device, and the kernels are not interpreted.
    """
    if find_spec("triton") is None:
        raise ImportError(available().reason)
    from .language import INTERPRETED

    if not x.is_cuda and not INTERPRETED.value:
        raise ValueError(
            f"the triton kernels got tensors on {x.device} and run on CUDA devices; move the model there or choose "
            "another backend (to check the kernels without a GPU, set TRITON_INTERPRET=1 before the start)"
        )


def launching(x: Tensor) -> AbstractContextManager[object]:
    """Make the device of a tensor the current one: Triton launches there."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def rows_dense(x: Tensor) -> Tensor:
    """The tensor itself if its last axis is contiguous, as the kernels read it, else a contiguous copy."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
