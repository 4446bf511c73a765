"""Lists of files and labels: the forms people have, and what each mistake in one is told."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mvitv2.data.classes import class_list, numbered
from mvitv2.data.labelled import DataError
from mvitv2.data.listed import ListReading, open_list
from mvitv2.data.open import open_dataset, open_splits
from mvitv2.data.samples import Unreadable
from mvitv2.data.tables import Columns, read_rows

NAMES = ("a.png", "b.png", "sub/c d.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pictures, told apart by their red."""
    for place, name in enumerate(NAMES):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (place, 0, 0)).save(path)
    return tmp_path


def written(folder: Path, text: str, name: str = "list.csv") -> Path:
    """A list, as a file."""
    (path := folder / name).write_bytes(text.encode())
    return path


FORMS = [
    ("list.csv", "a.png,cat\nb.png,dog\nsub/c d.png,cat\n"),
    ("list.csv", "file,label\na.png,cat\nb.png,dog\nsub/c d.png,cat\n"),
    ("list.csv", "\ufefffile,label\r\na.png,cat\r\n\r\nb.png,dog\r\n sub/c d.png , cat \r\n"),
    ("list.csv", 'width,Filename,Class\n8,"a.png","cat"\n8,b.png,dog\n8,"sub/c d.png",cat\n'),
    ("list.csv", "image;breed\na.png;cat\nb.png;dog\nsub/c d.png;cat\n"),
    ("list.csv", "a.png cat\nb.png dog\nsub/c d.png cat\n"),
    ("list.tsv", "path\ttarget\na.png\tcat\nb.png\tdog\nsub/c d.png\tcat\n"),
    ("list.txt", "./a.png cat\nsub/../b.png   dog\nsub/c d.png\tcat\n".replace("\t", " ")),
    ("list.jsonl", '{"file_name": "a.png", "label": "cat"}\n\n{"label": "dog", "file_name": "b.png"}\n'
                   '{"file_name": "sub/c d.png", "label": "cat", "box": [1]}\n'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), FORMS)
def test_the_forms_people_have(root, name, text):
    images = open_list(written(root, text, name))
    assert images.classes == ("cat", "dog") and images.labels.tolist() == [0, 1, 0]
    assert [images[i][0].getpixel((0, 0))[0] for i in range(3)] == [0, 1, 2]
    assert images.path(2).resolve() == root / "sub" / "c d.png"


def test_the_interface_of_a_folder(root):
    path = written(root, "file,label\na.png,cat\nnone.png,dog\n")
    images = open_list(path, lambda image: torch.zeros(1), on_error="skip")
    assert len(images) == 2 and images.counts == {"cat": 1, "dog": 1}
    assert images[0][1] == 0 and str(images) == str(path)
    missing = images[1]
    assert isinstance(missing, Unreadable) and "does not exist" in missing.reason
    assert images.stamp(0) != images.stamp(1) and images.stamp(1).endswith("missing")


# labels


def test_numbers_are_names_in_their_order_where_no_classes_are_known():
    labels, classes, unknown = numbered(["10", "2", "2", "30"], None)
    assert classes == ("2", "10", "30") and labels.tolist() == [1, 0, 0, 2] and not unknown


@pytest.mark.parametrize("text", ["1", "1.0", "dog"])
def test_a_label_is_the_name_of_a_class_or_its_index(text):
    assert numbered([text], ["cat", "dog"])[0].tolist() == [1]


def test_a_name_comes_before_an_index():
    assert numbered(["1"], ["1", "0"])[0].tolist() == [0]
    assert numbered(["1"], ["1", "0"], indices=True)[0].tolist() == [1]


def test_indices_without_classes_leave_no_gap():
    labels, classes, _ = numbered(["3", "0"], None, indices=True)
    assert classes == ("0", "1", "2", "3") and labels.tolist() == [3, 0]


