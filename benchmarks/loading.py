"""``python -m benchmarks.loading``: files to augmented batches, images per second and core, beside timm's loader.

Both read the same files in the same order, crop, flip, apply RandAugment, normalise and erase by the same policy, and
collate; each alone in one process on one thread, in turns. Without the photographs it says so and measures nothing.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset

from mvitv2.data.augment import AUTHORS, PLAIN, Augmentation, TrainTransform, operations, posterized
from mvitv2.data.device_augment import CropTransform
from mvitv2.data.folder import ImageFolder
from mvitv2.data.images import read_image
from mvitv2.data.labelled import LabelledImages
from mvitv2.data.pack import pack
from mvitv2.data.samples import collate
from mvitv2.data.shards import TarShards
from mvitv2.preprocessing import IMAGENET, Preprocessing

from .machine import describe
from .measure import CLOCKS, Timing, interleaved

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "photos10" / "train"
BATCH = 32
AUGMENTATIONS = {"authors": AUTHORS, "plain": PLAIN}

Step = Callable[[], object]


def ours(dataset: LabelledImages, places: list[int]) -> Step:
    """One pass of our data set over some places."""

    def step() -> int:
        return sum(len(batch.labels) for batch in DataLoader(dataset, BATCH, sampler=places, collate_fn=collate))

    return step


def timms(folder: Path, places: list[int], preprocessing: Preprocessing, augmentation: Augmentation) -> Step:
    """One pass of timm's data set and loader over the same places, with the same augmentation."""
    from timm.data.auto_augment import posterize
    from timm.data.dataset_factory import create_dataset
    from timm.data.transforms_factory import create_transform

    height, width = preprocessing.size or (224, 224)
    jitter: Any = augmentation.color_jitter or None
    transform: Any = create_transform(
        (3, height, width),
        is_training=True,
        scale=augmentation.scale,
        ratio=augmentation.ratio,
        hflip=augmentation.flip,
        color_jitter=jitter,
        auto_augment=augmentation.policy,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
        re_prob=augmentation.erase_probability,
        re_mode=augmentation.erase_mode,
    )
    for part in transform.transforms:
        for operation in operations(part):
            if operation.aug_fn is posterize:  # timm's fails with Pillow 13 once in a few hundred pictures
                operation.aug_fn = posterized
    dataset: Any = create_dataset("", root=str(folder), transform=transform)

    def step() -> int:
        return sum(len(labels) for _, labels in DataLoader(Subset(dataset, places), BATCH))

    return step


def decoders(folder: ImageFolder, places: list[int]) -> dict[str, Step]:
    """Files to RGB pictures alone: ours with its checks, and what timm does."""
    paths = [folder.path(place) for place in places]

    def plainly() -> None:
        for path in paths:
            with path.open("rb") as file:
                Image.open(file).convert("RGB")

    def carefully() -> None:
        for path in paths:
            read_image(path)

    return {"decode: timm": plainly, "decode: mvitv2": carefully}


def candidates(folder: Path, places: list[int], preprocessing: Preprocessing, packed: Path) -> dict[str, Step]:
    """Everything that is compared."""
    plain = ImageFolder(folder)
    steps = decoders(plain, places)
    pack(plain, packed, seed=None)
    for name, augmentation in AUGMENTATIONS.items():
        transform = TrainTransform(preprocessing, augmentation)
        steps[f"{name}: timm"] = timms(folder, places, preprocessing, augmentation)
        steps[f"{name}: mvitv2"] = ours(ImageFolder(folder, transform), places)
        if augmentation is AUTHORS:
            shards = TarShards(sorted(packed.glob("*.tar")), transform)
            steps[f"{name}: mvitv2, shards"] = ours(shards, places)
            crops = ImageFolder(folder, CropTransform(preprocessing, augmentation))
            steps[f"{name}: mvitv2, device"] = ours(crops, places)  # what loading processes do of it
    return steps


def seeded_again(steps: dict[str, Step]) -> dict[str, Step]:
    """The same steps, each from the same random numbers: augmentation costs by what is drawn."""

    def from_seed(step: Step) -> Step:
        def run() -> object:
            random.seed(0)
            np.random.seed(0)
            torch.manual_seed(0)
            return step()

        return run

    return {name: from_seed(step) for name, step in steps.items()}


def table(timings: dict[str, Timing], images: int) -> Iterable[str]:
    """Images per second for a reader."""
    for name, timing in timings.items():
        spread = f"{images / timing.high:7.1f} .. {images / timing.low:7.1f}"
        yield f"  {name:24} {images / timing.median:8.1f} images/s ({spread})"


def main(argv: list[str] | None = None) -> int:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description=__doc__)
    parser.add_argument("--data", type=Path, default=PHOTOS, help="a folder of class folders")
    parser.add_argument("--images", type=int, default=256, help="of them, evenly from all classes (default: 256)")
    parser.add_argument("--size", type=int, default=224, help="side of the crops (default: 224)")
    parser.add_argument("--rounds", type=int, default=5, help="times each is measured (default: 5)")
    parser.add_argument("--clock", choices=CLOCKS, default="cpu", help="cpu: the process's own time (default)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON file")
    arguments = parser.parse_args(argv)
    if not arguments.data.is_dir():
        sys.stderr.write(f"nothing is measured: there are no photographs in {arguments.data}; name some by --data\n")
        return 1
    torch.set_num_threads(1)
    count = len(ImageFolder(arguments.data))
    places = list(range(0, count, max(1, count // arguments.images)))[: arguments.images]
    with tempfile.TemporaryDirectory() as temporary:
        steps = candidates(arguments.data, places, IMAGENET.at(arguments.size), Path(temporary))
        timings = interleaved(seeded_again(steps), rounds=arguments.rounds, clock=arguments.clock)
    sys.stdout.write("\n".join([f"{len(places)} images, one process, one thread", *table(timings, len(places)), ""]))
    record = {
        "date": str(date.today()),
        "machine": describe(),
        "settings": {"images": len(places), "size": arguments.size, "batch": BATCH, "clock": arguments.clock},
        "timings": {name: asdict(timing) for name, timing in timings.items()},
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{record['date']}-loading.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
