"""Detectors through the whole engine: several processes, an average, frozen parts, kept memory, other weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mvitv2
from mvitv2.core.config import MViTConfig
from mvitv2.core.model import MViT
from mvitv2.core.stages import stages
from mvitv2.data.detection.dataset import DetectionImages, detection_batch
from mvitv2.data.detection.order import federated_weights
from mvitv2.data.samples import SampleKey, sample_seed
from mvitv2.tasks.detect.config import Selection
from mvitv2.tasks.detect.detector import Detector, total
from mvitv2.tasks.detect_evaluation import evaluate_detector
from mvitv2.tasks.processes import Processes
from mvitv2.train import checkpoint, generators
from mvitv2.train.detection import detection_job, detection_loss
from mvitv2.train.folder import read_metrics, read_results
from mvitv2.train.freezing import train_mode
from mvitv2.train.job import Job
from mvitv2.train.loop import fit
from mvitv2.train.optim import parameter_groups
from mvitv2.train.recipe import Recipe, overridden
from mvitv2.train.recipes import recipe
from mvitv2.train.settings import Settings
from mvitv2.train.state import TrainState
from mvitv2.train.stepping import PASS, take_step
from mvitv2.weights.load import load_model

from .team import together
from .test_detection import shapes

pytest.importorskip("faster_coco_eval", reason="comes with the extra `detect`")
STAGES = {"depths": (1, 1, 1, 1), "embed_dim": 8, "kv_stride": (4, 4), "window": 8}
TINY: dict[str, Any] = {
    "stages": STAGES,
    "model_fields": {"drop_path": 0.1, "input_size": (64, 64)},
    "detector.pyramid_channels": 16,
    "detector.box_layers": (32,),
    "detector.mask_convs": (16,),
    "detector.mask_deconv": 16,
    "preprocessing": {"resize": 64, "longest": 128},
    "augmentation": {"kind": "multi_scale", "sides": (56, 64), "longest": 128, "crop": 0.0},
    "epochs": 2,
    "batch_size": 1,
    "warmup_epochs": 0.0,
    "lr": 1e-3,
    "lr_batch": 2,
    "ema_decay": 0.9,
}
ALL = Selection(min_score=0.0, max_detections=10)
"""Enough detections of a detector that has learnt little to see whether two are the same."""


def tiny(**changes: Any) -> Recipe:
    return overridden(recipe("detect_small"), {**TINY, **changes})


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures to train on; three to measure on, which two processes cannot share evenly."""
    folder = tmp_path_factory.mktemp("boxes")
    shapes(folder, "train", 4)
    shapes(folder, "val", 3)
    return folder


def job_of(data: Path, chosen: Recipe, output: Path, *, double: bool = True) -> tuple[Job, Settings]:
    """In float64, so that the order of sums decides nothing, and no box falls on the other side of a threshold."""
    settings = Settings(output=output, device="cpu", workers=0, timeout_minutes=1)
    job = detection_job(data, chosen, settings)
    if double:
        job.model.double()
    return job, settings


def trained(data: Path, output: Path, *, parallel: str = "ddp", **changes: Any) -> Job:
    job, settings = job_of(data, tiny(**changes), output)
    fit(job, tiny(**changes), Settings(**{**vars(settings), "parallel": parallel}))
    return job


def best(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path / "best.safetensors")


def found_by(model: Any, data: DetectionImages, **given: Any) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    found = evaluate_detector(model, data, selection=ALL, **given)
    return found.images, found.results, found.box.figures


def validation(data: Path) -> DetectionImages:
    from mvitv2.train.detection import detector_preprocessing_for, images_of

    return images_of(data, tiny(), detector_preprocessing_for(tiny()))[1]


# --- several processes -------------------------------------------------------------------------------------------
FORMS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp": {"parallel": "fsdp", "grad_checkpointing": True},
    "frozen": {"freeze": ("backbone",), "epochs": 1, "detector.head_norm": "BN"},
}


def team_work(processes: Processes, data: Path, output: Path) -> dict[str, Any]:
    """All that two processes are to show, in one start of them."""
    found: dict[str, Any] = {}
    for name, changes in FORMS.items():
        job = trained(data, output / name, **changes)
        found[name] = found_by(job.model, validation(data), processes=processes)
    return found


def assert_same_run(path: Path, other: Path, rel: float) -> None:
    for read in (read_results, read_metrics):
        mine, its = read(path), read(other)
        assert len(mine) == len(its) > 1
        for row, its_row in zip(mine, its, strict=True):
            numbers = [n for n in its_row if "loss" in n or "_ap" in n or n in ("step", "lr", "grad_norm")]
            assert numbers and {n: row[n] for n in numbers} == pytest.approx({n: its_row[n] for n in numbers}, rel=rel)


