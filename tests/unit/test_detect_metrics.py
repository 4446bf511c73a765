"""Average precision: COCO's published figures, pycocotools beside, and laws that hold for any data."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mvitv2.data.detection.dataset import DetectionImages
from mvitv2.data.detection.open import read_annotations
from mvitv2.data.detection.order import DetectionOrder, detection_order, repeat_factors
from mvitv2.data.detection.shapes import compressed, pixels
from mvitv2.tasks.detect_metrics import (
    FIGURES,
    KINDS,
    LVIS_FIGURES,
    Detections,
    coco_results,
    gathered,
    ground_truth,
    measured,
    rle_masks,
)

SHARED = Path(__file__).parents[2] / "../shared/data/coco_small"
FIXTURE = SHARED / "eval_fixture"


def fixture(name: str) -> Any:
    if not FIXTURE.is_dir():
        pytest.skip("needs coco_small/eval_fixture of the shared data")
    return json.loads((FIXTURE / name).read_text())


def published(kind: str) -> tuple[Any, Any]:
    name = {"box": "fakebbox", "mask": "fakesegm"}[kind]
    return fixture("instances_val2014_100.json"), fixture(f"instances_val2014_{name}100_results.json")


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_figures(kind):
    measure = measured(*published(kind), kind=kind)
    assert [round(value or 0, 3) for value in measure.figures.values()] == fixture("expected_stats.json")[KINDS[kind]]
    assert tuple(measure.figures) == FIGURES and measure.images == 100
    assert json.loads(json.dumps(measure.to_dict()))["figures"] == measure.figures


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pycocotools meets a newer NumPy
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_pycocotools(kind, tmp_path):
    theirs = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    truth, results = published(kind)
    ids = sorted({image["id"] for image in truth["images"]})[10:60]
    results = [result for result in results if result["image_id"] in ids and result["image_id"] % 3]  # some unanswered
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with contextlib.redirect_stdout(io.StringIO()):
        expected = theirs.COCO(str(tmp_path / "truth.json"))
        evaluator = evaluation.COCOeval(expected, expected.loadRes([dict(one) for one in results]), KINDS[kind])
        evaluator.params.imgIds = ids
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    measure = measured(truth, results, kind=kind, image_ids=ids)
    assert list(measure.figures.values()) == pytest.approx(evaluator.stats.tolist(), abs=1e-12)
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    by_class = [own[own > -1].mean() if (own > -1).any() else None for own in np.moveaxis(precision, 2, 0)]
    assert [one.precision for one in measure.per_class] == pytest.approx(by_class)


def data(folder: Path, *, lvis: bool = False) -> DetectionImages:
    """Six pictures (never opened) of three classes, one of them rare, with a crowd and an empty one."""
    chance = np.random.default_rng(3)
    sizes = [(240, 320), (320, 240)] * 3
    images = [{"id": 10 + i, "file_name": f"{i}.png", "height": h, "width": w} for i, (h, w) in enumerate(sizes)]
    notes = []
    for i, (height, width) in enumerate(sizes[:5]):
        for _ in range(4):
            x, y = chance.integers(0, width - 120), chance.integers(0, height - 120)
            w, h = chance.integers(8, 118, 2)
            triangle = [[float(v) for v in (x, y, x + w, y, x + w / 2, y + h)]]
            box = [float(v) for v in (x, y, w, h)]
            label = 5 if len(notes) != 7 else 9
            note = {"id": len(notes), "image_id": 10 + i, "bbox": box, "segmentation": triangle}
            notes.append({**note, "category_id": label, "area": box[2] * box[3] / 2, "iscrowd": 0})
    if not lvis:
        notes[2]["iscrowd"] = 1
    categories = [
        {"id": n, "name": name, "frequency": f} for n, name, f in ((5, "cat", "f"), (9, "dog", "r"), (12, "cow", "c"))
    ]
    if lvis:
        images = [{**image, "neg_category_ids": [12], "not_exhaustive_category_ids": []} for image in images]
    folder.mkdir(exist_ok=True)
    (folder / "0.png").touch()
    (folder / "all.json").write_text(json.dumps({"images": images, "annotations": notes, "categories": categories}))
    return DetectionImages(read_annotations(folder / "all.json")[0], folder)


def perfect(dataset: DetectionImages, *, masks: bool = True) -> list[Detections]:
    """The objects themselves as detections."""
    found = []
    for index in range(len(dataset)):
        size = dataset.size(index)
        objects = dataset.objects(index, size)
        rows = dataset.annotations.objects(index)
        shapes = [
            dataset.annotations.shape(r) for r in range(rows.start, rows.stop) if not dataset.annotations.crowd[r]
        ]
        drawn = tuple(compressed(pixels(shape, size)) for shape in shapes)
        number = int(dataset.annotations.image_ids[index])
        scores = torch.linspace(0.9, 0.5, len(objects))
        found.append(Detections(number, objects.boxes, scores, objects.labels, drawn if masks else None))
    return found


@pytest.mark.parametrize("lvis", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_itself_is_perfect(tmp_path, kind, lvis):
    dataset = data(tmp_path, lvis=lvis)
    results = coco_results(perfect(dataset), dataset.annotations.category_ids)
    measure = measured(ground_truth(dataset.annotations), results, kind=kind)
    assert tuple(measure.figures) == (LVIS_FIGURES if lvis else FIGURES)
    assert measure.figures["AP"] == 1 and measure.figures["AP75"] == 1 and measure.figures["APs"] in (1, None)
    if lvis:
        assert (measure.figures["APr"], measure.figures["APc"], measure.figures["APf"]) == (1, None, 1)
        assert measure.figures["AR300"] == 1
    classes = {one.name: (one.objects, one.precision) for one in measure.per_class}
    assert classes == {"cat": (19 - (not lvis), 1), "dog": (1, 1), "cow": (0, None)}


def precision(truth: Any, results: Any, **options: Any) -> float:
    value = measured(truth, results, **options).figures["AP"]
    assert value is not None
    return value


def test_worse_is_less(tmp_path):
    dataset = data(tmp_path)
    truth, ids = ground_truth(dataset.annotations), dataset.annotations.category_ids
    good = precision(truth, coco_results(perfect(dataset, masks=False), ids))
    moved = [Detections(d.image_id, d.boxes + 6, d.scores, d.labels) for d in perfect(dataset)]
    assert 0 < precision(truth, coco_results(moved, ids)) < 0.7 < good
    wrong = [Detections(d.image_id, d.boxes, d.scores, (d.labels + 1) % 3) for d in perfect(dataset)]
    assert precision(truth, coco_results(wrong, ids)) == 0
    assert precision(truth, []) == 0
    half = perfect(dataset)[:2]
    assert precision(truth, coco_results(half, ids)) < 1
    assert precision(truth, coco_results(half, ids), image_ids=[10, 11]) == 1


def test_lvis_asks_only_for_what_was_looked_for(tmp_path):
    dataset = data(tmp_path, lvis=True)
    truth, ids = ground_truth(dataset.annotations), dataset.annotations.category_ids
    found = perfect(dataset)
    one = Detections(
        15, torch.tensor([[0.0, 0, 50, 50]]), torch.tensor([0.99]), torch.tensor([1])
    )  # dogs: nobody looked
    extra = coco_results([one], ids)
    assert precision(truth, coco_results(found, ids) + extra) == 1
    coco = {**truth, "images": [{k: v for k, v in i.items() if "category" not in k} for i in truth["images"]]}
    assert precision(coco, coco_results(found, ids) + extra) < 1


def test_every_picture_counts_once_over_several_processes(tmp_path):
    dataset = data(tmp_path)
    whole = perfect(dataset)
    shared = [whole[0::2] + whole[:1], whole[1::2] + whole[:2], []]  # samplers repeat some to make shares equal
    together = gathered(shared)
    assert [one.image_id for one in together] == list(range(10, 16)) and together[0] is whole[0]
    assert coco_results(together, (1, 2, 3)) == coco_results(whole, (1, 2, 3))


def test_the_result_format():
    mask = torch.zeros(2, 8, 6, dtype=torch.bool)
    mask[0, 2:5, 1:4] = True
    boxes = torch.tensor([[1.0, 2, 4, 5], [0, 0, 1, 8]])
    found = Detections(7, boxes, torch.tensor([0.75, 0.5]), torch.tensor([1, 0]), rle_masks(mask))
    first, second = json.loads(json.dumps(coco_results([found], (5, 9))))
    assert (
        first["bbox"] == [1, 2, 3, 3]
        and first["category_id"] == 9
        and first["score"] == 0.75
        and first["image_id"] == 7
    )
    assert np.array_equal(pixels(first["segmentation"], (8, 6)), mask[0].numpy()) and second["category_id"] == 5


def test_what_does_not_fit_is_refused():
    truth = {"images": [{"id": 1, "height": 9, "width": 9}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1.0}
    with pytest.raises(ValueError, match="1 unknown pictures"):
        measured(truth, [{**box, "image_id": 2}])
    with pytest.raises(ValueError, match="without masks"):
        measured(truth, [box], kind="mask")
    with pytest.raises(ValueError, match="must be one of"):
        measured(truth, [box], kind="keypoint")
    with pytest.raises(ValueError, match="0 to measure on"):
        measured(truth, [], image_ids=[])
    with pytest.raises(ValueError, match="do not belong together"):
        Detections(1, torch.zeros(2, 4), torch.zeros(1), torch.zeros(2, dtype=torch.int64))
    assert measured(truth, [box]).figures["AP"] is None


def test_rare_classes_come_more_often(tmp_path):
    dataset = data(tmp_path)
    factors = repeat_factors(dataset, 0.5)  # cats are in 5 of 6 pictures, the dog in one
    assert factors.tolist() == pytest.approx([1, (0.5 / (1 / 6)) ** 0.5, 1, 1, 1, 1])
    order = detection_order(dataset, batch_size=1, threshold=0.5, by_shape=False)
    epochs = [order(seed=0, epoch=epoch) for epoch in range(300)]
    assert {len(epoch) for epoch in epochs} == {6} and epochs[3] == order(seed=0, epoch=3) != order(seed=1, epoch=3)
    counts = np.bincount(np.concatenate(epochs), minlength=6)
    assert counts[1] / counts[[0, 2, 3, 4, 5]].mean() == pytest.approx(3**0.5, rel=0.1)
    with pytest.raises(ValueError, match="threshold=0"):
        detection_order(dataset, batch_size=1, threshold=0)


def test_batches_of_one_shape(tmp_path):
    order = detection_order(data(tmp_path), batch_size=3)
    for epoch in range(5):
        drawn = order(seed=0, epoch=epoch)
        assert sorted(drawn) == list(range(6))
        assert [len({index % 2 for index in drawn[start : start + 3]}) for start in (0, 3)] == [1, 1]
    wide = np.arange(103) % 3 == 0
    many = DetectionOrder(None, wide, 103, 4)(seed=0, epoch=1)
    assert sorted(many) == list(range(103))
    mixed = [start for start in range(0, 103, 4) if len(set(wide[many[start : start + 4]])) > 1]
    assert len(mixed) <= 2 and all(start >= 96 for start in mixed)
