"""Detection as one types it: train, eval, predict, with pictures that the test makes."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mvitv2.cli.__main__ import main
from mvitv2.core.config import MViTConfig
from mvitv2.data.sources import walk
from mvitv2.data.video.reader import open_clip
from mvitv2.tasks.detect.detector import Detector
from mvitv2.weights.load import load_model
from tests.films import write_film

ZOO = Path(__file__).parents[2].parent / "shared" / "data" / "zoo"
TINY = [
    "--recipe",
    "detect_small",
    "--set",
    "stages.depths=1,1,1,1",
    "stages.embed_dim=8",
    "detector.pyramid_channels=16",
    "detector.box_layers=32,",
    "detector.mask_convs=16,",
    "detector.mask_deconv=16",
    "preprocessing.resize=64",
    "augmentation.sides=64,",
    "augmentation.crop=0",
    "--batch-size",
    "2",
    "--warmup-epochs",
    "0",
    "--device",
    "cpu",
    "-j",
    "0",
    "--no-report",
]


def shapes(folder: Path, split: str, count: int) -> None:
    """Pictures with a red disc and a blue block, and their line in a list."""
    chance, lines = np.random.default_rng(len(split)), []
    for i in range(count):
        canvas = Image.new("RGB", (96, 72), (150, 150, 150))
        pen = ImageDraw.Draw(canvas)
        x, y = (int(v) for v in chance.integers(2, 20, 2))
        pen.ellipse((x, y, x + 30, y + 30), fill=(200, 30, 30))
        pen.rectangle((x + 40, y + 10, x + 64, y + 40), fill=(30, 40, 200))
        path = folder / split / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.save(path)
        boxes = [[x, y, x + 31, y + 31], [x + 40, y + 10, x + 65, y + 41]]
        masks = [[[a, b, c, b, c, d, a, d]] for a, b, c, d in boxes]
        record = {"file": f"{split}/{i}.png", "boxes": boxes, "labels": ["disc", "block"], "masks": masks}
        lines.append(json.dumps(record))
    (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained run beside its data."""
    folder = tmp_path_factory.mktemp("detection")
    shapes(folder / "boxes", "train", 4)
    shapes(folder / "boxes", "val", 2)
    words = ["train", str(folder / "boxes"), "--task", "segment", "--epochs", "1", "--output", str(folder / "run")]
    assert main([*words, *TINY]) == 0
    return folder / "run"


def test_training_leaves_a_detector_that_knows_its_classes(run):
    model = load_model(run / "best.safetensors")
    assert isinstance(model, Detector) and isinstance(model.config.backbone, MViTConfig) and model.config.masks
    assert model.card["classes"] == ["block", "disc"] and model.config.num_classes == 2
    assert model.card["preprocessing"]["resize"] == 64 and model.card["category_ids"] == [1, 2]
    row = next(csv.DictReader((run / "results.csv").read_text().splitlines()))
    assert {"box_ap", "box_ap50", "mask_ap", "train_loss"} <= set(row)


def test_a_run_goes_on(run, capsys):
    words = ["train", str(run.parent / "boxes"), "--task", "segment", "--epochs", "1", "--output", str(run)]
    assert main([*words, *TINY]) == 0
    assert "going on from step 2 of 2" in capsys.readouterr().out


