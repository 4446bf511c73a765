"""Clips from the command line: trained, killed, measured, predicted, drawn, pre-trained, with actions in boxes."""

import base64
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av", reason="clips are read by PyAV: the extra video")

from mvitv2.cli.__main__ import main
from mvitv2.tasks.viewscores import read_view_scores
from mvitv2.train.recipe import overridden
from mvitv2.train.recipes import recipe
from tests import films
from tests.unit.test_ava import ava

TINY: dict[str, Any] = {
    "stages": {
        "depths": (1, 1),
        "embed_dim": 8,
        "kernel": (3, 3, 3),
        "q_stride": (1, 2, 2),
        "kv_stride": (1, 2, 2),
    },
    "img_size": 24,
    "preprocessing": {"size": (24, 24), "resize": 24, "num_frames": 4, "sampling_rate": 3, "fps": 10.0},
    "epochs": 3,
    "batch_size": 4,
    "lr": 3e-3,
    "lr_batch": 4,
    "warmup_epochs": 0.5,
}


def written(folder: Path, name: str, **changes: Any) -> str:
    """A recipe of a tiny model as a file."""
    made = overridden(recipe(name), {**TINY, **changes})
    path = folder / f"{name}.json"
    path.write_text(json.dumps(made.to_dict()))
    return str(path)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return films.two_classes(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def run(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs")
    words = ["--recipe", written(folder, "clips_small"), "--output", str(folder / "run"), "--workers", "0"]
    with redirect_stdout(io.StringIO()) as told:
        assert main(["train", str(clips), *words]) == 0
    assert told.getvalue().count(" clips/s  ") >= 3 and "images/s" not in told.getvalue()
    return folder / "run"


def test_training_writes_a_model_of_clips(run: Path) -> None:
    from mvitv2.core.model import MViT
    from mvitv2.weights.load import load_model

    model = load_model(run / "best.safetensors")
    assert isinstance(model, MViT)
    assert (model.card["classes"], model.card["preprocessing"]["num_frames"]) == (["left", "right"], 4)
    assert json.loads((run / "summary.json").read_text())["data"]["train_images"] == 12


def test_the_page_of_the_run_tells_of_clips(run: Path) -> None:
    """Curves, confusion and every clip as a strip of frames, its file named; nothing on it speaks of images."""
    page = (run / "report.html").read_text()
    for part in ("of 6 validation clips", "What is taken for what", "Clips per second", "4 of 24 x 24", "Environment"):
        assert part in page
    assert "Accuracy on validation clips" in page
    assert f"mvitv2 eval {run}" in page
    assert "--views 5x1" in page
    assert page.count('<figure class="sample') == 6
    assert "right.mp4" not in page
    assert re.search(r'<span class="file">\d\.mp4</span>', page)
    words = re.sub(r"<style>.*?</style>|<[^>]*>|images_per_second|train_images|val_images", "", page, flags=re.S)
    assert "image" not in words.lower().replace("image/", "").partition("recipe: every setting")[0]
    strips = [Image.open(io.BytesIO(base64.b64decode(found))) for found in re.findall(r"base64,([^\"]+)", page)]
    assert {strip.size for strip in strips} == {(4 * 112, 112)}


def test_an_evaluation_writes_a_page_too(run: Path, clips: Path, tmp_path: Path) -> None:
    words = ["--views", "2x1", "--workers", "0", "--scores", str(tmp_path / "scores")]
    assert main(["eval", str(run), str(clips), *words, "--report", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "of 6 clips" in page
    assert "2x1" in page
    assert page.count('<figure class="sample') == 6


def test_answers_and_rows_of_an_evaluation(run: Path, clips: Path, tmp_path: Path, capsys) -> None:
    """A row for each clip with the mean of its views, the same where scores are kept; one for the model."""
    table, kept = tmp_path / "all.csv", tmp_path / "scores"
    words = ["eval", str(run), str(clips), "--views", "2x3", "-j", "0", "--scores", str(kept), "--json", "-"]
    answers = [tmp_path / "first.csv", tmp_path / "again.csv"]
    for path in answers:
        assert main([*words, "--predictions", str(path), "--results-file", str(table)]) == 0
    figures, _ = json.JSONDecoder().raw_decode(capsys.readouterr().out)
    _, places, views = read_view_scores(kept)
    with answers[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert answers[0].read_bytes() == answers[1].read_bytes() and places.tolist() == list(range(6))
    best = views.astype(np.float64).mean(axis=1)
    assert [row["predicted"] for row in rows] == [("left", "right")[place] for place in best.argmax(axis=1)]
    assert [float(row["score"]) for row in rows] == pytest.approx(best.max(axis=1).tolist(), abs=1e-6)
    assert [row["label"] for row in rows] == ["left"] * 3 + ["right"] * 3
    assert [Path(row["file"]).parts[-3:-1] for row in rows] == [("val", row["label"]) for row in rows]
    with table.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == second and (first["crops"], first["images"], first["img_size"]) == ("6", "6", "24")
    assert float(first["top1"]) == pytest.approx(100 * figures["top1"], abs=1e-3)


def child(*words: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    code = "import sys; from mvitv2.cli.__main__ import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def killed_when(process: subprocess.Popen[bytes], there: Any, seconds: float = 240.0) -> None:
    """Kill -9 as soon as something is there."""
    end = time.monotonic() + seconds
    while not there() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_killed_training_ends_with_the_same_weights(clips: Path, run: Path, tmp_path: Path) -> None:
    made = ["--recipe", written(tmp_path, "clips_small"), "--output", str(tmp_path / "run"), "--workers", "0"]
    words = ["train", str(clips), *made, "--save-minutes", "1e-6"]
    log = tmp_path / "run" / "metrics.jsonl"
    killed_when(child(*words), lambda: log.exists() and log.read_text().count("\n") >= 4)
    assert main(words) == 0
    same = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [json.loads(line)["loss"] for line in log.read_text().splitlines()] == same
    assert (tmp_path / "run" / "best.safetensors").stat().st_size == (run / "best.safetensors").stat().st_size
    found = [json.loads((folder / "summary.json").read_text())["last"]["val_loss"] for folder in (run, log.parent)]
    assert found[0] == found[1]


def test_killed_evaluation_ends_with_the_same_figures(clips: Path, run: Path, tmp_path: Path) -> None:
    words = ["eval", str(run), str(clips), "--views", "5x3", "--batch-size", "1", "--workers", "0", "--json"]
    whole, kept = tmp_path / "whole.json", tmp_path / "kept"
    assert main([*words, str(whole), "--scores", str(tmp_path / "other")]) == 0
    scores = kept / "views.bin"
    killed_when(child(*words, "-", "--scores", str(kept)), lambda: scores.exists() and scores.stat().st_size > 0)
    before = scores.stat().st_size
    assert main([*words, str(tmp_path / "again.json"), "--scores", str(kept)]) == 0
    assert 0 < before <= scores.stat().st_size
    assert scores.read_bytes() == (tmp_path / "other" / "views.bin").read_bytes()
    figures = [json.loads(path.read_text()) for path in (whole, tmp_path / "again.json")]
    for found in figures:
        del found["seconds"], found["view_scores"]
    assert figures[0] == figures[1]
    assert len(figures[0]["top1_of_views"]) == 15


def test_seconds_of_a_long_clip(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = films.write_film(tmp_path / "a long one.mp4", films.moving_square(True, frames=47))
    assert main(["predict", str(run), str(film), "--seconds", "--timeline", str(tmp_path / "seen")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 5
    assert "a long one.mp4" in lines[0]
    told = json.loads((tmp_path / "seen" / "a long one.json").read_text())
    assert [second["start"] for second in told["seconds"]] == [0, 1, 2, 3, 4]
    rows = (tmp_path / "seen" / "a long one.csv").read_text().splitlines()
    assert rows[0] == "start,end,rank,class,score"
    assert len(rows) == 1 + 5 * 2
    assert (tmp_path / "seen" / "a long one.png").read_bytes()[:4] == b"\x89PNG"
    from mvitv2.data.video.reader import open_clip

    with open_clip(tmp_path / "seen" / "a long one.mp4") as drawn:
        assert drawn.info.frames == 47
        assert abs(float(drawn.times[-1]) - 4.6) < 0.01


HELD = """
import sys
from pathlib import Path
from mvitv2.cli.__main__ import main
from mvitv2.tasks.viewscores import read_view_scores

status = main(sys.argv[1:])
held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(held.split()[1], file=sys.stderr)
sys.exit(status)
"""
"""A command, and the most KiB that its process held; ``ru_maxrss`` would also count what its parent held."""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peaks are read from Linux's /proc")
def test_memory_does_not_grow_with_the_length_of_a_clip(run: Path, tmp_path: Path) -> None:
    """Ten minutes take no more than one: streamed, their seconds told, drawn as a chart and on the film itself.

    Kept frames would take 40 MiB, kept windows 16.
    """
    peaks = []
    for seconds in (60, 600):
        frames = films.moving_square(True, frames=20, size=(96, 128))[np.arange(2 * seconds) % 20]
        film = films.write_film(tmp_path / f"{seconds}.mp4", frames, fps=2)
        words = ["predict", str(run), str(film), "--format", "json", "--timeline", str(tmp_path / "seen")]
        done = subprocess.run([sys.executable, "-c", HELD, *words], capture_output=True, text=True, check=True)
        assert len(json.loads(done.stdout)[0]["seconds"]) == seconds
        peaks.append(int(done.stderr.split()[-1]) / 1024)
        assert (tmp_path / "seen" / f"{seconds}.mp4").stat().st_size > 1000
    assert peaks[1] - peaks[0] < 8, f"{peaks} MiB"


def test_what_is_no_clip_is_told(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    assert main(["predict", str(run), str(tmp_path / "bad.mp4"), str(tmp_path / "gone.mp4")]) == 1
    said = capsys.readouterr().err
    assert "bad.mp4" in said
    assert "2 of 2 could not be predicted" in said


def test_options_of_the_other_kind_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(run), "x.mp4", "--save", "there"]) == 2
    assert "--save: of pictures" in capsys.readouterr().err
    assert main(["eval", str(run), "clips", "--views", "5x2"]) != 0
    assert "expected CLIPSxCROPS" in capsys.readouterr().err


def test_vectors_of_seconds(run: Path, clips: Path, tmp_path: Path) -> None:
    words = ["features", str(run), str(clips / "val" / "left"), "--output"]
    assert main([*words, str(tmp_path / "clips.npz")]) == 0
    assert main([*words, str(tmp_path / "seconds.npy"), "--seconds", "--normalise"]) == 0
    packed = np.load(tmp_path / "clips.npz")
    assert packed["features"].shape == (3, 16)
    rows = np.load(tmp_path / "seconds.npy")
    assert rows.shape == (6, 16)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    names = [json.loads(line)["file"] for line in (tmp_path / "seconds.jsonl").read_text().splitlines()]
    assert names[:2] == [f"{clips}/val/left/0.mp4#t={second}" for second in (0, 1)]


def test_pretraining_is_gone_on_from(clips: Path, tmp_path: Path) -> None:
    stages = {**TINY["stages"], "depths": (1, 1, 1), "expand_in": "mlp"}
    fields = {"class_token": True, "readout": "mean_norm", "head_dropout": 0.0}
    shape = {"stages": stages, "model_fields": fields, "img_size": 32, "clip_norm": 1.0}
    shape["preprocessing"] = {**TINY["preprocessing"], "size": (32, 32), "resize": 32}
    pre = written(tmp_path, "maskfeat_s", **shape, epochs=2)
    assert main(["train", str(clips), "--recipe", pre, "--output", str(tmp_path / "pre"), "--workers", "0"]) == 0
    assert json.loads((tmp_path / "pre" / "summary.json").read_text())["best"]["metric"] == "explained"
    from mvitv2.weights.masked import load_masked

    assert load_masked(tmp_path / "pre" / "best.safetensors").config.num_classes == 0
    fine = written(tmp_path, "maskfeat_s_ft", **shape, weights=str(tmp_path / "pre" / "best.safetensors"), epochs=1)
    assert main(["train", str(clips), "--recipe", fine, "--output", str(tmp_path / "fine"), "--workers", "0"]) == 0


def test_actions_in_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchvision", reason="RoIAlign comes with the extra 'video'")
    data, run = ava(tmp_path / "ava"), tmp_path / "run"
    made = written(tmp_path, "ava", augmentation={"kind": "published", "jitter": (26, 30)}, batch_size=2)
    assert main(["train", str(data), "--recipe", made, "--output", str(run), "--workers", "0"]) == 0
    assert json.loads((run / "summary.json").read_text())["best"]["metric"] == "map"
    lines = tmp_path / "official.csv"
    assert main(["eval", str(run), str(data), "--scores", str(lines), "--workers", "0"]) == 0
    assert "mAP at 0.5" in capsys.readouterr().out
    assert len(lines.read_text().splitlines()) == 9
    words = ["predict", str(run), str(data / "videos" / "one.mp4")]
    assert main(words) == 2
    assert "give --boxes, a list of them in AVA's form" in capsys.readouterr().err
    boxes = str(data / "ava_val_v2.2.csv")
    assert main([*words, "--boxes", boxes, "--timeline", str(tmp_path / "seen")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert (tmp_path / "seen" / "one.mp4").stat().st_size > 1000
