"""``mvitv2 train`` and ``mvitv2 recipes``: a run from the first word to the weights, and every way to say how."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mvitv2.cli import train
from mvitv2.cli.__main__ import main
from mvitv2.cli.arguments import parsed
from mvitv2.cli.chosen import chosen, chosen_recipe, settings_of
from mvitv2.cli.failures import UsageError
from mvitv2.train.recipe import Recipe
from mvitv2.train.recipes import RECIPES
from mvitv2.variants import VARIANTS
from mvitv2.weights.peers.slowfast_settings import official_settings

SMALL = ["--set", "stages.depths=1,1", "--set", "stages.embed_dim=8", "--batch-size", "256", "--epochs", "1"]


def options(*words: str) -> train.Options:
    found = parsed(train.Options, words, command="train", about="", examples="")
    assert found is not None
    return found


def recipe(*words: str) -> Recipe:
    return chosen_recipe(options(*words))


def test_a_run_can_be_measured_used_and_gone_on_with(capsys, tmp_path) -> None:
    words = ["train", "digits", "--output", str(tmp_path / "run"), *SMALL]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "recipe digits, 1 epochs; 1258 pictures of 10 classes, 32 pixels" in shown
    assert "epoch 1/1" in shown and f"next: mvitv2 eval {tmp_path / 'run'} digits" in shown
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"report: {tmp_path / 'run' / 'report.html'}" in shown and "What is taken for what" in page
    assert page.count("<figure") == 24 and "Recipe: every setting" in page and "Environment" in page
    assert 'http-equiv="refresh"' not in page
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))
    assert main(["eval", str(tmp_path / "run"), "digits"]) == 0
    assert capsys.readouterr().out.startswith("images             270\n")
    assert main(words) == 0
    assert "epoch 1/1" not in capsys.readouterr().out
    assert main([*words, "--lr", "1"]) == 1
    assert "lr: 0.002 -> 1.0" in capsys.readouterr().err
    assert main([*words, "--resume", "never"]) == 1
    assert "holds a run already" in capsys.readouterr().err


def test_a_run_for_programs(capsys, tmp_path) -> None:
    words = ["train", "digits", "--output", str(tmp_path / "run"), *SMALL, "--json", "--no-report", "--log", "none"]
    assert main(words) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["note", "start", *["step"] * 4, "epoch", "done"]
    assert lines[-1]["best"]["epoch"] == 1 and lines[-1]["report"] is None
    assert not (tmp_path / "run" / "report.html").exists() and not (tmp_path / "run" / "tensorboard").exists()
    assert main(["train", "digits", "--log", "tensorbord", "--output", str(tmp_path / "run")]) == 1
    assert "there is no tracker 'tensorbord'" in capsys.readouterr().err


def test_a_misspelt_tracker_is_told_before_the_data_is_read(capsys, tmp_path) -> None:
    assert main(["train", str(tmp_path / "no-such-folder"), "--log", "wandbb"]) == 1
    assert "there is no tracker 'wandbb'" in capsys.readouterr().err


def test_the_demonstration(capsys, tmp_path) -> None:
    assert main(["demo", "--output", str(tmp_path / "demo"), "--epochs", "1"]) == 0
    shown = capsys.readouterr().out
    for part in ("epoch 1/1", " of 269 digits it has never seen are right", "is 1", "mvitv2 predict"):
        assert part in shown
    assert f"report: {tmp_path / 'demo' / 'report.html'}" in shown
    assert "handwritten digits" in (tmp_path / "demo" / "report.html").read_text()
    assert main(["demo", "--output", str(tmp_path / "demo"), "--epochs", "0"]) == 1
    assert "epochs=0" in capsys.readouterr().err


def test_what_cannot_be_trained(capsys, tmp_path) -> None:
    for words, part in (
        (["nowhere"], "nowhere does not exist"),
        (["digits", "--recipe", "none"], "there is no recipe 'none'"),
        (["digits", "--model", "mvitv2_tt"], "did you mean mvitv2_t"),
        (["digits", "--weights", str(tmp_path / "none.pyth")], "No such file"),
        (["digits", "--num-classes", "3"], "--num-classes 3: digits has 10"),
        (["digits", "--epochs", "0"], "epochs=0 must be at least 1"),
        (["digits", "--set", "no_field=1"], "no field of a recipe: 'no_field'"),
        (["digits", "augmentation.strength=1"], "has no such field"),
        (["digits", "stages.dephts=1,1"], "no field of stages: 'dephts' (did you mean 'depths'?); there are depths"),
        (["digits", "--resume", "must"], "no checkpoint to go on from"),
    ):
        assert main(["train", *words, "--output", str(tmp_path / "run")]) == 1
        error = capsys.readouterr().err
        assert part in error and error.count("\n") == 1


def test_a_run_from_weights_tells_what_was_changed(capsys, tmp_path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    assert main(["train", "digits", "--output", first, *SMALL]) == 0
    weights = f"{first}/best.safetensors"
    capsys.readouterr()
    assert main(["train", "digits", "--weights", weights, "imgsz=48", "--epochs", "1", "--output", second]) == 0
    shown = capsys.readouterr().out
    assert "tables resampled" in shown.splitlines()[0] and f"weights of {weights}" in shown


def test_ctrl_c_saves_and_is_no_error_of_ours(tmp_path) -> None:
    words = ["train", "digits", "--output", str(tmp_path / "run"), "--epochs", "200"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "mvitv2", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error and error.count("\n") == 1
    assert (tmp_path / "run" / "last.pt").exists()


def test_every_field_of_a_recipe_can_be_said() -> None:
    flags = {field.name for field in fields(train.Options)}
    by_name = {"name", "source", "stages", "model_fields", "preprocessing", "augmentation", "adapters", "detector"}
    assert {field.name for field in fields(Recipe)} - by_name <= flags


def test_the_recipe_follows_from_what_is_to_be_done() -> None:
    assert recipe("digits").name == "digits"
    assert recipe("photos").name == "imagenet_t"
    assert recipe("photos", "--model", "mvitv2_small").name == "imagenet_s"
    assert recipe("photos", "--pretrained").name == "fine_tune"
    assert recipe("photos", "weights=a.pyth").weights == "a.pyth"
    assert recipe("photos", "--recipe", "digits").name == "digits"


def test_recipes_that_need_weights_say_so() -> None:
    for name in ("lora", "linear_probe"):
        with pytest.raises(UsageError, match="start from weights, --pretrained or --weights FILE"):
            recipe("photos", "--recipe", name)
        assert recipe("photos", "--recipe", name, "--pretrained").weights == "pretrained"
    assert recipe("photos", "--recipe", "lora", "--pretrained", "--adapters.rank", "4").adapters["rank"] == 4
    assert recipe("photos", "--model", "mvitv2_b_cls_21k").name == "imagenet21k_b"
    assert recipe("photos", "--model", "mvitv2_b").name == "imagenet_b"


def test_words_that_change_nothing_leave_the_recipe_as_it_is() -> None:
    assert recipe("digits") == RECIPES["digits"]
    assert recipe("photos", "--output", "x", "-j", "3") == RECIPES["imagenet_t"]


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--opt", "sgd"], "optimizer", "sgd"),
        (["--smoothing", "0.2"], "label_smoothing", 0.2),
        (["--clip-grad", "none"], "clip_norm", None),
        (["clip_norm=2"], "clip_norm", 2.0),
        (["imgsz=96"], "img_size", 96),
        (["batch=7"], "batch_size", 7),
        (["lr0=0.5"], "lr", 0.5),
        (["--amp"], "precision", "bf16"),
        (["--pretrained"], "weights", "pretrained"),
        (["--model-ema"], "ema_decay", 0.9998),
        (["--model-ema-decay", "0.99"], "ema_decay", 0.99),
        (["--betas", "0.8", "0.9"], "betas", (0.8, 0.9)),
        (["--compile"], "compile", True),
        (["--no-compile"], "compile", False),
        (["grad_checkpointing=true"], "grad_checkpointing", True),
        (["--aa", "none"], "augmentation", {**RECIPES["imagenet_t"].augmentation, "policy": None}),
        (["--reprob", "0.1"], "augmentation", {**RECIPES["imagenet_t"].augmentation, "erase_probability": 0.1}),
        (["--augmentation.flip", "0"], "augmentation", {**RECIPES["imagenet_t"].augmentation, "flip": 0}),
    ],
)
def test_an_option_reaches_its_field(words: list[str], field: str, value: object) -> None:
    assert getattr(recipe("photos", "--recipe", "imagenet_t", *words), field) == value


def test_the_warm_up_keeps_its_part_of_the_epochs() -> None:
    assert recipe("photos", "--epochs", "30").warmup_epochs == 7.0
    assert recipe("photos", "--epochs", "30", "--warmup-epochs", "1").warmup_epochs == 1.0


def test_a_model_of_ones_own_choice_has_its_own_stages() -> None:
    assert recipe("digits").stages
    assert not recipe("digits", "--model", "mvitv2_t").stages
    assert recipe("digits", "--model", "mvitv2_t", "--set", "stages.depths=1,1").stages == {"depths": (1, 1)}


def test_a_file_is_no_model_but_weights(tmp_path) -> None:
    (tmp_path / "theirs.pyth").touch()
    with pytest.raises(UsageError, match="--weights starts from it"):
        recipe("photos", "--model", str(tmp_path / "theirs.pyth"))


@pytest.mark.parametrize(
    "words",
    [
        ["--pretrained", "--weights", "x"],
        ["--amp", "precision=fp16"],
        ["--aa", "none", "augmentation.policy=v0"],
        ["--set", "x"],
    ],
)
def test_contradictions(words: list[str]) -> None:
    with pytest.raises(UsageError):
        recipe("photos", *words)


def test_a_recipe_from_a_file(tmp_path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(RECIPES["digits"].to_dict()))
    assert recipe("photos", "--recipe", str(path), "--seed", "3").to_dict() == {
        **RECIPES["digits"].to_dict(),
        "seed": 3,
    }
    path.write_text("- 1")
    with pytest.raises(ValueError, match="holds a list"):
        recipe("photos", "--recipe", str(path))
    path.write_text("{epocks: 3}")
    with pytest.raises(ValueError, match="did you mean 'epochs'"):
        recipe("photos", "--recipe", str(path))


def test_defaults_from_a_yaml_file(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"lr": 0.5, "opt": "sgd", "augmentation": {"flip": 0.0, "scale": [0.5, 1.0]}}))
    found = recipe("photos", "--config", str(path), "lr=0.25", "augmentation.flip=1")
    assert (found.lr, found.optimizer) == (0.25, "sgd")
    assert (found.augmentation["flip"], found.augmentation["scale"]) == (1, (0.5, 1.0))


def test_settings() -> None:
    found = settings_of(options("some/photos", "--resume", "true", "--deterministic", "yes", "-j", "0"))
    assert (found.output, found.resume, found.deterministic, found.workers) == (Path("runs/photos"), "must", True, 0)
    assert settings_of(options("digits")).workers == 0
    assert settings_of(options("photos")).workers >= 1


def test_recipes(capsys, tmp_path) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(RECIPES)
    assert main(["recipes", "digits"]) == 0
    assert "warmup_epochs       2.0" in capsys.readouterr().out
    assert main(["recipes", "digits", "--json"]) == 0
    (tmp_path / "mine.json").write_text(capsys.readouterr().out)
    assert recipe("photos", "--recipe", str(tmp_path / "mine.json")) == RECIPES["digits"]
    assert main(["recipes", "digit"]) == 1
    assert "did you mean 'digits'" in capsys.readouterr().err


QUICK = [*SMALL, "--overfit-batches", "1", "--batch-size", "32"]


def test_the_recipe_of_a_run_gives_the_same_run_again(capsys, tmp_path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["train", "digits", "--output", str(first), *QUICK, "--seed", "5", "--epochs", "2"]) == 0
    assert main(["train", "digits", "--recipe", str(first / "recipe.json"), "--output", str(second)]) == 0
    ours, theirs = load_file(first / "best.safetensors"), load_file(second / "best.safetensors")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    rows = [[r for r in csv.DictReader((f / "results.csv").read_text().splitlines())] for f in (first, second)]
    assert [r["train_loss"] for r in rows[0]] == [r["train_loss"] for r in rows[1]] and len(rows[0]) == 2


def test_what_would_be_trained_is_told_without_doing_it(capsys, tmp_path) -> None:
    out = ["--output", str(tmp_path / "run")]
    assert main(["train", "digits", *QUICK, *out, "--print-config"]) == 0
    shown = capsys.readouterr().out
    (tmp_path / "mine.yaml").write_text(shown)
    assert recipe("x", "--recipe", str(tmp_path / "mine.yaml")) == recipe("digits", *QUICK)
    assert main(["train", "digits", *QUICK, *out, "--dry-run", "--freeze", "stem"]) == 0
    told = capsys.readouterr().out
    for part in ("32 to train on: 32 pixels in epochs 1 to 1", "1 (1 an epoch, 1 epochs)", "parameters are trained"):
        assert part in told
    assert "mvitv2_t with other stages" in told
    assert not (tmp_path / "run").exists()


def test_a_batch_size_that_is_found_is_kept(capsys, tmp_path) -> None:
    words = ["train", "digits", "--output", str(tmp_path / "run"), *SMALL, "--overfit-batches", "1", "batch=auto"]
    words += ["--set", "accumulation=2"]
    assert main(words) == 0
    assert "keeps the global batch of 128 images" in capsys.readouterr().out
    saved = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert saved["batch_size"] * saved["accumulation"] == 128
    assert main([*words[:-1], "accumulation=4"]) == 0  # the folder's own, not found again
    assert "found by" not in capsys.readouterr().out


def test_learning_by_heart_leaves_out_what_would_keep_from_it() -> None:
    found = recipe("photos", "--overfit-batches", "2", "--mixup", "0.1")
    assert (found.overfit_batches, found.mixup, found.cutmix, found.augmentation) == (2, 0.1, 0.0, {"kind": "none"})


def test_words_of_timm_for_entries() -> None:
    found = recipe(
        "photos", "--hflip", "0", "--scale", "0.3", "1.0", "--remode", "const", "--drop", "0.2", "fliplr=0.1"
    )
    assert found.augmentation == {"kind": "published", "flip": 0.1, "scale": (0.3, 1.0), "erase_mode": "const"}
    assert found.model_fields == {"head_dropout": 0.2}
    assert recipe("photos", "--bce-loss").loss == "bce"
    assert recipe("photos", "--pretrained", "--no-aug").augmentation == {"kind": "none"}
    assert recipe("photos", "--progressive", "1:128", "20:160").progressive == {"1": 128, "20": 160}
    assert recipe("photos", "--class-weights", "1,2").class_weights == (1, 2)
    assert recipe("photos", "freeze=4", "patience=3").freeze == ("4",)
    with pytest.raises(UsageError, match="expected EPOCH:SIZE"):
        recipe("photos", "--progressive", "128")


def test_resuming_from_a_checkpoints_path(tmp_path) -> None:
    (tmp_path / "last.pt").touch()
    found = settings_of(options("photos", "--resume", str(tmp_path / "last.pt"), "--device", "1"))
    assert (found.output, found.resume, found.device) == (tmp_path, "must", "cuda:1")
    with pytest.raises(UsageError, match="a run goes on in its own folder"):
        settings_of(options("photos", "--resume", str(tmp_path), "--output", "elsewhere"))
    with pytest.raises(UsageError, match="expected auto, must, never, or the checkpoint"):
        settings_of(options("photos", "--resume", "nowhere.pt"))


def test_a_configuration_of_the_authors(capsys, tmp_path, recwarn) -> None:
    text = yaml.safe_dump(
        {
            "MVIT": {**official_settings(VARIANTS["mvitv2_t"])["MVIT"], "PATCH_KERNEL": "(7, 7)"},
            "MODEL": {"NUM_CLASSES": 1000, "LOSS_FUNC": "soft_cross_entropy", "DROPOUT_RATE": 0.0},
            "DATA": {"TRAIN_CROP_SIZE": 224, "PATH_TO_DATA_DIR": "imagenet", "MEAN": [0.485, 0.456, 0.406]},
            "TRAIN": {"BATCH_SIZE": 256, "DATASET": "imagenet"},
            "SOLVER": {"BASE_LR": 0.00025, "BASE_LR_SCALE_NUM_SHARDS": True, "MAX_EPOCH": 300, "WARMUP_EPOCHS": 70.0},
            "AUG": {"AA_TYPE": "rand-m9-n6-mstd0.5-inc1", "GEN_MASK_LOADER": True},
            "MIXUP": {"ENABLE": False},
            "NUM_GPUS": 8,
        }
    )
    (tmp_path / "MVITv2_T.yaml").write_text(text)
    found, made = chosen(options("--cfg", str(tmp_path / "MVITv2_T.yaml"), "SOLVER.MAX_EPOCH", "100", "--epochs", "50"))
    assert found.data == "imagenet"
    assert (made.model, made.model_fields, made.batch_size, made.lr_batch) == ("mvitv2_t", {}, 32, 256)
    assert (made.lr, made.epochs, made.warmup_epochs, made.mixup, made.label_smoothing) == (2.5e-4, 50, 35.0, 0.0, 0.0)
    assert [str(w.message) for w in recwarn] == ["--cfg: AUG.GEN_MASK_LOADER=True has no place here and is left out"]
    for words, message in ((["KEY"], "'KEY' has none"), (["DATA.NUM_FRAMES", "16"], "is one of clips")):
        with pytest.raises(ValueError, match=message):
            chosen(options("--cfg", str(tmp_path / "MVITv2_T.yaml"), *words))
    with pytest.raises(UsageError, match="train needs DATA"):
        chosen(options())
