"""Folders of classes: what works without configuration, and what each mistake is told."""

import gc
import json
import os
import pickle
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mvitv2.data.augment import ShiftTransform
from mvitv2.data.classes import class_names
from mvitv2.data.folder import ImageFolder
from mvitv2.data.images import ImageError
from mvitv2.data.labelled import DataError
from mvitv2.data.names import PackedNames
from mvitv2.data.open import open_splits
from mvitv2.data.samples import SampleKey, Unreadable, collate
from mvitv2.data.splits import find_splits
from mvitv2.data.transforms import EvalTransform
from mvitv2.preprocessing import DIGITS
from mvitv2.train.order import order

TRANSFORM = EvalTransform(DIGITS)


def save(*paths: Path, colour: int = 0) -> None:
    """A small picture at each path."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (colour, 0, 0)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two splits of two classes."""
    for split, number in (("train", 3), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            save(*(tmp_path / split / name / f"{i}.png" for i in range(number)), colour=100 * label)
    return tmp_path


# the data set


def test_train_and_val_work_without_configuration(root):
    splits = open_splits(root, {"train": TRANSFORM, "val": TRANSFORM})
    assert list(splits) == ["train", "val"]
    assert splits["train"].classes == splits["val"].classes == ("cat", "dog")
    assert splits["train"].counts == {"cat": 3, "dog": 3}
    image, label = splits["val"][3]
    assert image.shape == (3, 32, 32) and label == 1
    assert splits["val"].path(3) == root / "val" / "dog" / "1.png"


@pytest.mark.parametrize("folder", ["valid", "validation", "Val", "VALIDATION"])
def test_other_names_of_the_same_split(root, folder):
    (root / "val").rename(root / "tmp").rename(root / folder)
    (root / "train").rename(root / "tmp").rename(root / "Training")
    assert {split: path.name for split, path in find_splits(root).items()} == {"train": "Training", "val": folder}


def test_a_class_called_train_is_no_split(tmp_path):
    save(*(tmp_path / name / "0.png" for name in ("bus", "car", "train")))
    assert find_splits(tmp_path) == {}
    assert ImageFolder(tmp_path).classes == ("bus", "car", "train")


def test_classes_are_sorted_as_torchvision_does(tmp_path):
    save(*(tmp_path / name / "0.png" for name in ("10", "2", "B", "a")))
    folder = ImageFolder(tmp_path)
    datasets = pytest.importorskip("torchvision.datasets", exc_type=ImportError)
    assert list(folder.classes) == datasets.ImageFolder(tmp_path).classes == ["10", "2", "B", "a"]


def test_nested_folders_hidden_files_and_other_files(tmp_path):
    save(tmp_path / "cat" / "a" / "deep" / "1.JPEG", tmp_path / "cat" / "0.png", tmp_path / "dog" / "0.png")
    save(tmp_path / ".hidden" / "0.png", tmp_path / "cat" / "._0.png", tmp_path / "__MACOSX" / "0.png")
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / "list.csv").write_text("x")
    folder = ImageFolder(tmp_path)
    assert [str(folder.path(i).relative_to(tmp_path)) for i in range(len(folder))] == [
        "cat/0.png",
        "cat/a/deep/1.JPEG",
        "dog/0.png",
    ]
    assert folder.ignored == Counter({".txt": 1})


def test_every_file_if_asked_for(tmp_path):
    save(tmp_path / "cat" / "0.png")
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / "noname")
    assert len(ImageFolder(tmp_path, suffixes=None)) == 1


def test_no_transform_gives_the_picture(root):
    image, _ = ImageFolder(root / "train")[0]
    assert isinstance(image, Image.Image) and image.mode == "RGB"


def test_indices(root):
    folder = ImageFolder(root / "train", TRANSFORM)
    assert folder[-1][1] == folder[np.int64(5)][1] == 1  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="index 6 of 6 files"):
        folder[6]


def test_packed_names():
    given = ["a", "", "ü/猫 x.png", "\udcff.png"]
    packed = PackedNames(iter(given))
    assert [packed[i] for i in range(4)] == given and len(packed) == 4
    assert len(PackedNames(iter([]))) == 0