def test_unknown_labels_are_listed_with_their_lines(root):
    path = written(root, "file,label\na.png,cat\nb.png,dgo\nsub/c d.png,7\n")
    with pytest.raises(DataError) as caught:
        open_list(path, classes=["cat", "dog"])
    message = str(caught.value)
    assert "2 unknown labels: 7, dgo" in message and "number from 0 to 1" in message and "lines 3, 4" in message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "dog\ncat\n"),
        ("classes.json", '["dog", "cat"]'),
        ("classes.json", '{"1": "cat", "0": "dog"}'),
        ("classes.json", '{"cat": 1, "dog": 0}'),
        ("classes.csv", "index,name\n1,cat\n0,dog\n"),
    ],
)
def test_a_file_of_classes_gives_the_order(root, name, text):
    written(root, text, name)
    assert open_list(written(root, "a.png,cat\nb.png,0\n")).labels.tolist() == [1, 0]
    (root / name).rename(root / f"my_{name}")
    reading = ListReading(classes_file=root / f"my_{name}")
    assert open_list(written(root, "a.png,cat\nb.png,0\n"), reading=reading).classes == ("dog", "cat")


def test_ids_and_names_of_classes(tmp_path):
    table = written(tmp_path, "index\twnid\tname\n0\tn1\ttench\n1\tn2\tshark\n", "c.tsv")
    assert class_list(table) == (("n1", "n2"), ("tench", "shark"))
    keras = written(tmp_path, json.dumps({"1": ["n2", "shark"], "0": ["n1", "tench"]}), "c.json")
    assert class_list(keras) == (("n1", "n2"), ("tench", "shark"))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("c.txt", "\n", "lists no classes"),
        ("c.json", '{"0": "a", "2": "b"}', "not numbered 0 to 1"),
        ("c.json", '{"a": "b"}', "expected"),
        ("c.json", "[1]", "expected"),
        ("c.csv", "a,b\n1,2\n", "expected a header with 'index' and 'name'"),
    ],
)
def test_files_of_classes_that_cannot_be_used(tmp_path, name, text, expected):
    with pytest.raises(DataError, match=expected):
        class_list(written(tmp_path, text, name))


def test_a_class_listed_twice():
    with pytest.raises(DataError, match="1 classes are listed twice: cat"):
        numbered(["cat"], ["cat", "cat"])


# columns


def test_columns_of_other_names(root):
    path = written(root, "what,where,how\ncat,a.png,x\n")
    with pytest.raises(
        DataError, match=r"which of its columns what, where, how is meant cannot be told; say file_column and label_col"
    ):
        read_rows(path)
    rows = read_rows(path, Columns(file="where", label="WHAT"))
    assert rows.files == ["a.png"] and rows.labels == ["cat"]
    with pytest.raises(DataError, match=r"has no column 'wher' \(did you mean 'where'\?\)"):
        read_rows(path, Columns(file="wher"))


def test_a_named_column_in_a_list_without_a_header(root):
    with pytest.raises(DataError, match="has no header"):
        read_rows(written(root, "a.png,cat\n"), Columns(label="class"))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("l.csv", "", "has no rows"),
        ("l.csv", "file,label\n", "has no rows"),
        ("l.csv", "a.png\n", "expected a file and a label"),
        ("l.csv", "cat,a.png\n", "expected a file and a label"),
        ("l.csv", "file,label\na.png,\nb.png\nc.png,x\n", "2 of 3 lines lack a file or a label: 2, 3"),
        ("l.csv", 'a.png,"cat\nb.png,dog\n', "is no valid table"),
        ("l.jsonl", '{"file": "a.png"}\n{"file"\n', "line 2 is no JSON"),
        ("l.jsonl", "[1, 2]\n", "line 1 is list"),
        ("l.jsonl", '{"file": "a.png", "label": null}\n', "1 of 1 lines lack"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, name, text, expected):
    with pytest.raises(DataError, match=expected):
        read_rows(written(tmp_path, text, name))


def test_other_encodings_and_missing_lists(tmp_path):
    (path := tmp_path / "l.csv").write_bytes("größe.png,a\n".encode("latin-1"))
    with pytest.raises(DataError, match="save it as UTF-8"):
        read_rows(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "none.csv")


# files


def test_a_file_listed_again_counts_once_and_is_noted(root):
    images = open_list(written(root, f"a.png,cat\nb.png,dog\n./a.png,cat\n{root}/b.png,dog\n"))
    assert len(images) == 2
    assert images.notes == ("list.csv lists 2 files again (lines 3, 4); each counts once",)


