"""The commands that read models: inspect, convert, predict, eval. Each on a tiny random checkpoint, made here."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mvitv2
from mvitv2 import MViT, MViTConfig
from mvitv2.cli.__main__ import main
from mvitv2.core.stages import stages
from mvitv2.preprocessing import IMAGENET
from mvitv2.weights.files import write

ZOO = Path(__file__).parents[2].parent / "shared" / "data" / "zoo"
CLASSES = ["cat", "dog", "grue"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three classes for 64 pixels, in our own format."""
    torch.manual_seed(0)
    config = MViTConfig(blocks=stages(depths=(1, 1, 1, 1), embed_dim=8), input_size=(64, 64), num_classes=3)
    model = MViT(config)
    model.card = {"classes": CLASSES, "preprocessing": IMAGENET.at(64).to_dict()}
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    return mvitv2.save_weights(model, path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with two pictures each, one of which cannot be read."""
    root = tmp_path_factory.mktemp("data") / "photos"
    draw = np.random.default_rng(0)
    for name in CLASSES:
        (root / "val" / name).mkdir(parents=True)
        for i in range(2):
            pixels = draw.integers(0, 255, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "val" / name / f"{i}.png")
    (root / "val" / "dog" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    return root


def output(capsys, *words: object, code: int = 0) -> tuple[str, str]:
    """What a command prints to standard output and to standard error."""
    assert main([str(word) for word in words]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err and "\x1b" not in captured.out + captured.err
    return captured.out, captured.err


def classifier(path: Path) -> MViT:
    """The model in a file."""
    model = mvitv2.load_model(path)
    assert isinstance(model, MViT)
    return model


def failure(capsys, *words: object) -> str:
    """The one line of a command that fails."""
    out, err = output(capsys, *words, code=1)
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_inspect(capsys, checkpoint) -> None:
    out, _ = output(capsys, "inspect", checkpoint)
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["dialect"] == "mvitv2 (safetensors)"
    assert lines["classes"] == "3: cat, dog, grue"
    assert lines["preprocessing"].startswith("shorter side 73, centre 64x64, bicubic, rgb, mean 0.485")
    assert lines["missing"] == "nothing"


def test_inspect_as_json(capsys, checkpoint) -> None:
    told = json.loads(output(capsys, "inspect", checkpoint, "--json")[0])
    assert (told["dialect"], told["classes"], told["input_size"]) == ("mvitv2", CLASSES, [64, 64])


def test_inspect_a_folder_of_a_run(capsys, checkpoint, tmp_path) -> None:
    shutil.copy(checkpoint, tmp_path / "best.safetensors")
    assert "best.safetensors" in output(capsys, "inspect", tmp_path)[0]


def test_describe_a_file(capsys, checkpoint) -> None:
    out, _ = output(capsys, "describe", checkpoint)
    assert ": image, 64x64, 3 channels, 3 classes\n" in out and len(out.splitlines()) >= 7
    assert "by name only" in failure(capsys, "describe", checkpoint, "--img-size", "32")


def test_inspect_what_is_incomplete(capsys, checkpoint, tmp_path) -> None:
    state = {k: v for k, v in mvitv2.load_model(checkpoint).state_dict().items() if "blocks.1.norm2" not in k}
    write(tmp_path / "cut.pth", state, container="torch zip")
    out, _ = output(capsys, "inspect", tmp_path / "cut.pth", code=1)
    assert "blocks.1.norm2.weight" in out


def test_inspect_what_is_no_weights_file(capsys, tmp_path) -> None:
    (tmp_path / "page.pth").write_text("<!doctype html>")
    assert "web page" in failure(capsys, "inspect", tmp_path / "page.pth")
    assert "folder without weights" in failure(capsys, "inspect", tmp_path)
    assert "neither a file nor a model" in failure(capsys, "inspect", tmp_path / "none.pth")
    assert "did you mean page.pth" in failure(capsys, "inspect", tmp_path / "pgae.pth")


@pytest.mark.parametrize("dialect", ["mvitv2", "official", "slowfast", "timm", "mmpretrain"])
def test_convert_there_and_back(capsys, checkpoint, tmp_path, dialect: str) -> None:
    there, back = tmp_path / "there.bin", tmp_path / "back.safetensors"
    out, _ = output(capsys, "convert", checkpoint, there, "--to", dialect)
    assert out.startswith(f"{there}: {dialect}, 0.")
    assert json.loads(output(capsys, "inspect", there, "--json")[0])["dialect"] in (dialect, "official")
    output(capsys, "convert", there, back)
    pixels = torch.randn(1, 3, 64, 64)
    first, second = mvitv2.load_model(checkpoint)(pixels), mvitv2.load_model(back, head_activation="none")(pixels)
    torch.testing.assert_close(first, second)


def test_convert_with_another_classifier(capsys, checkpoint, tmp_path) -> None:
    target = tmp_path / "two.safetensors"
    out, _ = output(capsys, "convert", checkpoint, target, "--num-classes", "2", "--img-size", "96")
    assert "note: classifier of 3 classes replaced" in out
    config = classifier(target).config
    assert (config.num_classes, config.input_size) == (2, (96, 96))


def test_convert_keeps_what_is_there(capsys, checkpoint, tmp_path) -> None:
    target = tmp_path / "kept.safetensors"
    target.write_text("precious")
    assert "--overwrite" in failure(capsys, "convert", checkpoint, target)
    assert target.read_text() == "precious"
    output(capsys, "convert", checkpoint, target, "--overwrite")
    assert classifier(target).card["classes"] == CLASSES


def test_convert_what_cannot_be(capsys, checkpoint, tmp_path) -> None:
    assert "torchvision cannot hold" in failure(
        capsys, "convert", checkpoint, tmp_path / "x.pth", "--to", "torchvision"
    )
    assert "no folder" in failure(capsys, "convert", checkpoint, tmp_path / "no" / "x.pth")
    assert "neither a file nor a model" in failure(capsys, "convert", tmp_path / "none.pth", tmp_path / "x.pth")
    assert not list(tmp_path.iterdir())


def test_predict_as_a_table(capsys, checkpoint, photos) -> None:
    out, err = output(capsys, "predict", checkpoint, photos / "val" / "cat", "--top-k", "2")
    rows = [line.split() for line in out.splitlines()]
    assert [Path(row[0]).name for row in rows] == ["0.png", "1.png"]
    assert rows[0][2] == "%" and rows[0][3] in CLASSES and float(rows[0][1]) >= float(rows[0][4])
    assert err == ""


def test_predict_goes_on_after_a_bad_file(capsys, checkpoint, photos) -> None:
    out, err = output(capsys, "predict", checkpoint, photos, photos / "missing.png", "-j", "0", "-b", "2", code=1)
    assert len(out.splitlines()) == 5
    assert "dog/1.png: " in err and "missing.png: does not exist" in err
    assert err.splitlines()[-1] == "2 of 7 could not be predicted"


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_predict_as_json(capsys, checkpoint, photos, kind: str) -> None:
    out, _ = output(capsys, "predict", checkpoint, photos / "val" / "*" / "*.png", "--format", kind, "-k", "9", code=1)
    answers = json.loads(out) if kind == "json" else [json.loads(line) for line in out.splitlines()]
    assert [answer["file"][-9:] for answer in answers][:4] == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    good, bad = answers[0], answers[3]
    assert {entry["class"] for entry in good["predictions"]} == set(CLASSES) and good["error"] is None
    assert sum(entry["score"] for entry in good["predictions"]) == pytest.approx(1)
    assert bad["predictions"] == [] and "PNG" in bad["error"]


def test_predict_nothing_as_json(capsys, checkpoint, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert output(capsys, "predict", checkpoint, "-", "--format", "json")[0] == "[]\n"


def test_predict_as_csv(capsys, checkpoint, photos) -> None:
    out, _ = output(capsys, "predict", checkpoint, photos / "val" / "dog", "format=csv", "topk=1", code=1)
    header, good, bad = csv.reader(io.StringIO(out))
    assert header == ["file", "error", "class_1", "score_1"]
    assert good[1] == "" and good[2] in CLASSES and 0 < float(good[3]) <= 1
    assert bad[1] != "" and len(bad) == 2


def test_predict_files_named_on_standard_input(capsys, checkpoint, photos, monkeypatch) -> None:
    files = sorted((photos / "val" / "cat").iterdir())
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{file}\n" for file in files)))
    out, _ = output(capsys, "predict", checkpoint, "-", "--img-size", "48")
    assert len(out.splitlines()) == len(files)


def test_predict_what_cannot_be(capsys, checkpoint, tmp_path) -> None:
    assert "--top-k 0 must be at least 1" in output(capsys, "predict", checkpoint, "x.png", "-k", "0", code=2)[1]
    assert "device 'gpu' cannot be used" in failure(capsys, "predict", checkpoint, "x.png", "--device", "gpu")
    backbone = tmp_path / "features.safetensors"
    output(capsys, "convert", checkpoint, backbone, "--num-classes", "0")
    assert "has no classifier" in failure(capsys, "predict", backbone, "x.png")
    assert main(["predict", str(checkpoint)]) == 2
    assert "predict needs FILES" in capsys.readouterr().err


@pytest.mark.skipif(not ZOO.is_dir(), reason=f"the zoo of broken files is not at {ZOO}")
def test_predict_odd_and_broken_pictures(capsys, checkpoint) -> None:
    files = sorted(path for folder in ("image_gen", "image_pillow") for path in (ZOO / folder).iterdir())
    out, err = output(capsys, "predict", checkpoint, *files, "--format", "jsonl", "-k", "1", code=1)
    answers = [json.loads(line) for line in out.splitlines()]
    assert len(answers) >= len(files) and err.count("\n") == 1
    for answer in answers:
        assert len(answer["predictions"]) == 1 if answer["error"] is None else "\n" not in answer["error"]


def test_a_model_nobody_has_offline(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MVITV2_CACHE", str(tmp_path))
    monkeypatch.setenv("MVITV2_OFFLINE", "1")
    assert "offline" in failure(capsys, "predict", "mvitv2_t", "x.png")
    assert "did you mean mvitv2_t" in failure(capsys, "predict", "mvitv2_tt", "x.png")


def test_eval(capsys, checkpoint, photos) -> None:
    out, err = output(capsys, "eval", checkpoint, photos, "-j", "0")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines()[:2])
    assert lines["images"] == "5"
    assert [line.split()[0] for line in out.splitlines()[-3:]] == CLASSES
    assert "unreadable, left out: " in err and "dog/1.png" in err


def test_eval_class_folders_without_splits(capsys, checkpoint, photos) -> None:
    assert output(capsys, "eval", checkpoint, photos / "val", "workers=0")[0].startswith("images ")


def test_eval_weights_that_name_no_classes(capsys, checkpoint, photos, tmp_path) -> None:
    write(tmp_path / "theirs.pth", mvitv2.load_model(checkpoint).state_dict(), container="torch zip")
    out, _ = output(capsys, "eval", tmp_path / "theirs.pth", photos, "-j", "0")
    assert [line.split()[0] for line in out.splitlines()[-3:]] == CLASSES


def test_eval_writes_a_page(capsys, checkpoint, photos, tmp_path) -> None:
    _, err = output(capsys, "eval", checkpoint, photos, "--report", tmp_path / "page.html", "-j", "0")
    assert f"report: {tmp_path / 'page.html'}\n" in err
    assert "tiny.safetensors on photos" in (tmp_path / "page.html").read_text()
    assert "no folder" in failure(capsys, "eval", checkpoint, photos, "--report", tmp_path / "no" / "page.html")


def test_eval_as_json(capsys, checkpoint, photos, tmp_path) -> None:
    out, _ = output(capsys, "eval", checkpoint, photos, "--json", tmp_path / "figures.json", "-j", "0")
    told = json.loads((tmp_path / "figures.json").read_text())
    assert told["images"] == 5 and len(told["per_class"]) == 3
    assert f"{100 * told['top1']:.2f} %" in out
    printed = json.loads(output(capsys, "eval", checkpoint, photos, "--json", "-", "-j", "0")[0])
    assert printed["top1"] == told["top1"]


def test_eval_what_cannot_be(capsys, checkpoint, photos, tmp_path) -> None:
    assert "does not exist" in failure(capsys, "eval", checkpoint, tmp_path / "none")
    assert "test" in failure(capsys, "eval", checkpoint, photos, "--split", "test")
    assert "classes" in failure(capsys, "eval", checkpoint, photos.parent)
    (tmp_path / "empty").mkdir()
    assert "class folders" in failure(capsys, "eval", checkpoint, tmp_path / "empty")
