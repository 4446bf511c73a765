"""What detector fixtures say besides numbers of a model: names of parameters, checkpoint files, rates and groups."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image

from mvitv2.data.detection.augment import fitted, shorter_side
from mvitv2.data.detection.scene import Scene, cropped, flipped, resized
from mvitv2.data.instances import Instances
from mvitv2.tasks.detect.config import DetectorConfig
from mvitv2.tasks.detect.detector import Detector
from mvitv2.tasks.detect.variants import ALIASES, DETECTORS
from mvitv2.train.detection_schedule import BETAS, SCHEDULES, WEIGHT_DECAY, detection_groups
from mvitv2.weights.convert import to_theirs
from mvitv2.weights.detectors import inner_name
from mvitv2.weights.dialects import DETECTRON2
from mvitv2.weights.inspect import inspect_weights
from mvitv2.weights.load import load_into, load_model

from .detector_build import config_name, detector_config, our_name, their_name
from .detector_lines import Line, tools

CHECKPOINTS, SCHEDULE = "mvit-det-parity-checkpoints/1", "mvit-det-parity-schedule/1"


def published(name: str) -> str:
    """Our name of a published detector; that from ImageNet-21k has the architecture of the other."""
    return name.removesuffix("_in21k")


def meta_detector(name: str) -> Detector:
    """A published detector without memory."""
    with torch.device("meta"):
        return Detector(DETECTORS[name])


def key_lines(content: Mapping[str, Any]) -> Iterator[Line]:
    """Names, shapes and types of a published detector, in the order in which it writes them."""
    config = DETECTORS[ALIASES[config_name(content["config"])]]
    with torch.device("meta"):
        model = Detector(config)
    state = {inner_name(n): v for n, v in model.state_dict().items()}
    have = [(n, list(v.shape), str(v.dtype)) for n, v in to_theirs(state, DETECTRON2, config.backbone).items()]
    want = [(n, shape, f"torch.{dtype}") for n, shape, dtype, *_ in content["state_dict"]]
    differ = sorted({*map(str, have)} ^ {*map(str, want)})
    yield Line("names and shapes", not differ, f"{len(want)} {'; '.join(differ[:6])}")
    yield Line("order", [n for n, *_ in have] == [n for n, *_ in want], f"{len(have)} names")
    parameters = sum(p.numel() for p in model.parameters())
    expected = content.get("parameters", parameters)
    yield Line("parameters", parameters == expected, f"{parameters}, expected {expected}")


def schedule_lines(content: Mapping[str, Any]) -> Iterator[Line]:
    """Learning rates of iterations, and the groups of the optimiser."""
    for name, want in content.get("schedules", {}).items():
        schedule = SCHEDULES[published(name)]
        pairs = zip(want["iterations"], want["multiplier"], strict=True)
        worst = max(abs(schedule.multiplier(i) - m) / m for i, m in pairs)
        exact = (schedule.rate, schedule.iterations) == (want["base_lr"], want["max_iter"])
        text = f"{len(want['iterations'])} of {schedule.iterations}, worst {worst:.1e}, rate {schedule.rate}"
        yield Line(f"rates of {name}", exact and worst < 1e-12, text)
    for name, want in content.get("optimizer_groups", {}).items():
        yield groups_line(name, want)
    if "resize_shapes" in content:
        yield sizes_line(content["resize_shapes"])
    if "box_transforms" in content:
        yield transforms_line(content["box_transforms"])


def sizes_line(want: Mapping[str, Any]) -> Line:
    """Sizes of pictures after the published resizing."""
    wrong = [row for row in want["shortest_edge"] if shorter_side(tuple(row[:2]), row[2], row[3]) != tuple(row[4:])]
    wrong += [row for row in want["lsj"] if fitted(tuple(row[:2]), 1024, row[2]) != tuple(row[3:])]
    count = len(want["shortest_edge"]) + len(want["lsj"])
    return Line("sizes", not wrong, f"{count} {wrong[:4] or ''}")


def transforms_line(want: Mapping[str, Any]) -> Line:
    """A box in a picture of 480 x 640 that is flipped, cut or resized; the entries' names say by how much."""
    box = torch.tensor([want["box"]], dtype=torch.float64)
    start = Scene(Image.new("RGB", (640, 480)), Instances(box, torch.zeros(1, dtype=torch.int64)))
    problems, known = [], 0
    for name, expected in want.items():
        numbers = [int(n) for n in re.findall(r"\d+", name)]
        if name.startswith("hflip"):
            moved = flipped(start)
        elif match := re.fullmatch(r"crop_x0_(\d+)_y0_(\d+)_w_(\d+)_h_(\d+)", name):
            left, top, width, height = map(int, match.groups())
            moved = cropped(start, top=top, left=left, size=(height, width))
        elif name.startswith("resize"):
            moved = resized(start, (numbers[2], numbers[3]))
        else:
            problems += [] if name == "box" else [f"{name} is not understood"]
            continue
        known += 1
        if not np.allclose(moved.objects.boxes[0].numpy(), expected, rtol=1e-12, atol=0):
            problems.append(f"{name}: {moved.objects.boxes[0].tolist()}, expected {expected}")
    return Line("boxes", not problems, f"{known} {'; '.join(problems)}")