@pytest.mark.slow
def test_two_processes_train_and_measure_a_detector_as_one_does(boxes: Path, tmp_path: Path) -> None:
    """DDP and FSDP2, with an average of the weights; one process with two passes a step is what they are held to."""
    teams = together(2, tmp_path / "team", team_work, data=boxes, output=tmp_path)
    alone = trained(boxes, tmp_path / "alone", accumulation=2)
    expected = found_by(alone.model, validation(boxes))
    assert expected[0] == 3 and len(expected[1]) == 30
    for name in ("ddp", "fsdp"):
        assert_same_run(tmp_path / name, tmp_path / "alone", rel=1e-9)
        for key, value in best(tmp_path / "alone").items():
            torch.testing.assert_close(best(tmp_path / name)[key], value, rtol=1e-7, atol=1e-9)
        for found in teams:  # every process has the whole result, each picture once
            images, results, figures = found[name]
            assert images == 3 and len(results) == 30 and figures == pytest.approx(expected[2])
            for mine, its in zip(results, expected[1], strict=True):
                assert [mine["score"], *mine["bbox"]] == pytest.approx([its["score"], *its["bbox"]], rel=1e-5, abs=1e-4)
                assert (mine["image_id"], mine["category_id"]) == (its["image_id"], its["category_id"])
    # batch norm saw the regions of both processes, so what is measured depends on neither
    assert teams[0]["frozen"] == teams[1]["frozen"]
    start = detection_job(boxes, tiny(**FORMS["frozen"]), Settings(output=tmp_path, device="cpu")).model
    after = load_model(tmp_path / "frozen" / "best.safetensors")
    assert isinstance(after, Detector)
    assert_frozen(after, start)


def assert_frozen(after: Detector, start: Detector) -> None:
    """The backbone is as it was drawn, all else has learnt."""
    before = start.state_dict()
    for name, value in after.named_parameters():
        inside = name.startswith("backbone.bottom_up.")
        assert torch.equal(value, before[name]) == inside, name


# --- one process -------------------------------------------------------------------------------------------------
def batches(job: Job, count: int) -> list[Any]:
    """Batches of one picture each."""
    return [detection_batch([job.dataset[SampleKey(index, 5)]]) for index in range(count)]


def test_the_average_is_what_is_kept_and_measured(boxes: Path, tmp_path: Path) -> None:
    job = trained(boxes, tmp_path / "run", epochs=1)
    tree = checkpoint.read(tmp_path / "run" / "last.pt")
    kept = load_model(tmp_path / "run" / "best.safetensors")
    for name, value in kept.state_dict().items():
        assert torch.equal(value, tree["average"][name].to(value.dtype)), name
    apart = [n for n, p in kept.named_parameters() if not torch.equal(p, tree["model"][n].to(p.dtype))]
    assert len(apart) == len(list(kept.parameters()))  # the average of a few steps is behind all of them
    row = read_results(tmp_path / "run")[-1]
    assert {"box_ap", "mask_ap", "raw_box_ap", "raw_mask_ap"} <= set(row)
    measured = evaluate_detector(kept.double(), validation(boxes))  # type: ignore[arg-type]
    assert row["box_ap"] == pytest.approx(measured.box.figures["AP"], abs=1e-6)
    assert job.model.training


def test_a_frozen_backbone_drops_nothing_and_stays(boxes: Path, tmp_path: Path) -> None:
    chosen = tiny(freeze=("backbone",), epochs=1, ema_decay=None)
    job, settings = job_of(boxes, chosen, tmp_path / "run", double=False)
    start = detection_job(boxes, chosen, settings).model
    fit(job, chosen, settings)
    assert_frozen(job.model, start)
    train_mode(job.model)
    assert not job.model.backbone.bottom_up.training and job.model.roi_heads.training


def test_activations_that_are_made_again_change_nothing(boxes: Path, tmp_path: Path) -> None:
    job, _ = job_of(boxes, tiny(**{"detector.head_norm": "BN"}), tmp_path)
    model, batch = job.model.train(), batches(job, 2)
    found = []
    for enabled in (False, True):
        model.set_grad_checkpointing(enabled)
        model.zero_grad()
        torch.manual_seed(3)
        loss = torch.stack([detection_loss(model, one, 0).total for one in batch]).sum()
        loss.backward()
        found.append((loss.item(), [p.grad.clone() for p in model.parameters()]))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(mine, its) for mine, its in zip(found[0][1], found[1][1], strict=True))