def test_evaluation(run, capsys, tmp_path):
    data, report, found = str(run.parent / "boxes"), tmp_path / "r.json", tmp_path / "found.json"
    words = ["--json", str(report), "--results", str(found), "--min-score", "0.0", "--max-detections", "7", "-j", "0"]
    assert main(["eval", str(run), data, *words]) == 0
    out = capsys.readouterr().out
    assert "BOX" in out and "MASK" in out and ["pictures", "2"] in [line.split() for line in out.splitlines()]
    content, results = json.loads(report.read_text()), json.loads(found.read_text())
    assert content["images"] == 2 and set(content["mask"]["figures"]) == set(content["box"]["figures"])
    assert 0 < len(results) <= 14 and {"image_id", "category_id", "bbox", "score", "segmentation"} <= set(results[0])
    assert main(["eval", str(run), data, "--task", "detect", "-j", "0", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["mask"] is None


def test_what_is_wrong_with_the_data_is_told_before_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MVITV2_CACHE", str(tmp_path / "cache"))
    shapes(tmp_path / "boxes", "train", 4)
    shapes(tmp_path / "boxes", "val", 2)
    lines = [json.loads(line) for line in (tmp_path / "boxes" / "train.jsonl").read_text().splitlines()]
    lines[0]["boxes"][0] = [300, 300, 310, 310]
    lines[1]["boxes"][1][2] = lines[1]["boxes"][1][0]
    (tmp_path / "boxes" / "train" / "3.png").write_bytes(b"")
    (tmp_path / "boxes" / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["train", str(tmp_path / "boxes"), "--task", "segment", "--output", str(tmp_path / "run"), *TINY]
    assert main([*words, "--dry-run"]) == 0
    out = capsys.readouterr().out
    for told in ("1 boxes outside their picture in train", "1 boxes without area in train", "cannot be read"):
        assert told in out
    for path in (tmp_path / "boxes" / "train").iterdir():
        path.write_bytes(b"")
    assert main([*words, "--dry-run"]) == 1
    err = capsys.readouterr().err
    assert "cannot be read" in err and "--no-check trains without looking" in err


def test_reports(run, capsys, tmp_path):
    """The last page of a run, and that of an evaluation, with the run's curves."""
    data, page = str(run.parent / "boxes"), tmp_path / "r.html"
    words = ["train", data, "--task", "segment", "--epochs", "1", "--output", str(run), *TINY]
    assert main([word for word in words if word != "--no-report"]) == 0
    assert f"report: {run / 'report.html'}" in capsys.readouterr().out
    last = (run / "report.html").read_text()
    assert "What to do next" in last and "validation images" in last
    assert main(["eval", str(run), data, "--report", str(page), "-j", "0"]) == 0
    assert f"report: {page}" in capsys.readouterr().err
    for text in (last, page.read_text()):
        assert text.count("data:image/") == 4 and "Average precision by epoch" in text and "<td>disc</td>" in text
        assert "box AP</small>" in text and "masks AP" in text and "stages" in text and "Environment" in text


def test_prediction(run, capsys, tmp_path):
    picture = str(run.parent / "boxes/val/0.png")
    words = ["--min-score", "0.0", "--max-detections", "3", "-j", "0"]
    assert main(["predict", str(run), picture, *words, "--format", "jsonl", "--save", str(tmp_path)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["height"] == 72 and len(answer["objects"]) == 3 and answer["objects"][0]["class"] in ("block", "disc")
    (drawn,) = tmp_path.rglob("*.jpg")
    with Image.open(drawn) as seen:
        assert seen.size == (96, 72)
    assert main(["predict", str(run), picture, *words, "--output", str(tmp_path / "a.csv"), "--tile", "64"]) == 0
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert 1 <= len(rows) <= 3 and float(rows[0]["right"]) > float(rows[0]["left"])
    assert main(["predict", str(run), picture, *words, "--format", "coco"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results[0]["image_id"] == 0 and results[0]["category_id"] in (1, 2)
    assert "segmentation" in results[0]
    assert main(["predict", str(run), picture, *words, "--format", "coco", "--task", "detect"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert [one.pop("segmentation") and one for one in results] == alone
    assert main(["predict", str(run), picture, "nowhere.png", *words]) == 1
    out, err = capsys.readouterr()
    assert "0.png" in out and "nowhere.png: does not exist" in err and "1 of 2 could not be predicted" in err


@pytest.mark.slow
def test_a_prediction_that_was_killed_goes_on(run, tmp_path, capsys):
    shapes(tmp_path, "many", 40)
    (tmp_path / "many" / "broken.png").write_bytes(b"")
    words = ["predict", str(run), str(tmp_path / "many"), "--min-score", "0.0", "--max-detections", "3", "-j", "0"]
    killed, whole = tmp_path / "killed.csv", tmp_path / "whole.csv"
    child = subprocess.Popen([sys.executable, "-m", "mvitv2", *words, "-b", "1", "--output", str(killed)])
    end = time.monotonic() + 240
    while not (killed.exists() and killed.read_text().count("\n") > 10) and child.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    before = {row["file"] for row in csv.DictReader(killed.read_text().splitlines())}
    assert 3 < len(before) < 41
    assert main([*words, "-b", "1", "--output", str(killed)]) == 1
    assert "exists already; --resume goes on with it" in capsys.readouterr().err
    assert main([*words, "-b", "1", "--output", str(killed), "--resume"]) == main(
        [*words, "-b", "1", "--output", str(whole)]
    )
    told = capsys.readouterr().err
    assert f"{len(before) - 1} more were in it before" in told and "broken.png" in told
    assert killed.read_bytes() == whole.read_bytes()
    for name, rows in (("a.jsonl", 41), ("a.parquet", 1)):
        assert main([*words, "--output", str(tmp_path / name)]) == 1
        there = (tmp_path / name).read_text().splitlines() if name.endswith("l") else list((tmp_path / name).iterdir())
        assert len(there) == rows


def test_a_clip_frame_by_frame(run, tmp_path, capsys):
    """A line for each frame, the film with boxes on it, pictures of the same folder beside it."""
    shapes(tmp_path / "in", "many", 3)
    pictures = [np.asarray(Image.open(tmp_path / "in" / "many" / f"{i}.png")) for i in range(3)]
    film = write_film(tmp_path / "in" / "many" / "clip.mp4", np.stack([pictures[i // 4] for i in range(12)]), fps=5)
    (film.parent / "cut.mp4").write_bytes(film.read_bytes()[:300])
    words = ["predict", str(run), str(film.parent), "--min-score", "0.0", "--max-detections", "2", "-j", "0", "-b", "5"]
    answers, seen = tmp_path / "a.jsonl", tmp_path / "seen"
    assert main([*words, "--output", str(answers), "--save", str(seen)]) == 1
    assert "cut.mp4: " in capsys.readouterr().err
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    frames = [row for row in rows if row["file"] == str(film)]
    assert [row["frame"] for row in frames] == list(range(12)) and len(rows) == 12 + 1 + 3
    assert [row["seconds"] for row in frames] == pytest.approx([i / 5 for i in range(12)])
    assert all(len(row["objects"]) == 2 and (row["height"], row["width"]) == (72, 96) for row in frames)
    (drawn,) = seen.rglob("*.mp4")
    assert drawn.name == "clip.mp4" and len(list(seen.rglob("*.jpg"))) == 3
    with open_clip(drawn) as clip:
        assert clip.info.frames == 12 and clip.info.seconds == pytest.approx(2.4, abs=0.1)
        shown = clip.frames([0])[0].permute(1, 2, 0).numpy()
    plain = np.asarray(Image.fromarray(pictures[0]).resize(shown.shape[1::-1]))
    assert (np.abs(shown.astype(int) - plain).max(axis=2) > 80).mean() > 0.01  # boxes and words
    assert main([*words[:2], str(film), *words[3:], "--format", "csv"]) == 0
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(table) == 24 and table[-1]["frame"] == "11" and float(table[-1]["seconds"]) == pytest.approx(2.2)
    assert main([*words[:2], str(film), *words[3:]]) == 0
    assert "clip.mp4     2.20 s  " in capsys.readouterr().out
    assert main([*words, "--output", str(answers), "--resume"]) == 1  # the last one is looked at again
    assert "4 more were in it before" in capsys.readouterr().err
    assert answers.read_text().count("\n") == len(rows)


@pytest.mark.slow
@pytest.mark.skipif(not ZOO.is_dir(), reason=f"the zoo of broken files is not at {ZOO}")
def test_odd_and_broken_files_are_answered_in_a_line_each(run, tmp_path, capsys):
    clips = ("truncated*", "zero_byte*", "text_as*", "wav_named*", "jpg_named*", "two_frames*")
    films = sorted(path for pattern in clips for path in (ZOO / "video_gen").glob(pattern))
    answers = tmp_path / "a.jsonl"
    words = ["-j", "0", "--min-score", "0.0", "--max-detections", "1", "--output", str(answers)]
    assert main(["predict", str(run), str(ZOO / "image_gen"), *map(str, films), *words]) == 1
    told = capsys.readouterr().err
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    named = {path for path in walk(ZOO / "image_gen") if isinstance(path, Path)} | {*films}
    assert {Path(row["file"]) for row in rows} == named
    failed = [row["error"] for row in rows if row["error"] is not None]
    assert f"{len(rows)} pictures, {len(failed)} of them could not be predicted" in told and len(failed) > 20
    assert all("\n" not in error and not row["objects"] for row in rows if (error := row["error"]))
    cut = [row["frame"] for row in rows if row["file"].endswith("truncated_60pct_moov_first.mp4") and not row["error"]]
    assert cut == list(range(28))  # all frames before the damage


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "RUN", "x.png", "--task", "classify"], "is a detector"),
        (["predict", "RUN", "x.png", "--min-score", "2"], "--min-score 2.0 must be from 0 to 1"),
        (["predict", "RUN", "x.png", "--img-size", "64", "80"], "takes one number, the shorter side"),
        (["predict", "RUN", "x.png", "--output", "x.txt"], "objects are written as .json, .jsonl, .csv, .parquet"),
        (["predict", "RUN", "x.png", "--output", "x.csv", "--format", "coco"], "the file would hold csv"),
        (["predict", "RUN", "x.png", "--output", "x.json", "--resume"], "--resume goes on with .jsonl, .csv or"),
        (["predict", "RUN", "x.png", "--resume"], "name it with --output"),
        (["predict", "RUN", "x.png", "--crop-pct", "0.9", "--seconds"], "--crop-pct and --seconds: of classifiers"),
        (["eval", "RUN", "DATA", "--split", "test"], "has no boxes of test"),
    ],
)
def test_what_cannot_be_is_told(run, capsys, words, message):
    data = str(run.parent / "boxes")
    assert main([word.replace("RUN", str(run)).replace("DATA", data) for word in words]) in (1, 2)
    assert message in capsys.readouterr().err