def test_a_key_with_a_seed_is_repeatable_in_any_worker(root):
    folder = ImageFolder(root / "train", ShiftTransform(DIGITS, 8))
    (root / "train" / "cat" / "0.png").write_bytes(_noise())
    first = folder[SampleKey(0, 11)][0]
    assert torch.equal(first, pickle.loads(pickle.dumps(folder))[SampleKey(0, 11)][0])
    assert any(not torch.equal(first, folder[SampleKey(0, seed)][0]) for seed in range(5))
    keys = [SampleKey(index, 100 + index) for index in range(6)]
    alone = torch.cat([b.images for b in DataLoader(folder, 2, sampler=keys, collate_fn=collate)])
    spread = torch.cat([b.images for b in DataLoader(folder, 3, sampler=keys, collate_fn=collate, num_workers=2)])
    assert torch.equal(alone, spread)


def _noise() -> bytes:
    stream = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_the_order_of_an_epoch_is_that_of_the_sampler(root):
    folder = ImageFolder(root / "train")
    assert folder.order(seed=3, epoch=1) == order(6, seed=3, epoch=1) != folder.order(seed=3, epoch=2)


# unreadable files


def test_an_unreadable_file_raises_with_its_name(root):
    (root / "train" / "cat" / "1.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"cat/1\.png: is empty"):
        ImageFolder(root / "train", TRANSFORM)[1]


def test_it_raises_as_itself_from_a_worker(root):
    (root / "train" / "cat" / "1.png").write_bytes(b"")
    loader = DataLoader(ImageFolder(root / "train", TRANSFORM), 2, collate_fn=collate, num_workers=1)
    with pytest.raises(ImageError, match=r"cat/1\.png: is empty"):
        list(loader)
    gc.collect()  # the loader's worker ends here, not in the middle of another test


@pytest.mark.parametrize("num_workers", [0, 1])
def test_skipped_files_are_counted_and_named_and_never_replaced(root, num_workers):
    (root / "train" / "cat" / "1.png").write_bytes(b"")
    (root / "train" / "dog" / "0.png").write_text("<html>")
    folder = ImageFolder(root / "train", TRANSFORM, on_error="skip")
    batches = list(DataLoader(folder, 4, collate_fn=collate, num_workers=num_workers))
    assert [len(batch.images) for batch in batches] == [2, 2]
    assert batches[0].labels.tolist() == [0, 0]
    missing = [item for batch in batches for item in batch.unreadable]
    assert [item.index for item in missing] == [1, 3]
    assert missing[0].path.endswith("cat/1.png") and "is empty" in missing[0].reason
    assert "HTML" in missing[1].reason


def test_a_batch_with_nothing_in_it():
    batch = collate([Unreadable(0, "a", "is empty")])
    assert len(batch.images) == len(batch.labels) == 0 and batch.labels.dtype == torch.int64


@pytest.mark.parametrize("num_threads", [1, 3])
def test_scan_reports_every_unreadable_file(root, num_threads):
    (root / "train" / "cat" / "1.png").write_bytes(b"")
    (root / "train" / "dog" / "2.png").write_bytes(b"\x89PNG")
    scan = ImageFolder(root / "train").scan(num_threads=num_threads)
    assert scan.total == 6
    assert [(item.index, Path(item.path).name) for item in scan.unreadable] == [(1, "1.png"), (5, "2.png")]


def test_an_unknown_policy(root):
    with pytest.raises(ValueError, match=r"on_error='ignore' must be one of \['raise', 'skip'\]"):
        ImageFolder(root, on_error="ignore")


# mistakes in the layout


def test_a_missing_root_suggests_its_neighbours(root):
    with pytest.raises(DataError, match=r"trian does not exist \(did you mean 'train'\?\)"):
        ImageFolder(root / "trian")


def test_a_file_is_no_folder(root):
    with pytest.raises(DataError, match="cannot be listed"):
        ImageFolder(root / "train" / "cat" / "0.png")


def test_a_misnamed_split(root):
    (root / "train").rename(root / "trian")
    with pytest.raises(DataError) as caught:
        open_splits(root, {"train": None, "val": None})
    message = str(caught.value)
    assert f"looked for {root / 'train'}" in message
    assert "found trian, val" in message and "'trian' looks like 'train': rename it" in message


def test_class_folders_without_splits(tmp_path):
    save(tmp_path / "cat" / "0.png", tmp_path / "dog" / "0.png")
    with pytest.raises(DataError, match=r"found cat, dog; put these class folders into .*train"):
        open_splits(tmp_path, {"train": None, "val": None})


def test_no_validation_split(root):
    (root / "val").rename(root / "other")
    with pytest.raises(DataError, match=r"looked for .*val .* found other, train; make it: .*val/CLASS/image\.jpg"):
        open_splits(root, {"train": None, "val": None})
    assert list(open_splits(root, {"train": None}, need=("train",))) == ["train"]


def test_a_flat_validation_folder(root):
    for path in sorted((root / "val").glob("*/*")):
        path.rename(root / "val" / f"{path.parent.name}_{path.name}")
    for path in (root / "val" / "cat", root / "val" / "dog"):
        path.rmdir()
    with pytest.raises(DataError, match=r"val holds no class folders; sort its images into one folder per class"):
        open_splits(root, {"train": None, "val": None})
    with pytest.raises(DataError, match=r"no class folders \(4 images directly in it\)"):
        ImageFolder(root / "val")


def test_two_folders_for_one_split(root):
    save(root / "validation" / "cat" / "0.png")
    with pytest.raises(DataError, match="val and validation, both of which name the val split"):
        find_splits(root)


def test_empty_class_folders_are_listed(root):
    (root / "train" / "bird").mkdir()
    (root / "train" / "fish").mkdir()
    (root / "train" / "fish" / "a.txt").write_text("x")
    with pytest.raises(
        DataError, match=r"2 of 4 class folders of .* hold no images: bird, fish; .* 6 images and 1 other"
    ):
        ImageFolder(root / "train")


def test_no_images_at_all(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.npy").write_bytes(b"x")
    with pytest.raises(DataError, match=r"below .* are 0 images and 2 other files \(2 \.npy\)"):
        ImageFolder(tmp_path)


def test_classes_that_differ_between_splits_are_listed(root):
    (root / "val" / "dog").rename(root / "val" / "dogs")
    save(root / "train" / "bird" / "0.png")
    with pytest.raises(DataError) as caught:
        open_splits(root, {"train": None, "val": None})
    message = str(caught.value)
    assert "2 missing: bird, dog" in message and "1 unknown: dogs" in message and "the 3 the model" in message


def test_long_lists_are_cut(root):
    save(*(root / "train" / f"class{i}" / "0.png" for i in range(30)))
    with pytest.raises(DataError, match=r"30 missing: class0, .*class7, \.\.\. \(30 in all\)"):
        open_splits(root, {"train": None, "val": None})


def test_a_class_folder_that_cannot_be_listed(root, monkeypatch):
    def refuse(path, scandir=os.scandir):
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError, match=r"dog cannot be listed \(Permission denied\); 1 such folders"):
        ImageFolder(root / "train")


# names of classes

IDS = ("n01440764", "n01443537")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"1": ["n01443537", "goldfish"], "0": ["n01440764", "tench"]}),
        json.dumps({"n01440764": "tench", "n01443537": "goldfish", "n1": "more"}),
        json.dumps([["n01440764", "tench"], ["n01443537", "goldfish"]]),
        "index\twnid\tname\tdefinition\n0\tn01440764\ttench\tx\n1\tn01443537\tgoldfish\ty\n",
        'wnid,name\nn01440764,tench\nn01443537,"goldfish"\n',
        "n01440764 tench\nn01443537 goldfish\n",
        "\ufeffn01440764\ttench\r\n\r\nn01443537\tgoldfish\r\n",
    ],
)
def test_class_names_from_files_people_have(tmp_path, text):
    (path := tmp_path / "names").write_text(text, encoding="utf-8")
    assert class_names(path, IDS) == ("tench", "goldfish")


