"""What the machine could do at most, measured in the same run: the rate of a matrix product, and of copying memory."""

from dataclasses import dataclass
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from mvitv2.models import create_model

from .cases import Case
from .measure import interleaved

SIDE = 1024
COPIED = 64 * 2**20
ROUNDS = 9


@dataclass(frozen=True)
class Limits:
    """Best rates on a device, with the threads of the run.

    Attributes:
        flops: Operations per second of a product of 1024 x 1024 matrices, by precision.
        bandwidth: Bytes read and written per second, copying 64 MiB.
    """

    flops: dict[str, float]
    bandwidth: float


def limits(device: str, clock: str) -> Limits:
    """Measure them; the fastest of a few rounds is a limit, the median is not."""
    steps = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(SIDE, SIDE, device=device, dtype=dtype) for _ in range(2))
        steps[str(dtype).removeprefix("torch.")] = lambda a=a, b=b: a @ b
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    steps["copy"] = lambda: target.copy_(source)
    best = {name: t.low for name, t in interleaved(steps, rounds=ROUNDS, device=device, clock=clock).items()}
    rates = {name: 2 * SIDE**3 / seconds for name, seconds in best.items() if name != "copy"}
    return Limits({**rates, "autocast": rates["bfloat16"]}, 2 * COPIED / best["copy"])


@cache
def operations(case: Case) -> int:
    """Floating-point operations of one step: products and convolutions; a backward pass counts as two forward ones."""
    with torch.device("meta"):
        model = create_model(case.variant, backend="reference", img_size=case.shape[-1]).eval()
        pixels = torch.empty(case.batch, *case.shape)
        counter = FlopCounterMode(display=False)
        with counter, torch.inference_mode():
            model(pixels)
    return counter.get_total_flops() * (3 if case.trains else 1)


@cache
def parameter_bytes(case: Case) -> int:
    """Bytes of the weights, which every step reads at least once."""
    with torch.device("meta"):
        model = create_model(case.variant, backend="reference", img_size=case.shape[-1])
    return sum(p.numel() for p in model.parameters()) * (2 if case.dtype == "bfloat16" else 4)