def groups_line(name: str, want: Mapping[str, Any]) -> Line:
    """Parameters of every group, and what decays."""
    found = detection_groups(meta_detector(published(name)))
    problems = []
    named = {g["weight_decay"]: g for g in want["groups"]}
    if {g.weight_decay for g in found} != set(named) or want["default_weight_decay"] != WEIGHT_DECAY:
        problems.append(f"weight decays are {[g.weight_decay for g in found]}, expected {list(named)}")
    if tuple(want["betas"]) != BETAS or want["lr"] != SCHEDULES[published(name)].rate:
        problems.append(f"betas {BETAS}, rate {SCHEDULES[published(name)].rate}")
    for group in found:
        other = named.get(group.weight_decay, {"count": 0, "names": []})
        names = {their_name(n) for n in group.names}
        if len(names) != other["count"]:
            problems.append(f"{len(names)} of weight decay {group.weight_decay}, expected {other['count']}")
        if isinstance(other["names"], list) and (differ := sorted(names ^ set(other["names"]))):
            problems.append(f"{len(differ)} names of weight decay {group.weight_decay} differ: {differ[:4]}")
    return Line(f"groups of {name}", not problems, f"{[len(g.names) for g in found]} {'; '.join(problems)}")


def checkpoint_lines(content: Mapping[str, Any], path: Path) -> Iterator[Line]:
    """Every file beside an index: what detectron2 took from it, we take."""
    dp = tools(path.parent)
    weights = PurePosixPath(content["weights_of"]).name
    home = next(p for p in (path.parent, path.parent.parent) if (p / weights).exists())
    fixture = dp.load(home / weights)
    for entry in content["files"]:
        check = started if entry["detectron2"].get("missing_keys") else whole
        problems = list(check(path.parent / entry["file"], fixture, entry, dp))
        yield Line(entry["file"], not problems, "; ".join(problems) or entry["note"])


def values(fixture: Mapping[str, Any], dp: Any) -> dict[str, torch.Tensor]:
    """The fixture's weights under our names."""
    return {our_name(n): torch.from_numpy(a.copy()) for n, a in dp.state_arrays(fixture)}


def whole(path: Path, fixture: Mapping[str, Any], entry: Mapping[str, Any], dp: Any) -> Iterator[str]:
    """What is wrong with a detector from a file that holds all of it."""
    want, config = values(fixture, dp), detector_config(fixture["build"])
    model = load_model(path)
    if not isinstance(model, Detector):
        yield f"it became a {type(model).__name__}"
        return
    state = model.state_dict()
    differ = [n for n in {**state, **want} if n not in state or n not in want or not torch.equal(state[n], want[n])]
    if differ:
        yield f"{len(differ)} tensors differ, first {differ[0]}"
    same = replace(model.config, proposals=config.proposals, selection=config.selection, backbone=config.backbone)
    if same != config:
        yield f"its configuration is {model.config}"
    inspection, theirs = inspect_weights(path), entry["detectron2"]
    cells = [n for n in inspection.left_out if "anchor_generator" in n]  # which detectron2 ignores without a word
    if sorted({*inspection.left_out} - {*cells}) != sorted(theirs["unexpected_keys"]):
        yield f"left out {inspection.left_out}, expected {theirs['unexpected_keys']}"
    if inspection.missing or inspection.superfluous:
        yield f"missing {inspection.missing[:3]}, superfluous {inspection.superfluous[:3]}"


def started(path: Path, fixture: Mapping[str, Any], entry: Mapping[str, Any], dp: Any) -> Iterator[str]:
    """What is wrong with a detector that starts from a file of its backbone."""
    torch.manual_seed(1)
    model = Detector(detector_config(fixture["build"]))
    before = {n: v.clone() for n, v in model.state_dict().items()}
    load_into(model, path)
    theirs, salt = entry["detectron2"], "init/"
    skipped = {our_name(n) for n in (*theirs["missing_keys"], *map(first, theirs.get("incorrect_shapes", ())))}
    kinds = {our_name(n): (n, shape, kind) for n, shape, kind, _ in fixture["tensors"]}
    for name, value in model.state_dict().items():
        their, shape, kind = kinds[name]
        if name in skipped or name.endswith("num_batches_tracked"):
            if not torch.equal(value, before[name]):
                yield f"{name} was drawn anew"
            continue
        drawn = dp.tensor_values(their.removeprefix("backbone.bottom_up."), tuple(shape), kind, salt)
        if not torch.equal(value, torch.from_numpy(drawn.copy())):
            yield f"{name} is not the file's"


