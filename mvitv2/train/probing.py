"""The batch size that a machine can do, found by doing steps with more and more images on a copy of the model."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from mvitv2.data.samples import SampleKey, Samples
from mvitv2.train import memory
from mvitv2.train.failures import is_out_of_memory, memory_explained
from mvitv2.train.freezing import trained_of
from mvitv2.train.generators import own_generators
from mvitv2.train.job import Job
from mvitv2.train.prepare import prepare
from mvitv2.train.recipe import Recipe
from mvitv2.train.state import TrainState
from mvitv2.train.stepping import take_step

LOOKED_AT = 100
"""Images that are tried until one can be read."""
FULL = 0.85
"""Part of the memory that a batch may fill: a run also measures, and memory falls into pieces."""
ENOUGH = 1.05
"""Twice the images must be so much faster per image, or a CPU gains nothing by them."""
SLOW = 20.0
"""Seconds that a step may take on a CPU while looking."""


@dataclass(frozen=True)
class Probe:
    """One step with so many images in a forward pass."""

    batch_size: int
    seconds: float
    held: int
    """Bytes, beyond what was held before."""


def automatic(job: Job, recipe: Recipe, device: torch.device, say: Callable[[str], object]) -> Recipe:
    """The recipe with the batch size that this machine can do; the global batch stays as it is, by accumulation.

    Args:
        job: Its model is left alone.
        recipe: The product of its batch size and accumulation is kept.
        device: Where the run will be.
        say: Is told what was found.

    Raises:
        ValueError: There is no readable image to probe with, or not even one image fits.
    """
    whole = recipe.batch_size * recipe.accumulation
    job.model.to(device)
    probes = probed(job, recipe, device, most=whole)
    if not probes:
        raise ValueError(f"not even one image of {recipe.img_size} pixels fits into the memory of {device}")
    fits = best(probes, device)
    size = max(n for n in range(1, fits + 1) if whole % n == 0)
    held = next((p.held for p in reversed(probes) if p.batch_size <= size), 0)
    say(
        f"batch size {size}, found by {len(probes)} steps on {device}: accumulation {whole // size} keeps the global "
        f"batch of {whole} images; about {held / memory.GIB:.2f} GiB"
    )
    return replace(recipe, batch_size=size, accumulation=whole // size)


def best(probes: list[Probe], device: torch.device) -> int:
    """On a GPU the largest batch; on a CPU the smallest that is about as fast per image as any."""
    if device.type != "cpu":
        return probes[-1].batch_size
    fastest = min(p.seconds / p.batch_size for p in probes)
    return next(p.batch_size for p in probes if p.seconds / p.batch_size <= fastest * ENOUGH)


def probed(job: Job, recipe: Recipe, device: torch.device, *, most: int) -> list[Probe]:
    """Steps with 1, 2, 4, ... images, up to ``most`` or to what memory and patience allow."""
    found: list[Probe] = []
    with own_generators(recipe.seed):
        base, sizes = memory.peak(device), [2**i for i in range(most.bit_length())]
        for size in sizes if sizes[-1] == most else [*sizes, most]:
            if found and not _room(found, size, device):
                break
            try:
                seconds = _step(job, replace(recipe, batch_size=size, accumulation=1), size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                break
            finally:
                if device.type == "cuda":
                    torch.cuda.empty_cache()
            found.append(Probe(size, seconds, max(memory.peak(device) - base, 0)))
    return found


def rehearsed(job: Job, recipe: Recipe, device: torch.device) -> tuple[Probe, int, int]:
    """One forward pass and update as the recipe has them, on a copy of the model; parameters trained, and in all.

    Raises:
        TrainingError: Memory ran out.
    """
    job.model.to(device)
    with own_generators(recipe.seed), memory_explained(recipe, device):
        base = memory.peak(device)
        seconds = _step(job, recipe, min(recipe.batch_size, len(job.dataset)))
        copied = copy.deepcopy(job.model)
        prepare(copied, recipe)
    return Probe(recipe.batch_size, seconds, max(memory.peak(device) - base, 0)), *trained_of(copied)


def _room(found: list[Probe], size: int, device: torch.device) -> bool:
    """Whether the next size is worth trying: it will fit, and on a CPU it will not take forever or gain nothing."""
    last, free = found[-1], memory.available(device)
    needed = last.held * size / last.batch_size
    if free is not None and needed > FULL * (free + (last.held if device.type == "cpu" else 0)):
        return False
    if device.type != "cpu":
        return True
    rates = [p.seconds / p.batch_size for p in found]
    stuck = len(rates) > 2 and min(rates[:-2]) <= min(rates[-2:]) * ENOUGH
    return last.seconds * size / last.batch_size <= SLOW and not stuck


def _step(job: Job, recipe: Recipe, size: int) -> float:
    """Seconds of one step with ``size`` images, on a copy of the model; where steps are quick, of the faster of two."""
    model = copy.deepcopy(job.model)
    prepare(model, recipe)
    state = TrainState.fresh(model, recipe)
    batch = batch_of(job, recipe, size)
    spent: list[float] = []
    while len(spent) < 2 and sum(spent) < 1.0:
        started = time.monotonic()
        take_step(state, [batch], job.objective, recipe, 0.0)
        if next(state.model.parameters()).is_cuda:
            torch.cuda.synchronize()
        spent.append(time.monotonic() - started)
    return min(spent)


def batch_of(job: Job, recipe: Recipe, size: int) -> Samples:
    """A batch of one readable image, many times.

    Raises:
        ValueError: None can be read.
    """
    for index in range(min(LOOKED_AT, len(job.dataset))):
        item = job.dataset[SampleKey(index, recipe.seed)]
        batch = job.collate([item] * size)
        if batch.num_samples == size:
            return batch
    raise ValueError(f"none of the first {LOOKED_AT} training images can be read; `mvitv2 check` names them")
