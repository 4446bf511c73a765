"""Compare a detector of ours with everything a fixture says: one line per section, and whether it holds."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvitv2.data.instances import Instances
from mvitv2.extras import required
from mvitv2.tasks.detect.detector import Detector
from mvitv2.tasks.detect.selecting import Detections

from . import parity_weights as pw
from .detector_build import as_arrays, detector_config, dtype_of, our_name, their_name
from .detector_files import readers
from .detector_lines import Line, tools
from .detector_run import Inference, Training

PRECISIONS = ("float32", "float64")
EXPECTED = ("expected", "expected_given_proposals", "expected_given_detections")
EXACT = 1e-9
"""float64 runs of two implementations agree to this."""
GRADIENT = 1e-6
"""The same for gradients, relative to the scale of each."""
NOISE = 1e-12
"""Of the largest tensor; where both sides are smaller, they are 0 and its rounding."""
EXACT_PIXELS = 1e-6
"""The same for boxes in pixels, after three stages of decoding."""


def built(fixture: Mapping[str, Any], dp: ModuleType, precision: str) -> Detector:
    """The fixture's detector with its weights."""
    state = {our_name(n): torch.from_numpy(a.copy()) for n, a in dp.state_arrays(fixture)}
    model = Detector(detector_config(fixture["build"]))
    kept = {n: v for n, v in model.state_dict().items() if n.endswith("fed_loss_cls_weights") and n not in state}
    model.load_state_dict({**state, **kept})
    return model.to(dtype_of(precision)).eval()


def compared(path: Path, precisions: Sequence[str] = PRECISIONS) -> Iterator[Line]:
    """Every section of a fixture, of whatever kind."""
    if found := readers(json.loads(path.read_text()), path):
        for lines in found:
            yield from lines()
        return
    dp = tools(path.parent)
    fixture = dp.load(path)
    if strange := [n for n in fixture if n.startswith("expected") and n not in EXPECTED]:
        yield Line("sections", False, f"{strange} are not understood")
    sections = trained if "losses" in fixture else inferred
    for precision in precisions:
        if precision in fixture["expected"]:
            yield from sections(fixture, dp, precision)


def tensors_line(name: str, report: Mapping[str, Any]) -> Line:
    """A report of ``det_parity.compare``."""
    first = next((f"; first {n}: {why}" for n, _, ok, why in report["rows"] if not ok), "")
    missing = f"; not produced: {report['missing']}" if report["missing"] else ""
    text = f"{len(report['rows'])} tensors, worst {report['worst']:.1e}, tolerance {report['tol']:.0e}"
    return Line(name, bool(report["ok"]) and not report["missing"], text + first + missing)


def inferred(fixture: Mapping[str, Any], dp: ModuleType, precision: str) -> Iterator[Line]:
    """Taps, proposals, detections, and the heads on given proposals and detections."""
    model = built(fixture, dp, precision)
    run = Inference(model, dp.images(fixture))
    yield tensors_line(f"{precision} taps", dp.compare(fixture, as_arrays(run.taps), precision))
    if precision in fixture.get("proposals", {}):
        yield proposals_line(fixture, dp, precision, run)
    if precision in fixture.get("detections", {}):
        yield detections_line(fixture, dp, precision, run)
    if precision in fixture.get("expected_given_proposals", {}):
        given = [
            torch.from_numpy(dp.unpack(one["boxes"]).copy()).to(model.like) for one in fixture["full"]["proposals"]
        ]
        found = as_arrays(run.given_proposals(given))
        report = dp.compare(fixture, found, precision, section="expected_given_proposals")
        yield tensors_line(f"{precision} given proposals", report)
    if precision in fixture.get("expected_given_detections", {}):
        found = fixture["detections"]["float32"]
        boxes = [torch.tensor(one["boxes"], dtype=torch.float32).reshape(-1, 4).to(model.like) for one in found]
        labels = [torch.tensor(one["classes"], dtype=torch.int64) for one in found]
        report = dp.compare(
            fixture, as_arrays(run.given_detections(boxes, labels)), precision, section="expected_given_detections"
        )
        yield tensors_line(f"{precision} given detections", report)


