"""``mvitv2 predict`` and ``mvitv2 features`` into files: whole, resumable, with pictures, and honest about losses."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvitv2 import save_weights
from mvitv2.cli.__main__ import main
from mvitv2.preprocessing import Preprocessing

from .training_job import small_model


@pytest.fixture
def weights(tmp_path: Path) -> str:
    model = small_model()
    record = Preprocessing(size=(16, 16), resize=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    model.card = {"classes": ["top", "middle", "bottom"], "preprocessing": record.to_dict()}
    save_weights(model, tmp_path / "w.safetensors")
    return str(tmp_path / "w.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(6):
        path = tmp_path / "pictures" / f"{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 40), (40 * i, 0, 9)).save(path)
    (tmp_path / "pictures" / "0" / "bad.jpg").write_bytes(b"")
    return tmp_path / "pictures"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_predictions_in_a_file_that_goes_on(capsys, tmp_path: Path, weights: str, folder: Path, suffix: str) -> None:
    path = tmp_path / f"answers{suffix}"
    words = ["predict", weights, str(folder / "0"), "--output", str(path), "-k", "2"]
    assert main(words) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{folder / '0' / 'bad.jpg'}: is empty" in captured.err
    assert f"{path}: 4 pictures, 1 of them could not be predicted" in captured.err
    assert main(words) == 1
    assert "exists already; --resume goes on" in capsys.readouterr().err
    assert main([*words, str(folder), "--resume"]) == 0
    assert f"{path}: 3 pictures, 4 more were in it before" in capsys.readouterr().err
    if suffix == ".csv":
        with path.open(newline="") as file:
            rows = [(row["file"], row["class_1"]) for row in csv.DictReader(file)]
    elif suffix == ".jsonl":
        found = map(json.loads, path.read_text().splitlines())
        rows = [(one["file"], (one["predictions"] or [{"class": ""}])[0]["class"]) for one in found]
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
        rows = [(row["file"], (row["class"] or [""])[0]) for row in table]
    assert len({file for file, _ in rows}) == len(rows) == 7
    assert all((name in ("top", "middle", "bottom")) == (not file.endswith("bad.jpg")) for file, name in rows)


def test_pictures_with_their_answers(capsys, tmp_path: Path, weights: str, folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict", weights, "pictures", "../x.png", "--save", "seen"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 6
    saved = sorted(str(path.relative_to(tmp_path / "seen")) for path in (tmp_path / "seen").rglob("*.jpg"))
    assert saved == sorted(f"pictures/{i % 2}/{i}.png.jpg" for i in range(6))


def test_sizes_and_crops_on_the_command_line(capsys, weights: str, folder: Path) -> None:
    picture = str(folder / "0" / "0.png")
    for words in (["--img-size", "24", "32"], ["imgsz=24"], ["--crop-pct", "0.5"]):
        assert main(["predict", weights, picture, *words]) == 0
    capsys.readouterr()
    assert main(["predict", weights, picture, "--img-size", "8", "8", "8"]) == 2
    assert "expected one side, or height and width" in capsys.readouterr().err
    assert main(["predict", weights, picture, "--resume"]) == 2
    assert "name it with --output" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".parquet"])
def test_features_in_a_file_that_goes_on(capsys, tmp_path: Path, weights: str, folder: Path, suffix: str) -> None:
    path = tmp_path / f"features{suffix}"
    words = ["features", weights, "--output", str(path), "--normalise"]
    assert main([*words, str(folder / "0")]) == 1
    assert "4 pictures, 1 of them without features" in capsys.readouterr().err
    assert main([*words, str(folder / "1"), "--resume"]) == 0
    if suffix == ".npy":
        array = np.load(path)
        lines = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
        names = [line["file"] for line in lines if line["row"] is not None]
    elif suffix == ".npz":
        packed = np.load(path)
        array, names = packed["features"], packed["files"].tolist()
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
        good = [row for row in table if row["error"] is None]
        array, names = np.array([row["features"] for row in good]), [row["file"] for row in good]
    assert array.shape == (6, small_model().num_features)
    np.testing.assert_allclose(np.linalg.norm(array, axis=1), 1, rtol=1e-5)
    assert sorted(names) == sorted(str(path) for path in folder.rglob("*.png"))
