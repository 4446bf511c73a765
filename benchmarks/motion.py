"""``python -m benchmarks.motion CLIPS PART``: what the order of frames is worth, on clips whose class is a movement.

``order``: a small model of clips from scratch, by the recipe ``clips_small``; then the same weights on clips whose
frames are shuffled. ``shuffled``: the same model trained and measured on shuffled frames. ``frames``: a model of images
with the same blocks, trained on single frames and measured on the mean of its scores for all frames of a clip. Decoding
is part of the time; one thread.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvitv2.core.attend import reference
from mvitv2.core.config import MViTConfig
from mvitv2.core.model import MViT
from mvitv2.core.stages import stages
from mvitv2.data.samples import Unreadable, collate, seeded, split_key
from mvitv2.kernels import use
from mvitv2.tasks.evaluation import evaluating, probabilities
from mvitv2.train.generators import own_generators
from mvitv2.train.job import Job
from mvitv2.train.jobs import job_for
from mvitv2.train.loop import fit
from mvitv2.train.recipe import Recipe, overridden
from mvitv2.train.recipes import recipe
from mvitv2.train.settings import Settings

from .machine import describe

ROOT = Path(__file__).parents[1]


class Changed:
    """A data set whose clips are changed on the way: ``change(clip) -> pixels``, under the seed of the sample."""

    def __init__(self, clips: Any, change: Callable[[Tensor], Tensor]):
        self.clips, self.change = clips, change
        self.class_names, self.labels = clips.class_names, clips.labels

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: Any) -> Any:
        index, seed = split_key(key)
        item = self.clips[key]
        if isinstance(item, Unreadable):
            return item
        with seeded(index if seed is None else seed ^ 1):
            return self.change(item[0]), item[1]


def shuffled(clip: Tensor) -> Tensor:
    """``(C, T, H, W)`` with its frames in any order."""
    return clip[:, torch.randperm(clip.shape[1])]


def one_frame(clip: Tensor) -> Tensor:
    """``(C, H, W)``: any of its frames."""
    return clip[:, int(torch.randint(clip.shape[1], ()))]


def image_model(chosen: Recipe, config: MViTConfig) -> MViT:
    """The same blocks for single frames."""
    flat = {name: v[1:] if name in ("kernel", "q_stride", "kv_stride") else v for name, v in chosen.stages.items()}
    with own_generators(chosen.seed):
        made = MViTConfig(
            blocks=stages(**flat), input_size=config.input_size[1:], num_classes=config.num_classes, drop_path=0.0
        )
        return use(MViT(made, reference), "auto")


def top1(model: MViT, clips: Any, batch: int = 20) -> float:
    """Part of the clips that are told right; a model of images tells by the mean over all frames."""
    right = 0
    with evaluating(model):
        for start in range(0, len(clips), batch):
            items = [clips[index] for index in range(start, min(start + batch, len(clips)))]
            pixels, labels = torch.stack([item[0] for item in items]), torch.tensor([item[1] for item in items])
            if model.config.rank == len("hw"):
                scores = probabilities(model, pixels.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(items), -1))
                scores = scores.mean(dim=1)
            else:
                scores = probabilities(model, pixels)
            right += int((scores.argmax(dim=1) == labels).sum())
    return right / len(clips)


def part_of(job: Job, chosen: Recipe, name: str, validation: Any) -> Job:
    """The job of a part of the experiment."""

    def measure(clips: Any) -> Callable[..., dict[str, float]]:
        return lambda model, told: {"top1": top1(model, clips)}

    if name == "shuffled":
        mixed = Changed(validation, shuffled)
        return replace(job, dataset=Changed(job.dataset, shuffled), measure=measure(mixed), order=None)
    if name == "frames":
        model = image_model(chosen, job.model.config)
        frames = Changed(job.dataset, one_frame)
        return replace(job, model=model, dataset=frames, measure=measure(validation), order=None, collate=collate)
    return job


def main(words: list[str]) -> None:
    """Run one part and write what it gave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("part", choices=("order", "shuffled", "frames"))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--run", type=Path, help="folder of the run, to keep it")
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    chosen = recipe("clips_small")
    if given.epochs:
        chosen = overridden(chosen, {"epochs": given.epochs})
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(output=given.run or Path(scratch), save_minutes=1e9)
        job = job_for(given.clips, chosen, settings)
        validation = job_for_validation(given.clips, chosen)
        work, wall = time.process_time(), time.monotonic()
        outcome = fit(part_of(job, chosen, given.part, validation), chosen, settings)
        found = {
            "part": given.part,
            "epochs": chosen.epochs,
            "parameters": sum(p.numel() for p in job.model.parameters()),
            "history": [{"epoch": row["epoch"], "top1": row["top1"]} for row in outcome.history],
            "top1": outcome.history[-1]["top1"],
            "cpu_seconds": round(time.process_time() - work, 1),
            "seconds": round(time.monotonic() - wall, 1),
        }
        if given.part == "order":
            found["top1_frames_shuffled"] = top1(job.model, Changed(validation, shuffled))
    found |= {"date": date.today().isoformat(), "machine": describe()}
    given.output.mkdir(parents=True, exist_ok=True)
    path = given.output / f"{date.today().isoformat()}-motion-{given.part}.json"
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{json.dumps({k: v for k, v in found.items() if k != 'machine'})}\n")


def job_for_validation(data: Path, chosen: Recipe) -> Any:
    """The validation clips alone."""
    from mvitv2.train.video import clip_preprocessing, clip_splits

    return clip_splits(data, chosen, clip_preprocessing(chosen))["val"]


if __name__ == "__main__":
    main(sys.argv[1:])