def proposals_line(fixture: Mapping[str, Any], dp: ModuleType, precision: str, run: Inference) -> Line:
    """All proposals without order, and the first of every image with their objectness."""
    boxes = [found.boxes.numpy() for found in run.proposals]
    tolerance = fixture["tolerance"]["boxes_px"] if precision == "float32" else EXACT_PIXELS
    allowed = max(0.02, fixture["tolerance"]["boxes_px"])  # the full list is that of the float32 run
    report = dp.compare_proposals(fixture, boxes, box_tol=allowed)
    problems = [] if report["ok"] else [str(report["images"])]
    worst = 0.0
    for number, (want, have) in enumerate(zip(fixture["proposals"][precision], run.proposals, strict=True)):
        if want["count"] != len(have.boxes):
            problems.append(f"image {number} has {len(have.boxes)} proposals, expected {want['count']}")
        distance = distances(have.boxes.numpy(), want["boxes"])
        nearest = distance.argmin(axis=1)
        logits = have.logits.numpy()[nearest]
        error = np.abs(logits - np.asarray(want["objectness"])).max() / max(np.abs(want["objectness"]).max(), 1e-30)
        worst = max(worst, distance.min(axis=1).max())
        if distance.min(axis=1).max() > tolerance or error > allowed_objectness(fixture, precision):
            problems.append(f"image {number}: boxes off by {distance.min(axis=1).max():.1e}, objectness by {error:.1e}")
    counts = [len(found.boxes) for found in run.proposals]
    return Line(f"{precision} proposals", not problems, f"{counts}, worst {worst:.1e} px {'; '.join(problems)}")


def allowed_objectness(fixture: Mapping[str, Any], precision: str) -> float:
    """Relative error of objectness: the widest of the RPN's taps."""
    named = fixture["tolerance"].get(f"{precision}_by_name", {})
    return max([fixture["tolerance"][precision], *(v for n, v in named.items() if n.endswith("objectness"))])


def distances(have: Any, want: Any) -> np.ndarray:
    """Largest difference of a corner, of every wanted box to every box there is; ``(N, M)``."""
    a, b = (np.asarray(x, np.float64).reshape(-1, 4) for x in (want, have))
    if not len(a) or not len(b):
        return np.full((len(a), max(len(b), 1)), np.inf)
    return np.abs(a[:, None] - b[None]).max(axis=-1)


def detections_line(fixture: Mapping[str, Any], dp: ModuleType, precision: str, run: Inference) -> Line:
    """Detections before and after post-processing, without order."""
    got, problems, at = [], [], 0
    for number, (raw, found) in enumerate(zip(run.selected, run.detections, strict=True)):
        one: dict[str, Any] = {"boxes": raw.boxes.numpy(), "scores": raw.scores.numpy(), "classes": raw.labels.numpy()}
        one["mask_probs"] = run.taps["mask.probs"][at : at + len(raw.boxes)].numpy()
        at += len(raw.boxes)
        problems += last_problems(number, found, fixture["detections"][precision][number], dp, fixture["tolerance"])
        got.append(one)
    exact = {} if precision == "float32" else {"box_tol": EXACT_PIXELS, "score_tol": EXACT}
    report = dp.compare_detections(fixture, got, precision, **exact)
    worst = {key: max(image.get(key, 0) for image in report["images"]) for key in ("worst_box_px", "worst_score")}
    if not report["ok"]:
        problems.append(str([{k: v for k, v in one.items() if k != "partner"} for one in report["images"]]))
    text = f"{[len(one['boxes']) for one in got]}, worst {worst['worst_box_px']:.1e} px, {worst['worst_score']:.1e}"
    return Line(f"{precision} detections", not problems, f"{text} {'; '.join(problems)}")


def last_problems(number: int, found: Detections, want: Mapping[str, Any], dp: ModuleType, tolerance: Any) -> list[str]:
    """What differs after post-processing; both sides of every pair are of one class and next in score."""
    kept = want.get("output_index", range(len(want["output_boxes"])))
    wanted = {"boxes": want["output_boxes"], **{n: [want[n][i] for i in kept] for n in ("scores", "classes")}}
    if len(found) != len(wanted["boxes"]):
        return [f"image {number} has {len(found)} detections at last, expected {len(wanted['boxes'])}"]
    if not len(found):
        return []
    have = {"boxes": found.boxes.numpy(), "scores": found.scores.numpy(), "classes": found.labels.numpy()}
    partner = dp.match(have, wanted)
    if (partner < 0).any():
        return [f"image {number}: {int((partner < 0).sum())} detections without a partner at last"]
    problems, off = [], float(np.abs(have["boxes"][partner] - np.asarray(wanted["boxes"])).max())
    if off > 2 * tolerance["boxes_px"]:
        problems.append(f"image {number}: last boxes off by {off:.1e}")
    if found.masks is None or list(found.masks.shape[1:]) != want["output_mask_shape"]:
        return [*problems, f"image {number}: masks are not {want['output_mask_shape']}"]
    areas = found.masks.flatten(1).sum(dim=1).numpy()[partner]
    differ = int(np.abs(areas - np.asarray(want["output_mask_area"])).max())
    return [*problems, *([f"image {number}: mask areas off by {differ}"] if differ > tolerance["mask_area_px"] else [])]