def test_one_file_with_two_labels(root):
    with pytest.raises(DataError, match=r"1 files are listed with another label before, first 'a\.png' \(line 3\)"):
        open_list(written(root, "a.png,cat\nb.png,dog\na.png,dog\n"))


@pytest.mark.parametrize("name", ["../secret.png", "sub/../../secret.png", "{parent}/secret.png", "/etc/passwd.png"])
def test_files_outside_are_refused(root, name):
    (inner := root / "inner").mkdir()
    Image.new("RGB", (4, 4)).save(root / "secret.png")
    Image.new("RGB", (4, 4)).save(inner / "a.png")
    path = written(inner, f"a.png,cat\n{name.format(parent=root)},cat\n")
    with pytest.raises(DataError, match=r"1 files are outside .*inner, first .*line 2"):
        open_list(path)
    assert len(open_list(path, reading=ListReading(allow_outside=True))) == 2


def test_a_root_of_its_own(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("lists")
    path = written(elsewhere, "a.png,cat\nb.png,dog\n")
    with pytest.raises(DataError, match=r"none of 2 listed files is there; tried .*a\.png.*data root"):
        open_list(path)
    assert open_list(path, reading=ListReading(data_root=root))[1][0].getpixel((0, 0))[0] == 1


def test_backslashes_are_explained(root):
    with pytest.raises(DataError, match="written with backslashes"):
        open_list(written(root, "sub\\c d.png,cat\n"))


# splits


def test_lists_of_two_splits_in_a_folder(root):
    written(root, "a.png,cat\nb.png,dog\n", "train.csv")
    written(root, "sub/c d.png,dog\n", "val.csv")
    splits = open_splits(root, {"train": None, "val": None})
    assert {split: data.labels.tolist() for split, data in splits.items()} == {"train": [0, 1], "val": [1]}


def test_two_lists_named(root):
    train, val = (
        written(root, "a.png,cat\nb.png,dog\n", "x.csv"),
        written(root, "sub/c d.png,cat\na.png,dog\n", "y.txt"),
    )
    for spec in (f"{train},{val}", [train, val], {"val": val, "train": train}):
        assert open_splits(spec, {"train": None, "val": None})["val"].labels.tolist() == [0, 1]
    renamed = train.rename(root / "my_val.csv"), val.rename(root / "train.txt")
    assert len(open_splits(renamed, {"train": None, "val": None})["val"]) == 2


def test_a_column_of_splits(root):
    path = written(root, "file,label,split\na.png,cat,train\nb.png,dog,Train\nsub/c d.png,cat,valid\n")
    splits = open_splits(path, {"train": None, "val": None})
    assert len(splits["train"]) == 2 and splits["val"].path(0).name == "c d.png"
    with pytest.raises(DataError, match="has train, val, but no test"):
        open_dataset(path, split="test")


def test_one_list_is_no_two_splits(root):
    path = written(root, "a.png,cat\nb.png,dog\n")
    with pytest.raises(
        DataError, match=r"one piece of data, without train and val; .*TRAIN,VAL, or add a column 'split'"
    ):
        open_splits(path, {"train": None, "val": None})
    assert len(open_dataset(path)) == 2


def test_an_unknown_label_of_validation(root):
    written(root, "a.png,cat\nb.png,dog\n", "train.csv")
    written(root, "sub/c d.png,bird\n", "val.csv")
    with pytest.raises(DataError, match=r"val\.csv: 1 unknown label: bird; expected one of the 2 classes \(cat, dog\)"):
        open_splits(root, {"train": None, "val": None})


def test_pictures_of_kaggle_lie_in_a_folder_called_as_the_list(root):
    (root / "train").mkdir()
    (root / "a.png").rename(root / "train" / "a.png")
    written(root, "id,label\na.png,cat\n", "train.csv")
    assert len(open_splits(root, {"train": None}, need=("train",))["train"]) == 1


def test_many_rows_are_quick(tmp_path):
    (tmp_path / "0.png").touch()
    rows = "".join(f"{i}.png,{i % 10}\n" for i in range(20_000))
    images = open_list(written(tmp_path, rows))
    assert len(images) == 20_000 and np.bincount(images.labels).tolist() == [2000] * 10