def test_passes_of_a_step_add_up_to_the_mean(boxes: Path, tmp_path: Path) -> None:
    chosen = tiny(accumulation=2, clip_norm=None, ema_decay=None)
    job, _ = job_of(boxes, chosen, tmp_path)
    model, passes = job.model, batches(job, 2)
    state = TrainState.fresh(model, chosen)
    expected, losses = [torch.zeros_like(p) for p in model.parameters()], []
    for place, batch in enumerate(passes):
        model.train().zero_grad()
        generators.start(sample_seed(chosen.seed, place, PASS), torch.device("cpu"))
        loss = total(model(batch.images, batch.targets))
        loss.backward()
        losses.append(loss.item())
        expected = [sum_of + p.grad / 2 for sum_of, p in zip(expected, model.parameters(), strict=True)]
    done = take_step(state, passes, job.objective, chosen, 1e-3)
    assert done.loss == pytest.approx(sum(losses) / 2, rel=1e-12) and done.images == 2
    for wanted, parameter in zip(expected, model.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-9, atol=1e-12)


def test_layer_decay_goes_down_the_backbone(boxes: Path, tmp_path: Path) -> None:
    model = job_of(boxes, tiny(), tmp_path)[0].model
    groups = parameter_groups(model, weight_decay=0.1, layer_decay=0.5)
    names = [name for group in groups for name in group.names]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    scale = {name: group.lr_scale for group in groups for name in group.names}
    inner, deepest = "backbone.bottom_up.", 5  # the stem, four blocks, and all that is after them
    assert scale[f"{inner}patch_embed.proj.weight"] == 0.5**deepest
    for number in range(4):
        of_block = {rate for name, rate in scale.items() if name.startswith(f"{inner}blocks.{number}.")}
        assert of_block == {0.5 ** (deepest - 1 - number)}
    assert {rate for name, rate in scale.items() if not name.startswith(inner)} == {1.0}
    plain = parameter_groups(model, weight_decay=0.1)
    decays = {n: g.weight_decay for g in plain for n in g.names}
    assert {n: g.weight_decay for g in groups for n in g.names} == decays and set(decays.values()) == {0.0, 0.1}


@pytest.mark.parametrize("dialect, named", [("mvitv2", False), ("official", False), ("official", True)])
def test_a_classifier_of_another_size_is_where_a_detector_starts(
    boxes: Path,
    tmp_path: Path,
    dialect: str,
    named: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every tensor of the file goes somewhere, or a note says that it does not."""
    settings = Settings(output=tmp_path, device="cpu")
    blocks = stages(**{name: value for name, value in STAGES.items() if name != "window"})
    with_token: dict[str, Any] = {"class_token": True, "readout": "class_token"}
    classifier = MViT(MViTConfig(blocks=blocks, input_size=(96, 96), num_classes=6, **with_token))
    path = mvitv2.save_weights(classifier, tmp_path / "classifier.pyth", dialect=dialect)
    fetched = {"mvitv2_t_det.detectron2_coco_cascade_3x": path}
    monkeypatch.setattr("mvitv2.train.detection.pretrained_file", fetched.__getitem__)
    weights = "pretrained" if named else str(path)
    fresh = detection_job(boxes, tiny(), settings).model.state_dict()
    with caplog.at_level("INFO", logger="mvitv2"):
        model = detection_job(boxes, tiny(weights=weights), settings).model
    taken, theirs = set(), classifier.state_dict()
    for name, value in model.state_dict().items():
        inner = name.removeprefix("backbone.bottom_up.")
        if inner in theirs and theirs[inner].shape == value.shape:
            assert torch.equal(value, theirs[inner]), name
        elif inner in theirs:
            assert "rel_pos" in inner and not torch.equal(value, fresh[name]), name  # resampled for another size
        else:
            assert torch.equal(value, fresh[name]), name
        taken.add(inner)
    assert {name.split(".")[0] for name in set(theirs) - taken} == {"cls_token", "norm", "head"}
    for note in (
        "class token dropped",
        "classifier of 6 classes dropped",
        "the norm before the classifier dropped",
        "relative position tables resampled",
        "8 parameters of output norms start fresh",
        "tensors of pyramid and heads stay as they were drawn",
    ):
        assert note in caplog.text
    deeper = tiny(weights=weights, stages={**STAGES, "depths": (1, 1, 2, 1)})
    with pytest.raises(ValueError, match=r"with 4 blocks and widths .* the model is one with 5 blocks"):
        detection_job(boxes, deeper, settings)


def test_a_federated_loss_asks_as_often_as_the_data_suggests(boxes: Path, tmp_path: Path) -> None:
    changes = {"detector.scoring": "sigmoid", "detector.federated_classes": 1}
    job, _ = job_of(boxes, tiny(**changes), tmp_path, double=False)
    found = [b.tolist() for n, b in job.model.named_buffers() if n.endswith("fed_loss_cls_weights")]
    assert found == [[2.0, 2.0]] * 3  # both classes are in four pictures
    crowd = job.dataset.annotations.crowd
    crowd[job.dataset.annotations.labels == 1] = [True, True, True, False]
    assert federated_weights(job.dataset).tolist() == [2.0, 1.0]
    (batch,) = batches(job, 1)
    assert detection_loss(job.model.train(), batch, 0).total.isfinite()