def targets_of(fixture: Mapping[str, Any]) -> list[Instances]:
    """The objects of a training fixture."""
    return [instances(t, (i["h"], i["w"]), fixture["mask_format"]) for t, i in zip_images(fixture)]


def zip_images(fixture: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Targets and images."""
    yield from zip(fixture["targets"], fixture["images"], strict=True)


def instances(objects: Sequence[Mapping[str, Any]], size: tuple[int, int], mask_format: str) -> Instances:
    """One image's objects; bitmaps are drawn by the COCO API from the same polygons."""
    boxes = torch.tensor([o["box"] for o in objects], dtype=torch.float64).reshape(-1, 4)
    labels = torch.tensor([o["class"] for o in objects], dtype=torch.int64)
    if mask_format == "polygon":
        parts = [[torch.tensor(p, dtype=torch.float64).reshape(-1, 2) for p in o["polygons"]] for o in objects]
        return Instances(boxes, labels, parts)
    coco: Any = required("faster_coco_eval.core", extra="detect").mask
    bits = [coco.decode(coco.merge(coco.frPyObjects(o["polygons"], *size))) for o in objects]
    return Instances(boxes, labels, torch.from_numpy(np.array(bits, bool).reshape(-1, *size)))


def trained(fixture: Mapping[str, Any], dp: ModuleType, precision: str) -> Iterator[Line]:
    """Losses, what was sampled and matched, tensors, statistics and gradients of one step."""
    model = built(fixture, dp, precision)
    run = Training(model, dp.images(fixture), targets_of(fixture))
    yield losses_line(fixture, precision, run.losses)
    yield tensors_line(f"{precision} taps", dp.compare(fixture, as_arrays(run.taps), precision))
    yield from sampling_lines(fixture, dp, precision, run)
    if precision in fixture.get("batch_norm_after", {}):
        found = as_arrays({n: v for n, v in model.state_dict().items() if "running" in n})
        yield table_line(f"{precision} batch norm", found, fixture["batch_norm_after"][precision], EXACT)
    if precision == "float64" and "gradient" in fixture:
        tolerance = fixture["tolerance"].get("gradient", GRADIENT)
        gradients = as_arrays({their_name(n): g for n, g in run.gradients.items()})
        yield table_line(f"{precision} gradients", gradients, fixture["gradient"]["tensors"], tolerance)


def losses_line(fixture: Mapping[str, Any], precision: str, losses: Mapping[str, Tensor]) -> Line:
    """Every loss, relative to itself."""
    want = fixture["losses"][precision]
    tolerance = fixture["tolerance"]["losses_float32"] if precision == "float32" else EXACT
    errors = {n: abs(losses[n].item() - v) / max(abs(v), 1e-30) for n, v in want.items() if n in losses}
    names = [] if set(want) == set(losses) else [f"losses are {sorted(losses)}, expected {sorted(want)}"]
    wrong = names + [f"{n} is {losses[n].item()}, expected {want[n]}" for n, e in errors.items() if e > tolerance]
    return Line(f"{precision} losses", not wrong, f"{len(errors)}, worst {max(errors.values()):.1e} {'; '.join(wrong)}")


def table_line(section: str, found: Mapping[str, Any], want: Mapping[str, Any], tolerance: float) -> Line:
    """Arrays by name against their summaries."""
    floor = NOISE * max((w["absmax"] for w in want.values()), default=0.0)
    shared = {n: w for n, w in want.items() if n in found}
    # a bias of keys moves all logits of a query alike: its gradient is 0, and what is left of it is rounding
    noise = {n for n, w in shared.items() if w["absmax"] < floor and np.abs(found[n]).max() < floor}
    rows = {n: pw.compare_array(found[n], w, tolerance) for n, w in shared.items() if n not in noise}
    missing, extra = sorted(set(want) - set(found)), sorted(set(found) - set(want))
    wrong = [f"{n}: {r['why']}" for n, r in rows.items() if not r["ok"]]
    wrong += [f"not produced: {missing}"] if missing else []
    wrong += [f"not in the fixture: {extra}"] if extra and want else []
    worst = max((r["error"] for r in rows.values()), default=0.0)
    return Line(section, not wrong, f"{len(rows)} tensors, worst {worst:.1e} {'; '.join(wrong[:5])}")


def sampling_lines(fixture: Mapping[str, Any], dp: ModuleType, precision: str, run: Training) -> Iterator[Line]:
    """Anchors, proposals, regions of every stage and mask targets; recorded in the float32 run."""
    pixels = 0.02
    problems: list[str] = []
    for number, regions in enumerate(run.sampled):
        want = fixture["sampling"][f"image{number}"]
        problems += [f"image {number}: {text}" for text in sampling_problems(dp, want, number, run, pixels)]
        classes = regions.labels.tolist()
        if sorted(classes) != sorted(want["sampled_classes"]):
            problems.append(f"image {number}: sampled classes differ")
    yield Line(f"{precision} sampling", not problems, "; ".join(problems) or f"{len(run.sampled)} images")
    wrong: list[str] = []
    for number, (regions, want) in enumerate(zip(run.stages, fixture["stages"], strict=True)):
        boxes = torch.cat([r.boxes for r in regions]).numpy()
        labels = torch.cat([r.labels for r in regions]).numpy()
        if [len(r.labels) for r in regions] != want["per_image"]:
            wrong.append(f"stage {number}: {[len(r.labels) for r in regions]} rows, expected {want['per_image']}")
        elif not alike(
            boxes, labels, dp.unpack(want["boxes"]), want["classes"], fixture["tolerance"].get("boxes_px", 0.05)
        ):
            wrong.append(f"stage {number}: boxes or classes differ")
    yield Line(f"{precision} stages", not wrong, "; ".join(wrong) or f"{len(run.stages)} stages")
    yield masks_line(fixture, dp, precision, run)


def sampling_problems(dp: ModuleType, want: Mapping[str, Any], number: int, run: Training, pixels: float) -> list[str]:
    """What differs in the anchors and proposals of one image."""
    index, positive, negative = run.anchors[number]
    labels = np.zeros(len(index), np.int64)
    labels[positive.numpy()], labels[negative.numpy()] = 2, 1
    found = []
    if not np.array_equal(labels, dp.unpack(want["anchor_labels"]).reshape(-1)):
        found.append(f"{int((labels != dp.unpack(want['anchor_labels']).reshape(-1)).sum())} anchor labels differ")
    for name, boxes in (
        ("rpn_proposals_boxes", run.proposals[number].boxes),
        ("sampled_proposals", run.sampled[number].boxes),
        ("sampled_gt_boxes", run.sampled[number].aims),
    ):
        if want.get(name) is None:
            continue
        expected = dp.unpack(want[name])
        rows = boxes.numpy()
        if name == "sampled_gt_boxes":  # only the rows of objects have one that means something
            objects = np.asarray(want["sampled_classes"]) < max(want["sampled_classes"], default=0)
            expected, rows = expected[objects], rows[: int(objects.sum())]
        elif len(rows) != len(expected):
            found.append(f"{name}: {len(rows)}, expected {len(expected)}")
        if len(expected) and distances(rows, expected).min(axis=1).max() > pixels:
            found.append(f"{name} off by {distances(rows, expected).min(axis=1).max():.1e} px")
    return found


def alike(boxes: Any, labels: Any, want: Any, classes: Sequence[int], pixels: float) -> bool:
    """Whether every wanted box has one of ours beside it, of its class, and the other way round."""
    distance = distances(boxes, want)
    other = np.asarray(classes)[:, None] != np.asarray(labels)[None]
    distance = np.where(other, np.inf, distance)
    return bool(distance.min(axis=1).max() <= pixels and distance.min(axis=0).max() <= pixels)


def masks_line(fixture: Mapping[str, Any], dp: ModuleType, precision: str, run: Training) -> Line:
    """Every mask target, pixel by pixel."""
    want = dp.unpack(fixture["mask_targets"]["bits"]).astype(bool)
    have = torch.cat(run.masks).numpy()
    if want.shape != have.shape:
        return Line(f"{precision} mask targets", False, f"{have.shape}, expected {want.shape}")
    differ = (want != have).reshape(len(want), -1).sum(axis=1)
    return Line(
        f"{precision} mask targets", int(differ.max(initial=0)) <= 2, f"{len(want)}, {int(differ.sum())} pixels differ"
    )
