"""A whole detector: what goes in and comes out, training and inference, files, names."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mvitv2
from mvitv2.aliases import DETECTORS as NAMES
from mvitv2.aliases import variant_name
from mvitv2.core.model import MViT
from mvitv2.core.pyramid import Features, PyramidBackbone
from mvitv2.data.instances import Instances
from mvitv2.models import create_model, detector, task_of
from mvitv2.tasks.detect.config import DetectorConfig, Selection
from mvitv2.tasks.detect.detector import Detector, total
from mvitv2.tasks.detect.matching import given_order
from mvitv2.tasks.detect.variants import ALIASES, DETECTORS, detector_name
from mvitv2.weights.load import load_into
from mvitv2.weights.peers.detectron2 import detectron2_config
from mvitv2.weights.published_detectors import detector_release
from mvitv2.weights.releases import RELEASES
from mvitv2.weights.save import NotExpressible
from tests import tiny

pytest.importorskip("torchvision.ops", reason="torchvision comes with the extra `detect`")
LOSSES = {
    "loss_rpn_cls",
    "loss_rpn_loc",
    "loss_mask",
    *(f"loss_{kind}_stage{n}" for kind in ("cls", "box_reg") for n in (0, 1)),
}


def made(**changes: Any) -> Detector:
    return Detector(tiny.whole_detector(**changes))


def images(*sizes: tuple[int, int]) -> list[Tensor]:
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]


def objects(count: int, *, masks: bool = True) -> Instances:
    corner = torch.rand(count, 2) * 20
    boxes = torch.cat((corner, corner + 8 + torch.rand(count, 2) * 20), dim=1)
    outlines = [[box[[0, 1, 2, 1, 2, 3, 0, 3]].double().reshape(4, 2)] for box in boxes]
    return Instances(boxes, torch.randint(0, 5, (count,)), outlines if masks else None)


def detections(model: Detector, batch: list[Tensor], **options: Any) -> Any:
    return model.eval()(batch, **options)


def test_what_comes_out() -> None:
    found = detections(made(selection=Selection(min_score=0.0, max_detections=7)), images((48, 40), (33, 64)))
    assert [len(one) for one in found] == [7, 7]
    for one, size in zip(found, ((48, 40), (33, 64)), strict=True):
        assert one.masks is not None and one.masks.shape == (7, *size) and one.masks.dtype == torch.bool
        assert (one.scores[:-1] >= one.scores[1:]).all() and one.labels.max() < 5
        assert one.boxes.min() >= 0 and one.boxes[:, 2].max() <= size[1] and one.boxes[:, 3].max() <= size[0]


def test_sizes_scale_what_was_found() -> None:
    model, batch = made(selection=Selection(min_score=0.0, max_detections=5)), images((48, 40))
    own, twice = (detections(model, batch, sizes=[size])[0] for size in ((48, 40), (96, 80)))
    torch.testing.assert_close(twice.boxes, 2 * own.boxes)
    assert torch.equal(twice.scores, own.scores) and twice.masks.shape == (5, 96, 80)
    with pytest.raises(ValueError, match="1 images and 2 sizes"):
        model(batch, sizes=[(4, 4), (4, 4)])


def test_an_image_in_a_batch_is_an_image_alone() -> None:
    model, batch = made(selection=Selection(min_score=0.0)), images((64, 64), (64, 64))
    together = detections(model, batch)
    for one, image in zip(together, batch, strict=True):
        alone = detections(model, [image])[0]
        torch.testing.assert_close(alone.scores, one.scores)
        torch.testing.assert_close(alone.boxes, one.boxes)


def test_thresholds_are_an_option() -> None:
    model, batch = made(), images((64, 64))
    assert len(detections(model, batch, selection=Selection(min_score=1.0))[0]) == 0
    assert len(detections(model, batch, selection=Selection(min_score=0.0, max_detections=3))[0]) == 3


def test_training() -> None:
    model = made().train()
    losses = model(images((48, 40), (33, 64)), [objects(3), objects(1)])
    assert set(losses) == LOSSES and all(loss.isfinite() for loss in losses.values())
    total(losses).backward()
    assert {n for n, p in model.named_parameters() if p.grad is None} == set()


@pytest.mark.parametrize("norm", ["BN", "LN", ""])
def test_images_without_objects_train_too(norm: str) -> None:
    model = made(head_norm=norm).train()
    losses = model(images((48, 40)), [objects(0)])
    assert losses["loss_mask"].item() == 0 and losses["loss_rpn_loc"].item() == 0
    total(losses).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_validation_losses_change_no_statistics() -> None:
    model = made().eval()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    with torch.no_grad():
        first, again = (model.losses(images, [target], order=given_order) for images, target in [one_image()] * 2)
    assert {n: v.item() for n, v in first.items()} == {n: v.item() for n, v in again.items()}
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def one_image() -> tuple[list[Tensor], Instances]:
    return images((48, 40)), objects(2)


def test_boxes_alone() -> None:
    model = made(masks=False)
    assert "loss_mask" not in model.train()(images((48, 40)), [objects(2, masks=False)])
    assert detections(model, images((48, 40)))[0].masks is None
    with pytest.raises(ValueError, match="masks=False"):
        made().train()(images((48, 40)), [objects(2, masks=False)])


def test_mask_rcnn_and_separate_classes() -> None:
    one = made(stages=tiny.CASCADE[:1], class_agnostic=False, box_convs=(), box_layers=(16, 16), head_norm="")
    assert set(one.train()(images((48, 40)), [objects(2)])) == {
        "loss_cls",
        "loss_box_reg",
        "loss_mask",
        "loss_rpn_cls",
        "loss_rpn_loc",
    }
    lvis = made(scoring="sigmoid", federated_classes=3)
    assert set(lvis.train()(images((48, 40)), [objects(2)])) == LOSSES
    assert "roi_heads.box_predictor.1.fed_loss_cls_weights" in lvis.state_dict()


def test_mixed_precision() -> None:
    model = made().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(images((48, 40)), [objects(2)])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


def test_a_run_that_diverged_says_so() -> None:
    model = made().train()
    with torch.no_grad():
        model.proposal_generator.rpn_head.anchor_deltas.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="training has diverged"):
        model(images((48, 40)), [objects(2)])


def test_wrong_input_is_told() -> None:
    model = made()
    with pytest.raises(ValueError, match="needs targets; call eval"):
        model.train()(images((48, 40)))
    with pytest.raises(ValueError, match="1 images and 0 targets"):
        model(images((48, 40)), [])
    with pytest.raises(ValueError, match="at least one image"):
        model.eval()([])
    with pytest.raises(ValueError, match=r"\(3, H, W\).*\(1, 48, 40\)"):
        model([torch.zeros(1, 48, 40)])
    with pytest.raises(TypeError, match="one tensor"):
        model(torch.zeros(1, 3, 48, 40))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"stages": ()}, "stages is empty"),
        ({"class_agnostic": False}, "which class's box"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"federated_classes": 3}, "scoring='sigmoid'"),
        ({"backbone": tiny.clip()}, "backbone for images"),
        ({"pyramid_channels": 8, "proposals": DETECTORS["mask_rcnn_mvitv2_t"].proposals}, "one size for each"),
    ],
)
def test_configurations_that_make_no_detector(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.whole_detector(**changes)


@pytest.mark.parametrize("name", DETECTORS)
def test_configurations_survive_json(name: str) -> None:
    config = DETECTORS[name]
    assert DetectorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match="'colour'"):
        DetectorConfig.from_dict({**config.to_dict(), "colour": 1})


def test_initial_values() -> None:
    state = Detector(tiny.whole_detector(pyramid_channels=64, box_convs=(64,), box_layers=(128,))).state_dict()
    lateral = state["backbone.fpn_output2.weight"]
    assert lateral.abs().max() <= (3 / (64 * 9)) ** 0.5 and lateral.std() == pytest.approx((64 * 9) ** -0.5, rel=0.05)
    assert state["roi_heads.box_head.0.conv1.weight"].std() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert state["roi_heads.box_head.1.fc1.weight"].std() == pytest.approx((64 * 49) ** -0.5, rel=0.05)
    stds = {"proposal_generator.rpn_head.conv.conv0": 0.01, "roi_heads.box_predictor.0.cls_score": 0.01}
    stds |= {"roi_heads.box_predictor.1.bbox_pred": 0.001, "roi_heads.mask_head.predictor": 0.001}
    for name, std in stds.items():
        assert state[f"{name}.weight"].std() == pytest.approx(std, rel=0.3) and not state[f"{name}.bias"].any()
    assert (
        not state["backbone.fpn_lateral2.bias"].any() and (state["roi_heads.box_head.0.conv1.norm.weight"] == 1).all()
    )


# --- files -------------------------------------------------------------------------------------------------------
def four_stages(**changes: Any) -> Detector:
    """A detector that detectron2 can build as well."""
    small = {"embed_dim": 8, "depth": 5, "num_heads": 1, "last_block_indexes": (0, 1, 3, 4), "norm_eps": 1e-6}
    proposals = replace(tiny.whole_detector().proposals, anchor_sizes=(32, 64, 128, 256, 512))
    return made(backbone=detectron2_config(small), proposals=proposals, **changes)


@pytest.mark.parametrize("ending, dialect", [("safetensors", "mvitv2"), ("pkl", "detectron2"), ("pth", "detectron2")])
def test_a_file_gives_the_same_detector(ending: str, dialect: str, tmp_path: Path) -> None:
    model = four_stages(selection=Selection(min_score=0.0)).eval()
    path = mvitv2.save_weights(model, tmp_path / f"model.{ending}", dialect=dialect)
    again = mvitv2.load_model(path, backend="reference")
    assert isinstance(again, Detector) and again.config == model.config and not again.training
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in model.state_dict().items())
    batch = images((48, 40))
    assert torch.equal(model(batch)[0].boxes, again(batch)[0].boxes)
    seen = mvitv2.inspect_weights(path)
    assert (seen.task, seen.num_classes, seen.missing, seen.superfluous) == ("instance segmentation", 5, [], [])


def test_other_classes_draw_new_predictors_and_keep_the_rest() -> None:
    model = made()
    other = mvitv2.load_model(model.state_dict(), config=model.config.backbone, num_classes=9, masks=True)
    assert isinstance(other, Detector) and other.config.num_classes == 9
    old, new = model.state_dict(), other.state_dict()
    changed = {n for n in old if old[n].shape != new[n].shape or not torch.equal(old[n], new[n])}
    predictors = [f"roi_heads.box_predictor.{n}.cls_score" for n in (0, 1)] + ["roi_heads.mask_head.predictor"]
    assert changed == {f"{name}.{x}" for name in predictors for x in ("weight", "bias")}
    assert any("predictors of 5 classes replaced by new ones of 9" in note for note in other.card["loading"])


def test_a_detector_starts_from_a_backbone(tmp_path: Path) -> None:
    backbone = MViT(tiny.detector())
    path = mvitv2.save_weights(backbone, tmp_path / "backbone.safetensors")
    model = made()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    load_into(model, path)
    for name, value in model.state_dict().items():
        inner = name.removeprefix("backbone.bottom_up.")
        assert torch.equal(value, before[name] if inner == name else backbone.state_dict()[inner]), name
    assert any("pyramid and heads stay as they were drawn" in note for note in model.card["loading"])


def test_a_backbone_and_a_pyramid_are_taken_out_of_a_detector(tmp_path: Path) -> None:
    model = made()
    path = mvitv2.save_weights(model, tmp_path / "model.safetensors")
    backbone = load_into(MViT(tiny.detector()), path)
    inner = model.backbone.bottom_up.state_dict()
    assert all(torch.equal(v, inner[n]) for n, v in backbone.state_dict().items())
    pyramid = load_into(PyramidBackbone(MViT(tiny.detector()), 8), path)
    assert all(torch.equal(v, model.backbone.state_dict()[n]) for n, v in pyramid.state_dict().items())
    assert any("heads of a detector" in note for note in pyramid.bottom_up.card["loading"])


def test_other_codebases_cannot_hold_a_detector(tmp_path: Path) -> None:
    with pytest.raises(NotExpressible, match="it has no detector; save the detector's backbone"):
        mvitv2.save_weights(made(), tmp_path / "model.pth", dialect="timm")


def test_a_hostile_card_is_refused(tmp_path: Path) -> None:
    from mvitv2.weights.detectors import stored_detector
    from mvitv2.weights.rename import DialectError

    card = {n: v for n, v in tiny.whole_detector().to_dict().items() if n != "backbone"}
    for wrong in ({"num_classes": "five"}, {"stages": []}, {"box_layers": "16"}, {"selection": {"min_score": "x"}}):
        with pytest.raises(DialectError, match="detector"):
            stored_detector({**card, **wrong}, tiny.detector())
    with pytest.raises(DialectError, match="expected names and values"):
        stored_detector([1], tiny.detector())


# --- names -------------------------------------------------------------------------------------------------------
def test_every_name_of_a_detector_has_its_backbone_and_its_file() -> None:
    assert {*DETECTORS, *ALIASES} == {*NAMES, *(n for n in ALIASES if "/" not in n)}
    for name in (*DETECTORS, *ALIASES):
        config = DETECTORS[detector_name(name) or ""]
        assert mvitv2.model_config(name) == config.backbone and task_of(config.backbone) == "detection"
        release = RELEASES[detector_release(name) or ""]
        assert release.variant == variant_name(name) and release.num_classes == config.num_classes
    assert detector_release("mvitv2_t_det") is None and detector_name("mvitv2_t") is None
    assert (detector_release("cascade_mask_rcnn_mvitv2_b_in21k_3x") or "").endswith("coco_cascade_in21k_3x")
    for size in "lh":  # projects/ViTDet/configs/LVIS: both train for 50 epochs, H of COCO for 36
        assert (detector_release(f"vitdet_lvis_mvitv2_{size}") or "").endswith("lvis_vitdet_cascade_in21k_50ep")
    assert (detector_release("vitdet_coco_mvitv2_h") or "").endswith("coco_vitdet_cascade_in21k_36ep")


def test_detectors_by_name() -> None:
    with torch.device("meta"):
        model = create_model("cascade_mask_rcnn_mvitv2_t_3x", num_classes=7, drop_path_rate=0.3, masks=False)
        features = create_model("cascade_mask_rcnn_mvitv2_t_3x", features_only=True)
    assert isinstance(model, Detector) and isinstance(features, Features)
    assert (model.config.num_classes, model.config.backbone.drop_path, model.config.masks) == (7, 0.3, False)
    assert model.backbone.bottom_up.config.num_classes == 0
    with pytest.raises(TypeError, match="colour"):
        detector("mask_rcnn_mvitv2_t", colour=1)
