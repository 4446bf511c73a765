"""The benchmark of clips measures every candidate on the same files, and says so where there are none."""

import json

import pytest

from benchmarks import clips
from tests.clips import write_clip

pytest.importorskip("av", reason="needs PyAV, the extra video")


def test_every_candidate_is_measured(tmp_path, capsys):
    pytest.importorskip("timm", reason="RandAugment comes with the extra train")
    for number in range(2):
        write_clip(tmp_path / "clips" / f"{number}.mp4", 24)
    words = ["--data", f"{tmp_path}/clips", "--rounds", "1", "--output", f"{tmp_path}/results"]
    assert clips.main(words) == 0
    (path,) = (tmp_path / "results").iterdir()
    record = json.loads(path.read_text())
    assert record["settings"]["clips"] == 2 and len(record["timings"]) == 8
    assert "frames/s" in capsys.readouterr().out
    assert clips.main(["--data", f"{tmp_path}/none"]) == 1
    assert "there are no clips" in capsys.readouterr().err
