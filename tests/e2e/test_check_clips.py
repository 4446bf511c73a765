"""``mvitv2 check`` on clips: damage, copies, leaks and clips that are too short are found before training."""

import json
import shutil
from pathlib import Path

import pytest

from mvitv2.cli.__main__ import main
from mvitv2.data.video.preflight import holds_clips
from tests.clips import write_clip

pytest.importorskip("av", reason="needs PyAV, the extra video")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two classes; one clip is cut off, one is in both splits, one is short."""
    root = tmp_path / "clips"
    sizes = iter(range(40, 70, 2))
    for split, count in (("train", 3), ("val", 1)):
        for name in ("cat", "dog"):
            for number in range(count):
                write_clip(
                    root / split / name / f"{number}.mp4", 70, fps=30, size=(40, next(sizes)), movflags="faststart"
                )
    shutil.copy(root / "train" / "cat" / "0.mp4", root / "val" / "cat" / "again.mp4")
    data = (root / "train" / "cat" / "1.mp4").read_bytes()
    (root / "train" / "cat" / "1.mp4").write_bytes(data[: int(len(data) * 0.8)])
    write_clip(root / "train" / "dog" / "short.mp4", 5, size=(40, 90))
    return root


def test_what_is_wrong_with_clips_is_found(clips, tmp_path, capsys):
    report, page, sheet = tmp_path / "report.json", tmp_path / "page.html", tmp_path / "sheet.png"
    words = ["check", str(clips), "--json", str(report), "--html", str(page), "--show", "2", "--output", str(sheet)]
    assert main([*words, "--workers", "1", "--img-size", "32"]) == 3
    told = capsys.readouterr().out
    found = {finding["kind"]: finding for finding in json.loads(report.read_text())["findings"]}
    assert "1.mp4: " in found["unreadable"]["examples"][0] and "damaged" in found["unreadable"]["examples"][0]
    assert found["leak-same"]["count"] == 1 and "clip leaked" in found["leak-same"]["text"]
    assert found["short"]["examples"] == [f"{clips / 'train' / 'dog' / 'short.mp4'}: 5 frames"]
    assert "1 clip of train cannot be read" in told and "1 clip of train shorter than 16 frames 4 apart" in told
    assert "<img" in page.read_text() and sheet.stat().st_size > 1000


def test_a_quick_look_sees_the_frames_it_decodes_alone(clips, capsys):
    assert main(["check", str(clips), "--quick", "--frames", "4", "--rate", "1", "--workers", "1"]) == 3
    assert "leaked" in capsys.readouterr().out


def test_clips_are_known_by_the_names_of_their_files(clips, tmp_path):
    (tmp_path / "list.csv").write_text("clips/train/cat/0.mp4 0\n")
    (tmp_path / "pictures.csv").write_text("a.jpg 0\n")
    assert holds_clips(clips) and holds_clips(tmp_path / "list.csv")
    assert not holds_clips(tmp_path / "pictures.csv") and not holds_clips("digits")