def first(entry: Any) -> str:
    """A name, or the first of a list that begins with one."""
    return entry if isinstance(entry, str) else str(entry[0])


def spec_lines(content: Mapping[str, Any]) -> Iterator[Line]:
    """The constants of published detectors, one line for each."""
    for name, spec in content.items():
        config, problems = DETECTORS[published(name)], []
        for what, have, want in constants(config, spec):
            same = tuple(have) == tuple(want) if isinstance(have, tuple) else have == want
            problems += [] if same else [f"{what} is {have}, expected {want}"]
        yield Line(name, not problems, "; ".join(problems) or "all constants")


def constants(config: DetectorConfig, spec: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What a number is, what it is here, and what detectron2's is."""
    rpn, heads, ours = spec["rpn"], spec["roi_heads"], config.proposals
    predictor, first_head, mask = heads["predictors"][0], heads["box_head"], heads["mask_head"]
    norms = {"": "", "BatchNorm2d": "BN", "NaiveSyncBatchNorm": "BN", "LayerNorm": "LN"}
    yield "pyramid channels", config.pyramid_channels, spec["fpn"]["out_channels"]
    yield "square", config.square, spec["fpn"]["square_pad"]
    yield "strides", config.strides, rpn["strides"]
    yield "RPN convolutions", ours.convs, rpn["convs"]
    yield "anchor sizes", ours.anchor_sizes, [size for (size,) in rpn["anchor_sizes"]]
    yield "aspect ratios", ours.aspect_ratios, rpn["aspect_ratios"]
    yield "RPN matching", (ours.negative_iou, ours.positive_iou), rpn["matcher_thresholds"]
    yield "anchors sampled", (ours.batch_per_image, ours.positive_fraction), sampling(rpn)
    yield "before suppression", ours.best_per_level, [rpn["pre_nms_topk"][mode] for mode in ("train", "test")]
    yield "after suppression", ours.best_per_image, [rpn["post_nms_topk"][mode] for mode in ("train", "test")]
    yield "RPN suppression", (ours.nms_iou, ours.min_side), (rpn["nms_thresh"], rpn["min_box_size"])
    yield "classes", config.num_classes, heads["num_classes"]
    yield "regions sampled", (config.batch_per_image, config.positive_fraction), sampling(heads)
    yield "matching", tuple(s.iou for s in config.stages), [m["thresholds"][0] for m in heads["matchers"]]
    weights = [tuple(p["box_weights"]) for p in heads["predictors"]]
    yield "box weights", tuple(s.box_weights for s in config.stages), weights
    yield "class-agnostic", config.class_agnostic, predictor["cls_agnostic_bbox_reg"]
    found = config.selection
    tested = (predictor["test_score_thresh"], predictor["test_nms_thresh"], predictor["test_topk_per_image"])
    yield "selection", (found.min_score, found.nms_iou, found.max_detections), tested
    yield "sigmoid", config.scoring == "sigmoid", predictor["use_sigmoid_ce"]
    federated = predictor["fed_loss_num_classes"] if predictor["use_fed_loss"] else 0
    yield "federated classes", config.federated_classes, federated
    yield "box head", (config.box_convs, config.box_layers), (tuple(first_head["conv"]), tuple(first_head["fc"]))
    yield "mask head", (*config.mask_convs, config.mask_deconv), [*mask["conv"], mask["deconv"]]
    yield "norm", config.head_norm, norms[(mask["norm"] or {"type": ""})["type"]]
    yield "pixels", (config.pixel_mean, config.pixel_std), (tuple(spec["pixel_mean"]), tuple(spec["pixel_std"]))


def sampling(values: Mapping[str, Any]) -> tuple[Any, Any]:
    """How many, and the largest share of positive ones."""
    return values["batch_size_per_image"], values["positive_fraction"]


def readers(content: Mapping[str, Any], path: Path) -> Sequence[Callable[[], Iterator[Line]]]:
    """What compares a file that is no model's fixture; empty for those that are."""
    if content.get("format") == CHECKPOINTS:
        return [partial(checkpoint_lines, content, path)]
    if content.get("format") == SCHEDULE:
        return [partial(schedule_lines, content)]
    if content and all(isinstance(one, dict) and {"rpn", "roi_heads"} <= set(one) for one in content.values()):
        return [partial(spec_lines, content)]
    return [partial(key_lines, content)] if "state_dict" in content and "config" in content else []
