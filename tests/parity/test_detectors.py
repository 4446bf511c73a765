"""Whole detectors against detectron2: every section of every fixture, and a comparison that notices a difference."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mvitv2.tasks.detect.variants import ALIASES
from mvitv2.weights.inspect import inspect_weights

from . import fixtures
from .__main__ import main
from .detector_build import config_name
from .detector_compare import compared
from .detector_lines import tools

HERE = fixtures.HERE / "detectors"
SHARED = Path(__file__).parents[3] / "shared" / "parity" / "detectors"
SMALL = sorted(path.name for path in HERE.glob("*tiny_*.json"))
FAST = ("tiny_ckpt.json", "train_tiny_mask_rcnn_bitmask.json")
LARGE = ("t_mask_rcnn.json", "t_cascade.json", "train_t_cascade.json")


def expect_equal(path: Path) -> None:
    wrong = [f"{line.section}: {line.text}" for line in compared(path) if not line.ok]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FAST else (pytest.mark.slow,), id=n.removesuffix(".json")) for n in SMALL]
)
def test_small_detectors(name: str) -> None:
    expect_equal(HERE / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_published_detectors(name: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{name} does not lie in ../shared")
    expect_equal(SHARED / name)


@pytest.mark.parametrize("name", ["detection_spec.json", "schedule.json"])
def test_constants_rates_and_groups(name: str) -> None:
    expect_equal(HERE / name)


@pytest.mark.parametrize(
    "path",
    sorted({p.name: p for p in (*SHARED.glob("keys/*.json"), *HERE.glob("keys/*.json"))}.values()),
    ids=lambda p: p.stem,
)
def test_every_published_name(path: Path) -> None:
    """Names, shapes and their order; and a file with these names is known for what it is."""
    expect_equal(path)
    content = json.loads(path.read_text())
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape, *_ in content["state_dict"]}
    seen = inspect_weights(state)
    assert (seen.variant, seen.missing, seen.superfluous) == (ALIASES[config_name(content["config"])], [], [])


def test_checkpoint_files() -> None:
    if not (SHARED / "checkpoints").exists():
        pytest.skip("the files do not lie in ../shared")
    expect_equal(SHARED / "checkpoints" / "index.json")


def edited(tmp_path: Path, name: str, change: Any) -> Path:
    fixture = json.loads((HERE / name).read_text())
    change(fixture)
    path = tmp_path / name
    path.write_text(json.dumps(fixture))
    return path


def shift_score(fixture: dict[str, Any]) -> None:
    fixture["detections"]["float32"][0]["scores"][0] += 0.01


def lose_detection(fixture: dict[str, Any]) -> None:
    for values in fixture["detections"]["float64"][0].values():
        del values[-1]


def move_proposal(fixture: dict[str, Any]) -> None:
    fixture["proposals"]["float64"][0]["boxes"][3][0] += 1e-4


def other_mask(fixture: dict[str, Any]) -> None:
    fixture["expected_given_detections"]["float32"]["mask.logits"]["l2"] *= 1.01


@pytest.mark.parametrize(
    "change",
    [shift_score, *(pytest.param(c, marks=pytest.mark.slow) for c in (lose_detection, move_proposal, other_mask))],
)
def test_a_difference_in_inference_is_told(change: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detector", str(edited(tmp_path, "tiny_ckpt.json", change))]) == 1
    assert "BAD tiny_ckpt.json" in capsys.readouterr().out


def other_loss(fixture: dict[str, Any]) -> None:
    fixture["losses"]["float64"]["loss_mask"] *= 1 + 1e-6


def other_gradient(fixture: dict[str, Any]) -> None:
    fixture["gradient"]["tensors"]["backbone.fpn_lateral2.weight"]["l2"] *= 1.001


def other_class(fixture: dict[str, Any]) -> None:
    fixture["sampling"]["image0"]["sampled_classes"][0] += 1


@pytest.mark.slow
@pytest.mark.parametrize("change", [other_loss, other_gradient, other_class])
def test_a_difference_in_training_is_told(change: Any, tmp_path: Path) -> None:
    path = edited(tmp_path, "train_tiny_mask_rcnn_bitmask.json", change)
    precision = "float32" if change is other_class else "float64"
    assert sum(not line.ok for line in compared(path, [precision])) == 1


def test_an_edit_that_no_field_stands_for_is_an_error(tmp_path: Path) -> None:
    def edit(fixture: dict[str, Any]) -> None:
        fixture["build"]["edit"]["rpn"]["anchor_boundary_thresh"] = 0

    with pytest.raises(ValueError, match="anchor_boundary_thresh"):
        list(compared(edited(tmp_path, "tiny_ckpt.json", edit)))


def test_the_copied_tools_draw_the_numbers_of_the_fixtures() -> None:
    dp = tools(HERE)
    dp.pw.self_test()
    assert sum(1 for _ in dp.state_arrays(dp.load(HERE / "tiny_ckpt.json"))) == 273
