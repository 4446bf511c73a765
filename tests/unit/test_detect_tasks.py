"""Detectors on data and on files of one's own: evaluation, prediction, tiles."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mvitv2.data.detection.augment import Resize
from mvitv2.data.detection.dataset import DetectionImages
from mvitv2.data.detection.open import read_annotations
from mvitv2.data.detection.shapes import pixels
from mvitv2.data.video.info import Frame
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.detect.config import Selection
from mvitv2.tasks.detect.selecting import Detections
from mvitv2.tasks.detect.variants import DETECTORS
from mvitv2.tasks.detect_evaluation import evaluate_detector
from mvitv2.tasks.detect_prediction import predict_frames, predict_objects
from mvitv2.tasks.detect_views import merged, tiles
from mvitv2.tasks.found import Found
from mvitv2.tasks.processes import Processes

COLOURS = {0: (220, 40, 40), 1: (40, 60, 220)}
SIDES = Preprocessing(size=None, resize=64, longest=4000, interpolation="bilinear")


class BlobDetector(torch.nn.Module):
    """Finds red and blue rectangles by looking at pixels: what a perfect detector would say."""

    def __init__(self, card: dict[str, Any] | None = None) -> None:
        super().__init__()

        self.config = replace(DETECTORS["mask_rcnn_mvitv2_t"], num_classes=2)
        self.card = {"preprocessing": SIDES.to_dict(), "classes": ["red", "blue"]} if card is None else card
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []

    def forward(self, images: Any, sizes: Any = None, selection: Selection | None = None) -> list[Detections]:
        self.batches.append(len(images))
        return [self.one(image, size, selection) for image, size in zip(images, sizes, strict=True)]

    def one(self, image: torch.Tensor, size: tuple[int, int], selection: Selection | None) -> Detections:
        boxes, labels, masks, scores = [], [], [], []
        for label, colour in COLOURS.items():
            near = (image.float() - torch.tensor(colour)[:, None, None]).abs().amax(0) < 60
            if not near.any():
                continue
            mask = torch.from_numpy(np.array(Image.fromarray(near.numpy()).resize((size[1], size[0]), 0)))
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            boxes.append([int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1])
            labels.append(label)
            masks.append(mask)
            scores.append(0.9 - 0.2 * label)
        keep = [i for i, score in enumerate(scores) if selection is None or score > selection.min_score]
        drawn = torch.stack([masks[i] for i in keep]) if keep else torch.zeros(0, *size, dtype=torch.bool)
        return Detections(
            torch.tensor([boxes[i] for i in keep], dtype=torch.float32).view(-1, 4),
            torch.tensor([scores[i] for i in keep]),
            torch.tensor([labels[i] for i in keep], dtype=torch.int64),
            drawn,
        )


def blobs(folder: Path, count: int = 5) -> Path:
    """Pictures of two sizes with a red and a blue rectangle, and their file."""
    images, notes = [], []
    for i in range(count):
        width, height = (128, 64) if i % 2 else (64, 128)
        canvas = Image.new("RGB", (width, height), (120, 120, 120))
        images.append({"id": 10 + i, "file_name": f"{i}.png", "width": width, "height": height})
        for label, (x, y) in enumerate(((8, 8 + 4 * i), (56, 16) if i % 2 else (24, 80))):
            canvas.paste(COLOURS[label], (x, y, x + 32, y + 24))
            shape = [[x, y, x + 32, y, x + 32, y + 24, x, y + 24]]
            note = {"id": len(notes), "image_id": 10 + i, "category_id": label + 4, "bbox": [x, y, 32, 24]}
            notes.append(note | {"segmentation": shape, "area": 768, "iscrowd": 0})
        folder.mkdir(exist_ok=True)
        canvas.save(folder / f"{i}.png")
    categories = [{"id": 4, "name": "red"}, {"id": 5, "name": "blue"}]
    (folder / "all.json").write_text(json.dumps({"images": images, "annotations": notes, "categories": categories}))
    return folder


def data(folder: Path, **options: Any) -> DetectionImages:
    return DetectionImages(read_annotations(folder / "all.json")[0], folder, Resize(side=64, longest=4000), **options)


def test_a_perfect_detector_is_measured_as_one(tmp_path):
    model: Any = BlobDetector()
    told: list[tuple[int, int]] = []
    found = evaluate_detector(model, data(blobs(tmp_path)), batch_size=2, on_batch=lambda *pair: told.append(pair))
    assert found.mask is not None and found.box.figures["AP"] == 1 and found.mask.figures["AP75"] == 1
    assert found.images == 5 and model.batches == [2, 2, 1] and told[-1] == (5, 5)
    assert [one["category_id"] for one in found.results[:2]] == [4, 5] and found.results[0]["image_id"] == 10
    assert json.loads(json.dumps(found.to_dict()))["box"]["figures"]["AP50"] == 1
    strict = evaluate_detector(model, data(tmp_path), selection=Selection(min_score=0.8))
    assert strict.box.figures["AP"] == 0.5
    boxes = evaluate_detector(model, data(tmp_path, masks=False))
    assert boxes.mask is None and boxes.box.figures["AP"] == 1


def test_pictures_that_cannot_be_read_are_told(tmp_path):
    blobs(tmp_path)
    (tmp_path / "3.png").write_bytes(b"nothing")
    model: Any = BlobDetector()
    found = evaluate_detector(model, data(tmp_path, on_error="skip"))
    assert found.images == 4 and found.box.figures["AP"] == 1 and [one.index for one in found.unreadable] == [3]
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="no picture to measure on; 5 could not be read"):
        evaluate_detector(model, data(tmp_path, on_error="skip"))


class Shared(Processes):
    """One of two processes, whose answers meet in a list."""

    def __init__(self, rank: int, board: dict[int, list[Any]]):
        self.rank, self.count, self.board = rank, 2, board

    def gathered(self, value: Any) -> list[Any]:
        self.board.setdefault(self.rank, []).append(value)
        place = len(self.board[self.rank]) - 1
        return [values[place] for values in self.board.values() if len(values) > place]


def test_two_processes_share_the_pictures(tmp_path):
    folder, board = blobs(tmp_path), {}
    models: list[Any] = [BlobDetector(), BlobDetector()]
    evaluate_detector(models[0], data(folder), processes=Shared(0, board))
    found = evaluate_detector(models[1], data(folder), processes=Shared(1, board))
    assert [len(model.batches) for model in models] == [3, 3]  # five pictures, one of them twice
    assert found.images == 5 and found.box.figures["AP"] == 1
    assert len(found.results) == 10


def test_objects_in_files(tmp_path):
    blobs(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"x")
    model: Any = BlobDetector()
    files = [str(tmp_path / name) for name in ("0.png", "broken.png", "1.png", "nowhere.png")]
    answers = list(predict_objects(model, files, batch_size=2))
    assert [answer.error is None for answer in answers] == [True, False, True, False]
    first = answers[0]
    assert first.size == (128, 64) and [(one.name, one.category_id) for one in first.objects] == [
        ("red", 1),
        ("blue", 2),
    ]
    assert np.abs(np.subtract(first.objects[0].box, (8, 8, 40, 32))).max() <= 2
    mask = first.objects[0].mask
    assert mask is not None and abs(pixels(dict(mask), (128, 64)).sum() - 768) < 80
    written = json.loads(json.dumps(first.to_dict()))
    assert written["objects"][1]["class"] == "blue" and written["height"] == 128 and "mask" in written["objects"][0]
    first.save(tmp_path / "drawn.png")
    shown, plain = (np.asarray(Image.open(tmp_path / name)) for name in ("drawn.png", "0.png"))
    assert shown.shape == plain.shape and (shown != plain).any()
    assert [len(answer.objects) for answer in predict_objects(model, files[0], selection=Selection(min_score=0.8))] == [
        1
    ]


def test_tiles_cover_the_picture():
    for size, side in (((100, 300), 128), ((1000, 700), 256), ((64, 64), 64), ((129, 128), 128)):
        covered = np.zeros(size, int)
        for left, top, right, bottom in tiles(size, side):
            assert 0 <= left < right <= size[1] and 0 <= top < bottom <= size[0] and right - left <= side
            covered[top:bottom, left:right] += 1
        assert covered.min() >= 1
    starts = sorted({window[0] for window in tiles((100, 1000), 256)})
    assert all(b - a <= 192 for a, b in pairwise(starts)) and starts[-1] == 744


def test_a_large_picture_in_tiles(tmp_path):
    """Small objects vanish when the whole is shrunk; tiles find them, each once and whole, masks in place."""
    canvas = Image.new("RGB", (1200, 300), (120, 120, 120))
    canvas.paste(COLOURS[0], (250, 100, 270, 116))  # at the edge of the first tile, inside the second
    canvas.paste(COLOURS[1], (900, 40, 916, 60))
    model: Any = BlobDetector()
    sides = Preprocessing(size=None, resize=64, longest=64, interpolation="bilinear")
    (whole,) = predict_objects(model, canvas, preprocessing=sides)
    (tiled,) = predict_objects(model, canvas, preprocessing=sides, tile=256, batch_size=1)
    assert len(whole.objects) < 2 and [one.name for one in tiled.objects] == ["red", "blue"]
    for one, box in zip(tiled.objects, ((250, 100, 270, 116), (900, 40, 916, 60)), strict=True):
        assert np.abs(np.subtract(one.box, box)).max() <= 8 and one.mask is not None
        rows, columns = np.nonzero(pixels(dict(one.mask), (300, 1200)))
        assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == pytest.approx(one.box, abs=1)
    (again,) = predict_objects(model, canvas, preprocessing=sides, tile=2000)
    assert again == whole


def test_the_same_object_of_two_views_counts_once():
    box = (10.0, 10.0, 50.0, 50.0)
    objects = [Found("a", 0, 1, 0.6, box), Found("a", 0, 1, 0.9, (11.0, 10.0, 51.0, 50.0)), Found("b", 1, 2, 0.5, box)]
    assert [(one.name, one.score) for one in merged(objects, Selection())] == [("a", 0.9), ("b", 0.5)]
    assert len(merged(objects, Selection(max_detections=1))) == 1 and merged([], Selection()) == []


def test_what_cannot_be_is_refused(tmp_path):
    model: Any = BlobDetector({})
    with pytest.raises(ValueError, match="has no 'preprocessing'"):
        predict_objects(model, "x.png")
    with pytest.raises(ValueError, match="tile=8 32 pixels"):
        predict_objects(model, "x.png", tile=8, preprocessing=SIDES)
    (answer,) = predict_objects(model, str(blobs(tmp_path) / "0.png"), preprocessing=SIDES)
    assert [one.name for one in answer.objects] == ["0", "1"]
    wrong = data(tmp_path)
    wrong.classes = ("a", "b", "c")
    with pytest.raises(ValueError, match="tells 2 classes apart, the data has 3"):
        evaluate_detector(model, wrong)


def test_frames_of_a_clip_are_held_a_batch_at_a_time(monkeypatch):
    read: list[int] = []

    def frames(_source: Any) -> Any:
        for index in range(11):
            read.append(index)
            pixels = torch.full((3, 64, 96), 120, dtype=torch.uint8)
            pixels[:, 10:30, index : index + 20] = torch.tensor(COLOURS[0])[:, None, None]
            yield Frame(index, index / 5, pixels)
        yield "ends before its end"

    monkeypatch.setattr("mvitv2.tasks.detect_prediction.frames_of", frames)
    model: Any = BlobDetector()
    stream = predict_frames(model, Path("film.mp4"), name="film.mp4", batch_size=4)
    assert not read
    for number, (answer, picture) in enumerate(stream):
        assert len(read) - number <= 4
        if number == 11:
            assert answer.error == "ends before its end" and picture is None
            break
        assert picture is not None and (answer.frame, answer.seconds) == (number, number / 5)
        assert answer.objects[0].box == (number, 10, number + 20, 30)
        assert answer.to_dict()["frame"] == number
    assert model.batches == [4, 4, 3]
    with pytest.raises(ValueError, match="batch_size=0"):
        predict_frames(model, Path("film.mp4"), name="film.mp4", batch_size=0)
