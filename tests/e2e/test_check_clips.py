"""``mvitv2 check`` on clips: damage, copies, leaks and clips that are too short are found before training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvitv2.cli.__main__ import main
from mvitv2.data.video.preflight import SeenClips, holds_clips
from mvitv2.train.recipes import recipe
from tests.clips import write_clip

pytest.importorskip("av", reason="needs PyAV, the extra video")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own."""
    monkeypatch.setenv("MVITV2_CACHE", str(tmp_path / "cache"))


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
    assert told.startswith("SPLIT  CLIPS") and "PICTURES" not in told
    assert "1 clip of train cannot be read" in told and "1 clip of train shorter than 16 frames 4 apart" in told
    assert "<td>clips</td>" in page.read_text() and "picture" not in page.read_text()
    assert "<img" in page.read_text() and sheet.stat().st_size > 1000


def test_a_quick_look_sees_the_frames_it_decodes_alone(clips, capsys):
    assert main(["check", str(clips), "--quick", "--frames", "4", "--rate", "1", "--workers", "1"]) == 3
    assert "leaked" in capsys.readouterr().out


def test_what_was_seen_of_clips_is_kept_until_one_changes(clips, monkeypatch, capsys):
    """Frames that are too few are told of clips that are not decoded again; a quick look stands for itself alone."""
    words = ["check", str(clips), "--workers", "1", "--json", "-"]
    assert main(words) == 3
    first = capsys.readouterr().out
    assert {"short", "leak-same"} <= {finding["kind"] for finding in json.loads(first)["findings"]}
    decoded: list[bool] = []
    seen = SeenClips._seen
    monkeypatch.setattr(SeenClips, "_seen", lambda *given, **how: (decoded.append(True), seen(*given, **how))[1])
    assert main(words) == 3
    assert capsys.readouterr().out == first and not decoded
    assert main([*words, "--quick"]) == 3
    assert len(decoded) == 10
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["unreadable"] < 2
    decoded.clear()
    (clips / "val" / "cat" / "again.mp4").unlink()
    assert main(words) == 3
    assert len(decoded) == 2 and "leak-same" not in capsys.readouterr().out


def test_a_folder_of_frames_is_looked_at_again_where_one_of_them_changes(tmp_path, capsys):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            for number in range(8):
                folder = tmp_path / "clips" / split / name / "first"
                folder.mkdir(parents=True, exist_ok=True)
                level = 20 * number + 7 * len(split) + (3 if name == "cat" else 90)
                Image.new("RGB", (64, 48), (level % 256, 30, 90)).save(folder / f"{number:05}.jpg")
    words = ["check", str(tmp_path / "clips"), "--task", "video", "--workers", "1", "--json", "-"]
    main(words)
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["unreadable"] == 0
    (tmp_path / "clips" / "train" / "cat" / "first" / "00003.jpg").write_bytes(b"")
    main(words)
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["unreadable"] == 1


@pytest.mark.parametrize("kind", ["published", "device"])
def test_the_sheet_shows_the_recipe_in_use(clips, tmp_path, capsys, kind):
    """Nothing but a crop of the size the clip has: what training sees is what is there, up to its compression."""
    plain = {"kind": kind, "jitter": [32, 32], "flip": 0.0, "policy": None, "erase_probability": 0.0}
    fields = {"preprocessing": {"size": [32, 32], "resize": 32, "num_frames": 4, "sampling_rate": 1}, "img_size": 32}
    made = {**recipe("clips_small").to_dict(), "augmentation": plain, **fields}
    (tmp_path / "recipe.json").write_text(json.dumps(made))
    words = ["check", str(clips), "--quick", "--workers", "1", "--show", "1", "--output", str(tmp_path / "sheet.png")]
    assert main([*words, "--recipe", str(tmp_path / "recipe.json")]) == 3
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"), np.float32)
    side = (sheet.shape[1] - 3 * 6) // 2
    left, right = sheet[30:-12, 6 : 6 + side], sheet[30:-12, 12 + side : 12 + 2 * side]
    assert np.abs(left.mean((0, 1)) - right.mean((0, 1))).max() < 25
    capsys.readouterr()
    assert main([*words, "--recipe", "imagenet_t"]) == 2
    assert "--recipe imagenet_t: task 'classify' is not of clips" in capsys.readouterr().err


def test_clips_are_known_by_the_names_of_their_files(clips, tmp_path):
    (tmp_path / "list.csv").write_text("clips/train/cat/0.mp4 0\n")
    (tmp_path / "pictures.csv").write_text("a.jpg 0\n")
    assert holds_clips(clips) and holds_clips(tmp_path / "list.csv")
    assert not holds_clips(tmp_path / "pictures.csv") and not holds_clips("digits")
