"""A small cascade learns two pictures by heart: losses, targets, sampling, boxes and masks agree, or it could not."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks import overfit_detection

pytest.importorskip("faster_coco_eval", reason="comes with the extra `detect`")
GRAY, RED, BLUE = (150, 150, 150), (200, 30, 30), (30, 40, 200)


def coco(folder: Path, count: int) -> Path:
    """Pictures of 96 x 72 pixels with a disc and a block, and their annotations in COCO's form."""
    chance, images, notes = np.random.default_rng(0), [], []
    around = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    (folder / "train").mkdir(parents=True)
    for number in range(count):
        canvas = Image.new("RGB", (96, 72), GRAY)
        pen, x, y = ImageDraw.Draw(canvas), *(int(place) for place in chance.integers(2, 20, 2))
        pen.ellipse((x, y, x + 30, y + 30), fill=RED)
        pen.rectangle((x + 40, y + 10, x + 64, y + 40), fill=BLUE)
        canvas.save(folder / "train" / f"{number}.png")
        images.append({"id": number + 1, "file_name": f"{number}.png", "width": 96, "height": 72})
        disc = np.stack((x + 15.5 + 15 * np.cos(around), y + 15.5 + 15 * np.sin(around)), axis=1).ravel().tolist()
        block = [x + 40, y + 10, x + 65, y + 10, x + 65, y + 41, x + 40, y + 41]
        for category, (box, outline) in enumerate((([x, y, 31, 31], disc), ([x + 40, y + 10, 25, 31], block)), 1):
            note = {"id": len(notes) + 1, "image_id": number + 1, "category_id": category, "iscrowd": 0}
            notes.append({**note, "bbox": box, "area": box[2] * box[3], "segmentation": [outline]})
    categories = [{"id": 1, "name": "disc"}, {"id": 2, "name": "block"}]
    content = {"images": images, "annotations": notes, "categories": categories}
    (folder / "train.json").write_text(json.dumps(content))
    return folder


@pytest.mark.slow
def test_two_pictures_are_learnt_by_heart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the benchmark does with eight pictures of COCO for half an hour, in a hundred steps."""
    small = {"batch_size": 2, "preprocessing.resize": 96, "preprocessing.longest": 128, "lr_batch": 2}
    monkeypatch.setattr(overfit_detection, "REPEATED", 50)
    monkeypatch.setattr(overfit_detection, "CHANGES", {**overfit_detection.CHANGES, **small, "warmup_epochs": 0.4})
    monkeypatch.setattr(overfit_detection, "WANTED", {"box_ap": 0.8, "mask_ap": 0.6})
    words = [str(coco(tmp_path / "in", 2)), "--output", str(tmp_path / "out"), "--pictures", "2", "--epochs", "2"]
    assert overfit_detection.main(words) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "run" / "results.csv").read_text().splitlines()))
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"]) < 5.5
    for name in ("0.png", "1.png"):
        seen = np.asarray(Image.open(tmp_path / "out" / "found" / name).convert("RGB")).astype(int)
        plain = np.asarray(Image.open(tmp_path / "in" / "train" / name)).astype(int)
        assert seen.shape == plain.shape and (np.abs(seen - plain).max(axis=2) > 40).mean() > 0.1