def test_names_with_commas_and_spaces(tmp_path):
    (path := tmp_path / "synset_words.txt").write_text("n01440764 tench, Tinca tinca\n")
    assert class_names(path, IDS[:1]) == ("tench, Tinca tinca",)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("n01440764 tench\n", "lacks 1 of these: n01443537"),
        ("{broken", "not valid JSON"),
        ('{"0": [1, 2, 3]}', "expected"),
        ("[1, 2]", "expected"),
    ],
)
def test_class_names_that_cannot_be_used(tmp_path, text, expected):
    (path := tmp_path / "names").write_text(text)
    with pytest.raises(DataError, match=expected):
        class_names(path, IDS)


def test_no_file_of_class_names(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        class_names(tmp_path / "none", IDS)


def test_imagenet_layout(tmp_path):
    save(*(tmp_path / split / wnid / f"{wnid}_1.JPEG" for split in ("train", "val") for wnid in IDS))
    (names_file := tmp_path / "LOC_synset_mapping.txt").write_text("n01440764 tench\nn01443537 goldfish\n")
    named = class_names(names_file, ImageFolder(tmp_path / "train").classes)
    splits = open_splits(tmp_path, {"train": None, "val": None}, class_names=named)
    assert splits["val"].class_names == ("tench", "goldfish") and splits["val"].classes == IDS
    with pytest.raises(DataError, match="1 class names for 2 classes"):
        ImageFolder(tmp_path / "train", class_names=["tench"])
