"""The loading benchmark measures both loaders on the same files, and says so where there are none."""

import gc
import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import loading


# timm's data set leaves its files for the garbage collector to close
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_both_loaders_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm", reason="the peer that is measured comes with the extra `train`")
    for name in ("cat", "dog"):
        for place in range(3):
            path = tmp_path / "photos" / name / f"{place}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (place, 0, 0)).save(path)
    words = ["--data", f"{tmp_path}/photos", "--images", "4", "--size", "32", "--rounds", "1"]
    assert loading.main([*words, "--output", f"{tmp_path}/results"]) == 0
    (path,) = (tmp_path / "results").iterdir()
    record = json.loads(path.read_text())
    assert record["settings"]["images"] == 4 and record["machine"]["cores"]
    both = {f"{what}: {whose}" for what in ("decode", "authors", "plain") for whose in ("timm", "mvitv2")}
    assert set(record["timings"]) == both | {"authors: mvitv2, shards", "authors: mvitv2, device"}
    assert "images/s" in capsys.readouterr().out
    gc.collect()


def test_without_photographs_nothing_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert loading.main(["--data", str(tmp_path / "none")]) == 1
    assert "there are no photographs" in capsys.readouterr().err
