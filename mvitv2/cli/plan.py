"""What ``mvitv2 train`` would do, told without doing it: the configuration, or one step and what follows from it."""

import dataclasses
from typing import TYPE_CHECKING

import yaml

from mvitv2.cli.output import columns

if TYPE_CHECKING:
    import torch

    from mvitv2.train.job import Job
    from mvitv2.train.recipe import Recipe
    from mvitv2.train.settings import Settings


def configuration(data: str, recipe: "Recipe", settings: "Settings") -> str:
    """The resolved recipe as YAML that ``--recipe`` reads; where and how it would run, as comments above."""
    about = {"data": data, **dataclasses.asdict(settings)}
    lines = [f"# {name}: {value}" for name, value in about.items() if value is not None]
    return "\n".join([*lines, yaml.safe_dump(recipe.to_dict(), sort_keys=False).rstrip()])


def rehearsal(job: "Job", recipe: "Recipe", device: "torch.device") -> str:
    """One step on a copy of the model, and what a run would be."""
    from mvitv2.tasks.spoken import seconds_spoken
    from mvitv2.train import memory
    from mvitv2.train.probing import rehearsed
    from mvitv2.train.progressive import phases
    from mvitv2.train.sampler import steps_per_epoch
    from mvitv2.train.schedule import schedule_of

    images, batch = len(job.dataset), recipe.batch_size * recipe.accumulation
    per_epoch = steps_per_epoch(images, batch)
    schedule = schedule_of(recipe, steps_per_epoch=per_epoch, global_batch=min(batch, images))
    probe, trained, every = rehearsed(job, recipe, device)
    seconds = probe.seconds * recipe.accumulation * schedule.steps
    sizes = ", ".join(f"{p.img_size} pixels in epochs {p.first + 1} to {p.last}" for p in phases(recipe))
    rows = [
        ("model", f"{start_of(recipe)}, {trained:,} of {every:,} parameters are trained"),
        ("pictures", f"{images} to train on: {sizes}"),
        ("steps", f"{schedule.steps} ({per_epoch} an epoch, {recipe.epochs} epochs)"),
        ("batch", f"{recipe.batch_size} in a forward pass, {batch} in a step"),
        ("learning rate", f"{schedule.start:.2e}, {schedule.peak:.2e} at its peak, {schedule.end:.2e} at the end"),
        ("one step", f"{probe.seconds * recipe.accumulation:.3f} s on {device}, without loading"),
        ("all steps", f"about {seconds_spoken(seconds)}, without loading and measuring"),
        ("memory", f"{memory.peak(device) / memory.GIB:.2f} GiB held at most so far"),
        ("written", "nothing"),
    ]
    return columns(rows)


def start_of(recipe: "Recipe") -> str:
    """What is trained, as people would say it: an architecture, or weights."""
    if recipe.weights is None:
        return f"{recipe.model}{' with other stages' if recipe.stages else ''}"
    return f"{recipe.model} as published" if recipe.weights == "pretrained" else f"weights of {recipe.weights}"
