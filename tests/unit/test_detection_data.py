"""Files of boxes and masks: every form, every fault counted and named, and splits found where people put them."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mvitv2.data.detection.augment import LargeScaleJitter
from mvitv2.data.detection.dataset import detection_batch
from mvitv2.data.detection.open import annotation_files, is_detection, open_detection
from mvitv2.data.detection.shapes import ShapeError, compressed, pixels, polygons, run_lengths
from mvitv2.data.images import ImageError, read_image, read_size
from mvitv2.data.labelled import DataError
from mvitv2.data.samples import SampleKey, Unreadable

COCO_SMALL = Path(__file__).parents[2] / "../shared/data/coco_small"
ZOO = Path(__file__).parents[2] / "../shared/data/zoo"
SQUARE = [[10, 10, 30, 10, 30, 20, 10, 20]]


def picture(path: Path, size: tuple[int, int] = (64, 48), value: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def note(number: int, image: int, **changes: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": 7, "bbox": [10, 10, 20, 10], "iscrowd": 0, **changes}


def coco(notes: list[Any], *, images: int = 3, **changes: Any) -> dict[str, Any]:
    """A file of 64 x 48 pictures ``0.png``, ``1.png``, ... and categories with a gap in their numbers."""
    listed = [{"id": 100 + i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(images)]
    categories = [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}]
    return {"images": listed, "annotations": notes, "categories": categories, **changes}


def written(folder: Path, content: dict[str, Any], name: str = "train.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        if isinstance(image, dict) and "/" not in image.get("file_name", "/"):
            picture(folder / "train" / image["file_name"])
    (folder / name).write_text(json.dumps(content))
    return folder


def opened(folder: Path, **options: Any):
    return open_detection(folder, {"train": None}, need=("train",), **options)["train"]


def test_categories_with_gaps_crowds_and_empty_pictures(tmp_path):
    masked = {"segmentation": SQUARE}
    notes = [note(1, 102, category_id=90, **masked), note(2, 100, **masked), note(3, 100, iscrowd=1, **masked)]
    data = opened(written(tmp_path, coco(notes)))
    assert data.classes == ("cat", "dog") and data.annotations.category_ids == (7, 90)
    assert [data.told(i) for i in range(len(data))] == ["2 cat", "1 dog"] and data.counts == {"cat": 1, "dog": 1}
    image, objects, index = data[0]
    assert image.shape == (3, 48, 64) and image.dtype == torch.uint8 and index == 0
    assert objects.labels.tolist() == [0] and objects.boxes.tolist() == [[10, 10, 30, 20]]
    assert objects.masks[0][0].tolist() == [[10, 10], [30, 10], [30, 20], [10, 20]]
    assert data.notes == ("1 of 3 pictures have no object to learn from and are left out",)
    every = open_detection(tmp_path / "train.json", {"": None}, need=())[""]  # one file: nothing is filtered
    assert [every.told(i) for i in range(3)] == ["2 cat", "nothing", "1 dog"]
    assert len(every[1][1]) == 0


def test_every_form_of_a_mask_is_the_same_object(tmp_path):
    mask = pixels(SQUARE, (48, 64))
    runs = run_lengths(compressed(mask))[0]
    forms = [SQUARE, compressed(mask), {"size": [48, 64], "counts": runs}]
    notes = [note(i, 100, segmentation=form) for i, form in enumerate(forms)]
    notes += [note(9, 101, segmentation=[*SQUARE, [40, 30, 44, 30, 44, 34]])]
    data = opened(written(tmp_path, coco(notes)))
    assert mask.sum() == 200 and mask[10:20, 10:30].all()
    first = data[0][1].masks
    assert isinstance(first, torch.Tensor) and first.shape == (3, 48, 64)
    assert all(np.array_equal(one.numpy(), mask) for one in first)
    assert [len(part) for part in data[1][1].masks[0]] == [4, 3]
    assert opened(tmp_path, masks=False)[0][1].masks is None


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("no", "expected polygons"),
        ([], "expected polygons"),
        ([[1, 2, 3, 4]], "none with three corners"),
        ([[1, 2, 3, 4, 5, 6, 7]], "even count"),
        ([[1, 2, 3, 4, 5, float("nan")]], "list of numbers"),
        ([[1, 2, 3, 4, 5, True]], "list of numbers"),
        ([1, 2, 3, 4, 5, 6], "a part 1"),
        ({"counts": [1]}, "of size None"),
        ({"size": [2, 2], "counts": [1, 2]}, "3 pixels in all for 2 x 2 = 4"),
        ({"size": [2, 2], "counts": [5, -1]}, "4 pixels in all"),
        ({"size": [2, 2], "counts": "oo~"}, "letter '~'"),
        ({"size": [2, 2], "counts": "Q"}, "cut off"),
        ({"size": [2, 2], "counts": None}, "run lengths None"),
        ({"size": [3, 2], "counts": [6]}, "in a picture of 2 x 2"),
    ],
)
def test_masks_that_mean_nothing(shape, message):
    with pytest.raises(ShapeError, match=message):
        pixels(shape, (2, 2))


def test_parts_without_area_are_left_out():
    parts = polygons([[1, 1, 2, 2], SQUARE[0]])
    assert parts is not None and len(parts) == 1 and parts[0].dtype == torch.float64


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pycocotools meets a newer NumPy
def test_equal_to_cocos_own_masks():
    api = pytest.importorskip("pycocotools.mask")
    if not COCO_SMALL.is_dir():
        pytest.skip("needs coco_small of the shared data")
    content = json.loads((COCO_SMALL / "instances_val.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for one in content["annotations"][::4]:
        shape, size = one["segmentation"], sizes[one["image_id"]]
        theirs = shape if isinstance(shape, dict) else api.merge(api.frPyObjects(shape, *size))
        theirs = api.frPyObjects(theirs, *size) if isinstance(theirs["counts"], list) else theirs
        ours = pixels(shape, size)
        assert np.array_equal(ours, api.decode(theirs).astype(bool))
        assert np.array_equal(pixels(compressed(ours), size), ours)


FAULTY = {
    "record": ["none", {"id": 5, "bbox": [1, 1, 2, 2]}, {"id": 6, "image_id": 100}],
    "orphan": [note(10, 999)],
    "category": [note(11, 100, category_id=8), note(12, 100, category_id=None)],
    "box": [note(13, 100, bbox=[1, 2, 3]), note(14, 100, bbox=[1, 2, None, 4]), note(15, 100, bbox=[1, 2, 3, 1e999])],
    "empty": [note(16, 100, bbox=[1, 2, 0, 4]), note(17, 100, bbox=[1, 2, 4, -4])],
    "outside": [note(18, 100, bbox=[64, 0, 5, 5]), note(19, 100, bbox=[-9, 0, 9, 5])],
}
ODD = {
    "beyond": [note(20, 100, bbox=[40, 10, 30, 10])],
    "mask": [note(21, 101, bbox=[1, 1, 5, 5], segmentation=[[1, 2, 3]])],
    "annotation-id": [note(22, 101, bbox=[2, 2, 4, 4]), note(22, 101, bbox=[2, 2, 9, 4])],
    "twice": [note(23, 102), note(24, 102)],
}


def test_every_fault_is_counted_and_named(tmp_path):
    good = note(1, 100, segmentation=SQUARE)
    notes = [good, *(one for group in (FAULTY | ODD).values() for one in group)]
    images = [
        *coco([])["images"],
        {"id": 100, "file_name": "again.png", "width": 64, "height": 48},
        {"id": 200, "file_name": "../escape.png", "width": 64, "height": 48},
        {"id": 201, "file_name": "/etc/escape.png"},
        {"id": 202, "file_name": "0.png", "width": 64, "height": 48},
        {"file_name": "5.png"},
        "nothing",
    ]
    data = opened(written(tmp_path, coco(notes, images=3) | {"images": images}), masks=False)
    faults = data.annotations.faults
    expected = {kind: len(group) for kind, group in FAULTY.items()} | dict.fromkeys(ODD, 1)
    expected |= {"image": 2, "image-id": 1, "image-path": 2, "file": 1}
    assert dict(faults.counts) == expected
    assert faults.examples["outside"][0] == "annotation 18 of 0.png: x 64, y 0, 5 x 5 in 64 x 48"
    assert faults.examples["image-path"][0].startswith("picture 200: ../escape.png leads out")
    lost = sum(map(len, FAULTY.values()))
    assert len(data.annotations.labels) == len(notes) - lost  # what is odd is kept
    assert any(text.startswith("2 boxes without area (left out), first annotation 16 of 0.png") for text in data.notes)
    assert data[0][1].boxes.max() <= 64  # reaching beyond is cut
    with pytest.raises(DataError, match="none of its objects has a mask"):
        opened(written(tmp_path / "b", coco([note(1, 100)])), masks=True)


def test_objects_without_a_mask_are_told(tmp_path):
    notes = [note(1, 100, segmentation=SQUARE), note(2, 100, bbox=[2, 2, 9, 9]), note(3, 101)]
    data = opened(written(tmp_path, coco(notes)), masks=True)
    assert len(data) == 1 and len(data[0][1]) == 1
    assert data.notes[0] == "2 objects have no mask and are left out where masks are trained"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not COCO's form: expected lists images, annotations, categories, found list"),
        ('{"images": []}', r"found \['images'\]"),
        (json.dumps(coco([], categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}])), "share the id 1"),
        (json.dumps(coco([], categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}])), "share the name a"),
        (json.dumps(coco([], categories=[{"id": 1}])), "1 of 1 categories have no id and name"),
        (json.dumps(coco([])), r"none of its pictures is there \(0.png, ...\); looked in"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=message):
        open_detection({"train": tmp_path / "x.json"}, {"train": None}, need=("train",))


def test_pictures_that_cannot_be_read_stay_in_the_count(tmp_path):
    folder = written(tmp_path, coco([note(i, 100 + i) for i in range(4)], images=4))
    (folder / "train/0.png").unlink()
    (folder / "train/1.png").write_bytes(b"")
    picture(folder / "train/2.png", (48, 64))
    with pytest.raises(ImageError, match="does not exist"):
        opened(folder)[0]
    data = opened(folder, on_error="skip")
    batch = detection_batch([data[SampleKey(i, 1)] for i in range(4)])
    assert [one.index for one in batch.unreadable] == [0, 1, 2] and batch.num_samples == 1 and batch.indices == [3]
    assert "annotations are for 64 x 48; they were made without turning it upright" in batch.unreadable[2].reason
    assert isinstance(data[0], Unreadable) and data[0].path.endswith("0.png")
    saved = batch.to(torch.device("cpu")).saved()
    assert saved["boxes"][0].tolist() == [[10, 10, 30, 20]] and batch.finite()


def test_the_seed_of_a_sample_decides(tmp_path):
    folder = written(tmp_path, coco([note(1, 100, segmentation=SQUARE)]))
    data = open_detection(folder, {"train": LargeScaleJitter(size=64)}, need=("train",))["train"]
    data = pickle.loads(pickle.dumps(data))
    first, again = data[SampleKey(0, 3)], data[SampleKey(0, 3)]
    assert not isinstance(first, Unreadable) and not isinstance(again, Unreadable)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1].boxes, again[1].boxes)
    shapes = {
        tuple(one[1].boxes.flatten().tolist())
        for seed in range(6)
        if not isinstance(one := data[SampleKey(0, seed)], Unreadable)
    }
    assert len(shapes) > 2


def test_lvis(tmp_path):
    content = coco([note(1, 100)])
    for image in content["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train/{image.pop('file_name')}"
        image |= {"neg_category_ids": [90], "not_exhaustive_category_ids": []}
    for category, frequency in zip(content["categories"], "rf", strict=True):
        category["frequency"] = frequency
    for i in range(3):
        picture(tmp_path / "train" / f"{i}.png")
    (tmp_path / "lvis_v1_train.json").write_text(json.dumps(content))
    data = opened(tmp_path)
    assert data.annotations.extra["frequency"] == {"dog": "r", "cat": "f"}
    assert data.annotations.extra["neg_category_ids"][100] == (90,)
    assert data[0][1].labels.tolist() == [0]


def lines(path: Path, *records: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in records) + "\n")


def test_a_list_of_ones_own_boxes(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "photos" / name)
    record = {"file": "photos/a.png", "boxes": [[1, 2, 30, 40], [5, 5, 9, 9]], "labels": ["dog", "cat"]}
    masks = [[[1, 2, 30, 2, 30, 40]], None]
    lines(tmp_path / "train.jsonl", {**record, "masks": masks}, "", {"file": "photos/b.png", "boxes": [], "labels": []})
    lines(tmp_path / "val.jsonl", {"file": "photos/c.png", "boxes": [[0, 0, 5, 5]], "labels": ["dog"]})
    assert list(annotation_files(tmp_path)) == ["train", "val"]
    splits = open_detection(tmp_path, {"train": None, "val": None}, masks=False)
    image, objects, _ = splits["train"][0]
    assert splits["train"].classes == ("cat", "dog") == splits["val"].classes
    assert image.shape == (3, 48, 64) and objects.labels.tolist() == [1, 0]
    assert objects.boxes.tolist() == [[1, 2, 30, 40], [5, 5, 9, 9]]
    assert splits["train"].size(0) == (48, 64)  # read from the file
    assert splits["val"][0][1].labels.tolist() == [1] and len(splits["train"]) == 1
    assert len(opened(tmp_path, masks=True)[0][1]) == 1


def test_lines_that_cannot_be_used(tmp_path):
    picture(tmp_path / "a.png")
    good = {"file": "a.png", "boxes": [[0, 0, 5, 5]], "labels": [1], "height": 48, "width": 64}
    bad = [
        "{",
        {"boxes": []},
        {**good, "labels": []},
        {**good, "masks": [None, None]},
        {**good, "box": 1},
        {**good, "boxes": 3},
        {**good, "boxes": [[5, 5, 0, 0]]},
        {**good, "labels": ["9"]},
        {**good, "boxes": [["0", 0, 5, 5]]},
    ]
    lines(tmp_path / "train.jsonl", good, *bad)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    data = opened(tmp_path)
    assert data.annotations.faults.counts == {"image": 6, "file": 3, "empty": 1, "category": 1, "box": 1}
    reasons = data.annotations.faults.examples["image"]
    for place, text in enumerate(["line 2: is not JSON", 'line 3: has no "file"', "line 4: has 1 boxes, 0 labels"]):
        assert reasons[place].startswith(text)
    assert "unknown fields box" in reasons[4] and len(data) == 1 and data[0][1].labels.tolist() == [1]
    lines(tmp_path / "train.jsonl", "{", good)
    with pytest.raises(DataError, match="has no annotations of boxes"):  # the first line tells what a file is
        opened(tmp_path)


@pytest.mark.parametrize(
    ("annotations", "photos"),
    [
        ("annotations/instances_{}2017.json", "{}2017"),
        ("instances_{}.json", "{}"),
        ("{}.json", "{}"),
        ("{}/_annotations.coco.json", "{}"),
        ("annotations/{}.json", "images"),
        ("annotations/{}.json", "images/{}"),
        ("{}.json", "images/{}2014"),
        ("lvis_v1_{}.json", "{}2017"),
    ],
)
def test_where_people_put_their_data(tmp_path, annotations, photos):
    for split in ("train", "val"):
        place = tmp_path / annotations.format(split)
        place.parent.mkdir(parents=True, exist_ok=True)
        content = coco([note(1, 100)])
        place.write_text(json.dumps(content))
        for image in content["images"]:
            picture(tmp_path / photos.format(split) / image["file_name"])
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "annotations" / "captions_train2017.json").write_text(json.dumps(coco([])))
    (tmp_path / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(coco([])))
    splits = open_detection(tmp_path, {"train": None, "val": None})
    assert list(splits) == ["train", "val"] and is_detection(tmp_path)
    assert [len(splits[split]) for split in splits] == [1, 3]
    assert splits["val"][0][0].shape == (3, 48, 64)


def test_what_is_no_data_of_boxes(tmp_path):
    picture(tmp_path / "train" / "cat" / "0.png")
    assert not is_detection(tmp_path) and not is_detection("digits") and not is_detection(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no annotations of boxes; expected .*instances_train.json"):
        annotation_files(tmp_path)
    lines(tmp_path / "train.jsonl", {"file": "train/cat/0.png", "label": "cat"})
    assert not is_detection(tmp_path)
    written(tmp_path, coco([note(1, 100)]))
    assert is_detection(f"{tmp_path}/train.json")
    with pytest.raises(DataError, match="has no boxes of val; it has train"):
        open_detection(tmp_path, {"train": None})
    written(tmp_path, coco([note(1, 100)]), "my_train.json")
    with pytest.raises(DataError, match=r"my_train.json and train.json, both of which list the train split"):
        annotation_files(tmp_path)


def test_a_validation_split_with_other_categories(tmp_path):
    written(tmp_path, coco([note(1, 100)]))
    other = coco(
        [note(1, 100, category_id=1), note(2, 100, category_id=2)],
        categories=[{"id": 1, "name": "dog"}, {"id": 2, "name": "cow"}],
    )
    written(tmp_path, other, "val.json")
    val = open_detection(tmp_path, {"train": None, "val": None}, data_root=tmp_path / "train")["val"]
    assert val.classes == ("cat", "dog") and val[0][1].labels.tolist() == [1]
    assert val.annotations.faults.counts == {"category": 1} and val.annotations.category_ids == (-1, 1)


def test_the_size_of_a_picture_from_its_header(tmp_path):
    if not ZOO.is_dir():
        pytest.skip("needs the zoo of the shared data")
    checked = 0
    for path in sorted([*(ZOO / "image_gen").iterdir(), *(ZOO / "image_pillow").iterdir()]):
        try:
            size = read_size(path)
        except ImageError:
            with pytest.raises(ImageError):
                read_image(path)
            continue
        try:
            image = read_image(path)
        except ImageError:
            continue  # damaged behind its header
        assert (image.height, image.width) == size, path
        checked += 1
    assert checked > 60


@pytest.mark.slow
def test_the_small_subset_of_coco():
    if not COCO_SMALL.is_dir():
        pytest.skip("needs coco_small of the shared data")
    splits = open_detection(COCO_SMALL, {"train": None, "val": None})
    assert [len(splits[split].annotations) for split in splits] == [82, 73] and len(splits["train"].classes) == 80
    assert sum(len(data.annotations.labels) for data in splits.values()) == 746 + 631
    for data in splits.values():
        for index in range(len(data)):
            image, objects, _ = data[index]
            inside = objects.boxes <= torch.tensor(image.shape[1:]).flip(0).repeat(2)
            assert inside.all() and (objects.boxes >= 0).all()
