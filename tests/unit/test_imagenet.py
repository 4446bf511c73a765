"""ImageNet as it is handed around: class folders, a flat validation folder and the files that say what is in it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvitv2.data.labelled import DataError
from mvitv2.data.open import open_dataset, open_splits
from mvitv2.data.truth import truth_for

IDS = ("n01440764", "n01443537", "n01484850")
VAL = [f"ILSVRC2012_val_0000000{i}" for i in range(1, 5)]
LABELS = (2, 0, 1, 0)


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path, "JPEG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``train`` with class folders, ``val`` without."""
    for wnid in IDS:
        save(tmp_path / "train" / wnid / f"{wnid}_1.JPEG")
    for name in VAL:
        save(tmp_path / "val" / f"{name}.JPEG")
    return tmp_path


def labels_of_val(root: Path) -> list[int]:
    splits = open_splits(root, {"train": None, "val": None})
    val = splits["val"]
    assert val.classes == splits["train"].classes == IDS
    found = {val.path(i).name: int(label) for i, label in enumerate(val.labels)}
    return [found[f"{name}.JPEG"] for name in VAL]


IN_ORDER = "".join(f"{IDS[label]}\n" for label in LABELS)
KAGGLE = "ImageId,PredictionString\n" + "".join(
    f"{name},{IDS[label]} 85 1 499 272 {IDS[label]} 3 4 5 6\n"
    for name, label in reversed(list(zip(VAL, LABELS, strict=True)))
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("val.txt", "".join(f"{name}.JPEG {label}\n" for name, label in zip(VAL, LABELS, strict=True))),
        ("val/val.txt", "".join(f"{name}.JPEG {IDS[label]}\n" for name, label in zip(VAL, LABELS, strict=True))),
        ("val.csv", "file,label\n" + "".join(f"{n}.JPEG,{IDS[label]}\n" for n, label in zip(VAL, LABELS, strict=True))),
        ("imagenet_2012_validation_synset_labels.txt", IN_ORDER),
        ("val.txt", IN_ORDER),
        ("LOC_val_solution.csv", KAGGLE),
        ("val/ground_truth.txt", "".join(f"{label}\n" for label in LABELS)),
    ],
)
def test_a_flat_validation_folder_and_its_labels(root, name, text):
    (root / name).write_text(text)
    assert labels_of_val(root) == list(LABELS)


def test_kaggles_archive(root):
    inner = root / "ILSVRC" / "Data" / "CLS-LOC"
    inner.mkdir(parents=True)
    for split in ("train", "val"):
        (root / split).rename(inner / split)
    (root / "LOC_val_solution.csv").write_text(KAGGLE)
    (root / "LOC_synset_mapping.txt").write_text("n01440764 tench\nn01443537 goldfish\nn01484850 great white shark\n")
    assert labels_of_val(root) == list(LABELS)
    assert open_dataset(root, split="train").class_names == ("tench", "goldfish", "great white shark")


def test_tiny_imagenet(tmp_path):
    for wnid in IDS:
        save(tmp_path / "train" / wnid / "images" / f"{wnid}_0.JPEG")
        (tmp_path / "train" / wnid / f"{wnid}_boxes.txt").write_text("x 0 0 1 1\n")
    for i in range(4):
        save(tmp_path / "val" / "images" / f"val_{i}.JPEG")
    rows = "".join(f"val_{i}.JPEG\t{IDS[label]}\t0\t32\t44\t62\n" for i, label in enumerate(LABELS))
    (tmp_path / "val" / "val_annotations.txt").write_text(rows)
    splits = open_splits(tmp_path, {"train": None, "val": None})
    assert len(splits["train"]) == 3 and splits["val"].labels.tolist() == list(LABELS)


def test_the_numbers_of_the_development_kit_need_its_table(root):
    scipy_io = pytest.importorskip("scipy.io", reason="scipy comes with scikit-learn (extra `train`)")
    kit = root / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    order = (1, 2, 0)  # the kit's number i + 1 is the class order[i]
    numbers = "".join(f"{order.index(label) + 1}\n" for label in LABELS)
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text(numbers)
    with pytest.raises(DataError, match=r"order of the development kit .* put meta\.mat"):
        labels_of_val(root)
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)]
    rows = [(i + 1, IDS[place], 0) for i, place in enumerate(order)] + [(4, "n00000001", 3)]
    scipy_io.savemat(kit / "meta.mat", {"synsets": np.array(rows, dtype=fields)})
    assert labels_of_val(root) == list(LABELS)
    (kit / "meta.mat").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"meta\.mat: is not the development kit's table"):
        labels_of_val(root)


def test_other_numbers_of_labels_than_pictures(root):
    (root / "val" / "val.txt").write_text(IN_ORDER + "n01440764\n")
    with pytest.raises(DataError, match=r"has 5 labels, in the order of the files, but .*val has 4 pictures"):
        labels_of_val(root)


def test_pictures_without_a_label_are_listed(root):
    (root / "val" / "val.txt").write_text(f"{VAL[0]}.JPEG 0\n{VAL[1]}.JPEG 1\n")
    with pytest.raises(DataError, match=rf"no label for 2 of 4 pictures of .*: {VAL[2]}\.JPEG, {VAL[3]}\.JPEG"):
        labels_of_val(root)


def test_words_are_no_wordnet_ids(root):
    (root / "val").rename(root / "test")
    assert truth_for(root / "test", "test") is None
    (root / "imagenet_class_index.json").write_text('{"0": ["n01440764", "tench"]}')
    with pytest.raises(DataError, match="lacks 2 of these"):
        open_dataset(root, split="train")
    (root / "train" / IDS[0]).rename(root / "train" / "fish")
    assert open_dataset(root, split="train").class_names == ("fish", *IDS[1:])


def test_names_from_a_file_of_ones_own(root):
    (path := root / "mine.tsv").write_text("wnid\tname\n" + "".join(f"{wnid}\tname of {wnid}\n" for wnid in IDS))
    assert open_dataset(root, split="train", class_names=path).class_names[0] == "name of n01440764"
