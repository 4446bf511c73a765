"""Files of answers grow, survive being killed over, and know what is in them."""

import csv
import json
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from mvitv2.tasks import records
from mvitv2.tasks.feature_files import feature_records
from mvitv2.tasks.records import Done, Records, opened

KINDS = {"file": "text", "error": "text", "class": "texts", "score": "numbers"}
HEADER = ["file", "error", "class_1", "score_1", "class_2", "score_2"]
ODD = ["a b.jpg", 'quo"ted,comma.png', "line\nbreak.png", "äö\udcff.jpg", "日本.png"]


def record(name: str) -> dict[str, Any]:
    return {"file": name, "error": None, "class": ["x", "y,z"], "score": [0.75, 0.25]}


def written(path: Path, *names: str, resume: bool = True) -> list[str]:
    file = opened(path, KINDS, HEADER, resume=resume)
    before = list(file.names())
    for name in names:
        file.write(record(name))
    file.close()
    return before


@pytest.mark.parametrize("suffix", records.SUFFIXES)
def test_a_file_goes_on_and_knows_what_is_in_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"answers{suffix}"
    assert written(path, "a", "b", resume=False) == []
    assert written(path, "c") == ["a", "b"]
    assert written(path) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="exists already; --resume goes on with it"):
        written(path, resume=False)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("cut", [1, 7, 20])
def test_a_record_that_was_cut_off_is_written_again(tmp_path: Path, suffix: str, cut: int) -> None:
    path = tmp_path / f"answers{suffix}"
    written(path, *ODD[:3])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    left = written(path, ODD[2])
    assert len(left) == 2
    assert path.read_bytes() == whole


@pytest.mark.parametrize("suffix", records.SUFFIXES)
def test_odd_names_are_known_again(tmp_path: Path, suffix: str) -> None:
    names = [name for name in ODD if "\udcff" not in name]
    path = tmp_path / f"answers{suffix}"
    written(path, *names)
    file = opened(path, KINDS, HEADER, resume=True)
    done = Done(file.names())
    file.close()
    assert all(name in done for name in names) and len(done) == len(names)
    assert "another.jpg" not in done


def test_what_is_in_the_files(tmp_path: Path) -> None:
    for suffix in records.SUFFIXES:
        written(tmp_path / f"answers{suffix}", "a", "b")
    assert json.loads((tmp_path / "answers.jsonl").read_text().splitlines()[1]) == record("b")
    with (tmp_path / "answers.csv").open(newline="") as file:
        assert list(csv.reader(file))[1] == ["a", "", "x", "0.75", "y,z", "0.25"]
    table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "answers.parquet")
    assert table.to_pylist() == [record("a"), record("b")]


def test_parquet_has_parts_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(records, "PART_ROWS", 3)
    written(tmp_path / "a.parquet", *map(str, range(7)))
    written(tmp_path / "a.parquet", "7")
    parts = sorted((tmp_path / "a.parquet").iterdir())
    assert [parquet.read_table(part).num_rows for part in parts] == [3, 3, 1, 1]
    assert parquet.read_table(tmp_path / "a.parquet").column("file").to_pylist() == [str(i) for i in range(8)]


def test_files_that_cannot_be_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"are written as \.jsonl, \.csv, \.parquet"):
        opened(tmp_path / "a.xlsx", KINDS, HEADER, resume=False)
    with pytest.raises(ValueError, match="there is no folder"):
        opened(tmp_path / "no" / "a.csv", KINDS, HEADER, resume=False)
    written(tmp_path / "a.csv", "a")
    with pytest.raises(ValueError, match="has the columns file, error, class_1, score_1, class_2, score_2; these"):
        opened(tmp_path / "a.csv", KINDS, HEADER[:4], resume=True)


def rows(path: Path, *names: str, shape: tuple[int, ...] = (2, 3), close: bool = True, every: int = 2) -> list[str]:
    file = feature_records(path, resume=True)
    vars(file)["every"] = every
    before = list(file.names())
    with closing(cast(Any, file).file if not close else file):
        for name in names:
            write(file, name, shape)
    return before


def write(file: Records, name: str, shape: tuple[int, ...]) -> None:
    values = None if name == "bad" else np.full(shape, ord(name[0]), dtype=np.float32)
    error = "is empty" if values is None else None
    given = None if values is None else values.reshape(-1)
    file.write({"file": name, "error": error, "shape": list(shape), "features": given})


def test_an_array_grows_and_its_names_with_it(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    assert rows(path, "a", "bad", "c") == []
    assert rows(path, "d") == ["a", "bad", "c"]
    array = np.load(path, mmap_mode="r")
    assert array.shape == (3, 2, 3) and array.dtype == np.float32
    assert array[:, 0, 0].tolist() == [ord(c) for c in "acd"]
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [(line["file"], line["row"]) for line in lines] == [("a", 0), ("bad", None), ("c", 1), ("d", 2)]
    with pytest.raises(ValueError, match=r"has features of \(4,\), .* holds \(2, 3\)"):
        rows(path, "e", shape=(4,))


def test_what_a_killed_process_left_of_an_array_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    rows(path, "a", "b", "c", "d", "e", close=False)  # the last one waits for its line
    assert rows(path, "e", "f") == ["a", "b", "c", "d"]
    assert np.load(path)[:, 0, 0].tolist() == [ord(c) for c in "abcdef"]
    index = tmp_path / "x.jsonl"
    index.write_text(index.read_text()[:-9])  # a line that was cut off
    assert rows(path, "f") == ["a", "b", "c", "d", "e"]
    assert np.load(path)[:, 0, 0].tolist() == [ord(c) for c in "abcdef"]


def test_an_archive_of_features_and_names(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    rows(path, "a", "bad", "c")
    assert rows(path, "d") == ["a", "c"]
    packed = np.load(path)
    assert packed["files"].tolist() == ["a", "c", "d"] and packed["features"].shape == (3, 2, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_arrays_of_others_are_left_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    (tmp_path / "x.npz").write_bytes(b"no archive")
    for name in ("x.npy", "x.npz"):
        with pytest.raises(ValueError, match="choose another name"):
            rows(tmp_path / name, "a")
    with pytest.raises(ValueError, match=r"written as \.npy, \.npz or \.parquet"):
        rows(tmp_path / "x.csv", "a")


def test_no_features_are_an_array_too(tmp_path: Path) -> None:
    rows(tmp_path / "x.npy", "bad")
    assert np.load(tmp_path / "x.npy").shape == (0,)
    assert rows(tmp_path / "x.npy", "a") == ["bad"]
    assert np.load(tmp_path / "x.npy").shape == (1, 2, 3)
