"""Proof that a detector can learn: a small cascade learns eight pictures of COCO by heart, boxes and masks.

Losses, targets, sampling, boxes and masks must all agree for that. ``python -m benchmarks.overfit_detection COCO_SMALL
--output runs/overfit`` writes the eight pictures with their annotations beside the run, trains on them with the recipe
``detect_small`` and few changes, and exits with 1 unless box AP is 0.9 and mask AP 0.8 on the same pictures. What is
found is drawn in ``found/``.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from mvitv2.data.detection.dataset import DetectionImages
from mvitv2.data.detection.open import open_detection
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.detect.detector import Detector
from mvitv2.tasks.detect_prediction import predict_objects
from mvitv2.train.jobs import train
from mvitv2.train.progress import progress_on
from mvitv2.train.recipe import overridden
from mvitv2.train.recipes import recipe
from mvitv2.train.settings import Settings
from mvitv2.weights.load import load_model

REPEATED = 25
"""Times that the training split lists every picture: measuring after each pass would cost more than training."""
WANTED = {"box_ap": 0.9, "mask_ap": 0.8}
CHANGES = {
    "augmentation": {"kind": "resize"},
    "epochs": 28,  # of 50 steps
    "warmup_epochs": 1.0,
    "min_lr": 6e-5,
    "weight_decay": 0.0,
    "detector.positive_fraction": 0.5,
}


def main(argv: list[str] | None = None) -> int:
    """Make the data, train, measure, draw."""
    parser = argparse.ArgumentParser(description="A small cascade learns eight pictures of COCO by heart.")
    parser.add_argument("data", type=Path, help="folder of COCO's form with a training split")
    parser.add_argument("--output", type=Path, default=Path("runs/overfit_detection"))
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=CHANGES["epochs"])
    given = parser.parse_args(argv)
    folder = eight(given.data, given.output / "data", given.pictures)
    changed = overridden(recipe("detect_small"), {**CHANGES, "epochs": given.epochs})
    started, spent = time.monotonic(), time.process_time()
    settings = Settings(output=given.output / "run", device="cpu", workers=0)
    outcome = train(folder, changed, settings, progress_on())
    figures = {name: outcome.history[-1][name] for name in WANTED}
    minutes, cpu = (time.monotonic() - started) / 60, (time.process_time() - spent) / 60
    print(f"{figures} in {minutes:.1f} minutes, {cpu:.1f} minutes of CPU")
    draw(outcome.weights, folder, given.output / "found")
    return int(any(figures[name] < least for name, least in WANTED.items()))


def eight(source: Path, folder: Path, count: int) -> Path:
    """Pictures of few objects, none of them tiny once the picture is small, as a training and a validation split."""
    data = open_detection(source, {"train": None}, need=("train",))["train"]
    chosen = [index for index in range(len(data)) if _fits(data, index)][:count]
    ids = {int(data.annotations.image_ids[data.places[index]]) for index in chosen}
    content = json.loads(data.annotations.source.read_text(encoding="utf-8"))
    content["images"] = [image for image in content["images"] if image["id"] in ids]
    content["annotations"] = [note for note in content["annotations"] if note["image_id"] in ids]
    for split, times in (("train", REPEATED), ("val", 1)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for index in chosen:
            shutil.copy(data.path(index), folder / split)
        (folder / f"{split}.json").write_text(json.dumps(repeated(content, times)), encoding="utf-8")
    return folder


def repeated(content: dict[str, Any], times: int) -> dict[str, Any]:
    """Annotations that list every picture several times, each time under another id."""
    images, notes = content["images"], content["annotations"]
    width = 1 + max(image["id"] for image in images)
    more = [{**image, "id": image["id"] + k * width} for k in range(times) for image in images]
    again = [{**note, "image_id": note["image_id"] + k * width} for k in range(times) for note in notes]
    return {**content, "images": more, "annotations": [{**note, "id": i} for i, note in enumerate(again)]}


def _fits(data: DetectionImages, index: int) -> bool:
    found = data.annotations
    rows = found.objects(int(data.places[index]))
    sides = found.boxes[rows, 2:] * (160 / min(data.size(index)))
    return 2 <= len(sides) <= 6 and sides.min() >= 14 and not found.crowd[rows].any()


def draw(weights: Path, folder: Path, target: Path) -> None:
    """What the detector finds, on the pictures."""
    model = load_model(weights)
    if not isinstance(model, Detector):
        raise TypeError(f"{weights} holds no detector")
    target.mkdir(parents=True, exist_ok=True)
    record = Preprocessing.from_dict(model.card["preprocessing"])
    for answer in predict_objects(model, str(folder / "val"), preprocessing=record):
        answer.save(target / Path(answer.file).name)


if __name__ == "__main__":
    sys.exit(main())
