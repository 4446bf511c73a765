"""What people type for their data: which form it is taken for, and what is said where it is none."""

from pathlib import Path

import pytest
from PIL import Image

from mvitv2.data.forms import DigitsForm, FolderForm, ListForm, ShardForm
from mvitv2.data.labelled import DataError
from mvitv2.data.open import forms_of, open_dataset, open_splits
from mvitv2.data.pack import whole


def save(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)


def test_digits_are_built_in(tmp_path, monkeypatch):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn (extra `train`)")
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert forms_of("digits") == {split: DigitsForm(split) for split in ("train", "val", "test")}
    splits = open_splits("digits", {"train": None, "val": None})
    assert [len(data) for data in splits.values()] == [1258, 270]
    assert whole(splits["val"].source(0)).startswith(b"\x89PNG") and splits["val"].stamp(0) != splits["val"].stamp(1)
    assert (
        open_dataset("digits", classes=[str(i) for i in range(10)], class_names=list("abcdefghij")).class_names[0]
        == "a"
    )
    with pytest.raises(DataError, match="the digits have the classes 0 to 9"):
        open_dataset("digits", classes=["cat", "dog"])


def test_parts_of_different_forms(tmp_path):
    save(*(tmp_path / "photos" / name / "0.png" for name in ("cat", "dog")))
    (tmp_path / "photos" / "l.csv").write_text("cat/0.png,cat\n")
    forms = forms_of(f"{tmp_path}/photos,{tmp_path}/photos/l.csv")
    assert forms == {"train": FolderForm(tmp_path / "photos"), "val": ListForm(tmp_path / "photos" / "l.csv")}
    assert [
        len(data) for data in open_splits(f"{tmp_path}/photos,{tmp_path}/photos/l.csv", dict.fromkeys(forms)).values()
    ] == [2, 1]


@pytest.mark.parametrize(
    ("spec", "shards"),
    [
        ("a/s-{0..2}.tar", {"": "a/s-{0..2}.tar"}),
        ("a-{train,test}.tar", {"": "a-{train,test}.tar"}),
        ("https://x/val-{0..2}.tar,https://x/train-{0..9}.tar",
         {"train": "https://x/train-{0..9}.tar", "val": "https://x/val-{0..2}.tar"}),
        ("wds/a-{0..2}.tar", {"": "a-{0..2}.tar"}),
        ("hf://datasets/x/y/a-{0..2}.tar", {"": "hf://datasets/x/y/a-{0..2}.tar"}),
        ("pipe:tar c a,b", {"": "pipe:tar c a,b"}),
    ],
)  # fmt: skip
def test_shards_by_pattern_and_url(spec, shards):
    assert forms_of(spec) == {split: ShardForm((pattern,)) for split, pattern in shards.items()}


def test_a_folder_that_is_not_split_is_measured_whole(tmp_path):
    save(*(tmp_path / name / "0.png" for name in ("cat", "dog")))
    assert len(open_dataset(tmp_path)) == len(open_dataset(tmp_path, split="train")) == 2


def test_parts_of_a_split_folder(tmp_path):
    save(*(tmp_path / split / name / "0.png" for name in ("cat", "dog") for split in ("train", "val", "test")))
    splits = open_splits({"train": tmp_path, "val": tmp_path / "test"}, {"train": None, "val": None})
    assert splits["train"].path(0).parts[-3] == "train" and splits["val"].path(0).parts[-3] == "test"


def test_class_folders_come_before_a_list_beside_them(tmp_path):
    save(*(tmp_path / split / name / "0.png" for name in ("cat", "dog") for split in ("train", "val")))
    (tmp_path / "train.csv").write_text("x.png,cat\n")
    assert set(map(type, forms_of(tmp_path).values())) == {FolderForm}


def test_two_lists_for_one_split(tmp_path):
    for name in ("train.csv", "train.txt"):
        (tmp_path / name).write_text("x.png,cat\n")
    with pytest.raises(DataError, match=r"train\.csv and train\.txt, both of which list the train split"):
        forms_of(tmp_path)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("a,b,c,d", "4 parts are given; expected training, validation and maybe test data"),
        ({"train": "a", "eval": "b"}, "'eval' is no split; they are called train, val, test"),
        ("nowhere-at-all", "nowhere-at-all does not exist"),
    ],
)
def test_what_is_no_data(spec, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=expected):
        open_splits(spec, {"train": None, "val": None})


def test_a_file_of_another_kind(tmp_path):
    save(tmp_path / "photo.png")
    with pytest.raises(DataError, match=r"is a file of no form known here; expected a folder, a list \(\.csv"):
        open_dataset(tmp_path / "photo.png")


def test_unknown_options(tmp_path):
    with pytest.raises(TypeError, match="on_eror"):
        open_dataset(tmp_path, on_eror="skip")
    with pytest.raises(ValueError, match="on_error='ignore'"):
        save(tmp_path / "a" / "0.png")
        open_dataset(tmp_path, on_error="ignore")
