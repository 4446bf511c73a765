"""Data sets of the Hugging Face library, from folders made here: nothing is asked of the network."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvitv2.data.images import ImageError
from mvitv2.data.labelled import DataError
from mvitv2.data.open import forms_of, open_dataset, open_splits

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the library is imported
datasets = pytest.importorskip("datasets", reason="comes with the extra `train`")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep the library out of anybody's home."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def png(red: int) -> bytes:
    Image.new("RGB", (8, 8), (red, 0, 0)).save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


def table(labels, *, names=("cat", "dog"), image="image", label="label", feature=None):
    """A table with a picture per label."""
    images = [{"bytes": png(place), "path": f"{place}.png"} for place in range(len(labels))]
    kinds = {image: datasets.Image(), label: feature or datasets.ClassLabel(names=list(names))}
    return datasets.Dataset.from_dict({image: images, label: list(labels)}, features=datasets.Features(kinds))


@pytest.fixture
def saved(tmp_path) -> Path:
    """Two splits, as the library saves them."""
    tables = {"train": table([0, 1, 1, 0]), "validation": table([1, 0])}
    datasets.disable_progress_bars()
    datasets.DatasetDict(tables).save_to_disk(str(tmp_path / "saved"))
    datasets.enable_progress_bars()
    return tmp_path / "saved"


def test_a_saved_data_set(saved, capfd):
    for spec in (f"hf:{saved}", saved):
        splits = open_splits(spec, {"train": None, "val": None})
        assert {split: data.labels.tolist() for split, data in splits.items()} == {"train": [0, 1, 1, 0], "val": [1, 0]}
    train = splits["train"]
    assert train.classes == train.class_names == ("cat", "dog") and train.counts == {"cat": 2, "dog": 2}
    assert [train[i][0].getpixel((0, 0))[0] for i in range(4)] == [0, 1, 2, 3]
    assert train.source(2) == png(2) and train.path(2).name == "2_2.png"
    assert train.stamp(0) != train.stamp(1) and str(train) == f"hf:{saved}#train"
    assert capfd.readouterr() == ("", "")
    with pytest.raises(IndexError, match="index 4 of 4 rows"):
        train.path(4)


def test_parquet_files_and_one_split_by_name(tmp_path):
    folder = tmp_path / "parquet" / "data"
    folder.mkdir(parents=True)
    table([0, 1]).to_parquet(str(folder / "train-00000.parquet"))
    table([1]).to_parquet(str(folder / "test-00000.parquet"))
    spec = f"hf:{tmp_path / 'parquet'}"
    assert list(forms_of(spec)) == ["train", "test"]
    with pytest.raises(DataError, match="has train, test, but no val; give a part for each split"):
        open_splits(spec, {"train": None, "val": None})
    splits = open_splits(f"{spec}#train,{spec}#test", {"train": None, "val": None})
    assert len(splits["train"]) == 2 and splits["val"].labels.tolist() == [1]
    with pytest.raises(DataError, match="has no split 'dev', it has train, test"):
        open_dataset(f"{spec}#dev")


def test_files_of_an_image_folder_are_read_where_they_are(tmp_path):
    for place, name in enumerate(("cat", "dog")):
        path = tmp_path / "folder" / "train" / name / "0.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(png(place))
    images = open_dataset(f"hf:{tmp_path / 'folder'}", split="train")
    assert images.classes == ("cat", "dog") and images.path(1) == tmp_path / "folder" / "train" / "dog" / "0.png"
    assert images.source(1) == images.path(1) and images[1][0].getpixel((0, 0))[0] == 1


def opened(tmp_path, given, **options):
    """What is opened of a table."""
    datasets.disable_progress_bars()
    given.save_to_disk(str(tmp_path / "one"))
    datasets.enable_progress_bars()
    return open_dataset(f"hf:{tmp_path / 'one'}", **options)


def test_labels_of_other_kinds(tmp_path):
    words = table(["b", "a"], image="img", label="fine_label", feature=datasets.Value("string"))
    assert opened(tmp_path / "1", words).classes == ("a", "b")
    numbers = table([3, 1], label="target", feature=datasets.Value("int32"))
    assert opened(tmp_path / "2", numbers).classes == ("1", "3")
    assert opened(tmp_path / "3", numbers, classes=["x", "y", "z", "w"]).labels.tolist() == [3, 1]


def test_classes_of_a_model_in_another_order(tmp_path):
    assert opened(tmp_path, table([0, 1]), classes=["dog", "bat", "cat"]).labels.tolist() == [2, 0]
    with pytest.raises(DataError, match=r"1 unknown label: dog"):
        opened(tmp_path / "x", table([0, 1]), classes=["cat", "bat"])


@pytest.mark.parametrize("labels", [[0, -1], [0, None]])
def test_rows_without_a_label(tmp_path, labels):
    with pytest.raises(DataError, match="1 of 2 rows have no label; choose a split with labels"):
        opened(tmp_path, table(labels))


def test_columns_that_cannot_be_told(tmp_path):
    with pytest.raises(DataError, match=r"which column holds the labels cannot be told; .* image \(Image\), breed"):
        opened(tmp_path / "1", table([0], label="breed"))
    assert len(opened(tmp_path / "2", table([0], label="breed"), label_column="breed")) == 1
    assert len(opened(tmp_path / "3", table([0], image="photo"), image_column="photo")) == 1
    for option in ("image_column", "label_column"):
        with pytest.raises(DataError, match=r"has no column 'lable' \(did you mean 'label'\?\)"):
            opened(tmp_path / option, table([0]), **{option: "lable"})
    boxes = table([0]).rename_column("image", "x").remove_columns("x").add_column("box", [[1.0]])
    with pytest.raises(DataError, match="which column holds the pictures cannot be told"):
        opened(tmp_path / "4", boxes)
    several = table([[0, 1]], feature=datasets.Sequence(datasets.Value("int32")))
    with pytest.raises(DataError, match="label holds list, expected one whole number or name per row"):
        opened(tmp_path / "5", several)


def test_damaged_and_empty_pictures_are_named(tmp_path):
    features = datasets.Features({"image": datasets.Value("binary"), "label": datasets.Value("int64")})
    rows = {"image": [b"\xff\xd8\xff", png(1), None], "label": [0, 1, 0]}
    images = opened(tmp_path, datasets.Dataset.from_dict(rows, features=features), on_error="skip")
    assert "JPEG" in images[0].reason and images[0].path.endswith("/0")
    assert images[1][0].getpixel((0, 0))[0] == 1
    assert "empty row" in images[2].reason
    images.on_error = "raise"
    with pytest.raises(ImageError, match="#all/0"):
        images[0]


def test_names_that_are_none(tmp_path, monkeypatch):
    monkeypatch.setenv("MVITV2_OFFLINE", "1")
    with pytest.raises(DataError, match="is no folder here, and no name such as owner/name"):
        open_dataset("hf:./nowhere")
    with pytest.raises(DataError, match="cannot be loaded by the datasets library"):
        open_dataset("hf:somebody/some-data-set-that-is-not-here")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be loaded"):
        open_dataset(f"hf:{tmp_path / 'empty'}")


def test_timms_way_of_saying_it(saved):
    assert len(open_dataset(f"hfds/{saved}", split="train")) == 4


def test_a_missing_library_names_the_extra(saved, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ImportError, match=r"mvitv2\[train\]"):
        open_dataset(f"hf:{saved}")


def test_many_rows_are_quick(tmp_path):
    labels = np.arange(20_000) % 2
    rows = {"image": [b""] * len(labels), "label": labels}
    features = datasets.Features({"image": datasets.Value("binary"), "label": datasets.ClassLabel(names=["a", "b"])})
    assert len(opened(tmp_path, datasets.Dataset.from_dict(rows, features=features))) == 20_000
