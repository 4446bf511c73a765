"""A look at pictures with boxes before weeks are spent on them: what is missing, outside, empty, twice, or odd."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mvitv2.data.across import found_classes, found_copies, normalisation
from mvitv2.data.detection.dataset import DetectionImages
from mvitv2.data.detection.open import annotation_files, open_detection
from mvitv2.data.detection.rows import KEPT_ROW, LEFT_OUT
from mvitv2.data.detection.shapes import ShapeError, polygons
from mvitv2.data.findings import (
    KEPT,
    NOTE,
    PROBLEM,
    WARNING,
    Finding,
    Limits,
    Report,
    SplitFacts,
    plural,
    ranked,
)
from mvitv2.data.labelled import DataError
from mvitv2.data.looks import Looks, looks
from mvitv2.data.preflight import ALONE, Examined, Told
from mvitv2.data.splits import WHOLE, Spec
from mvitv2.data.within import found_in_pictures, picture_facts

_SMALL, _LARGE = 32**2, 96**2  # pixels; COCO's bounds
_APART = 0.5
"""A box and its mask that overlap less are not of one object."""


@dataclass(frozen=True)
class BoxFacts(SplitFacts):
    """Figures of a split of pictures with boxes; ``counts`` are objects by class."""

    objects: int = 0
    """Crowds left out."""
    crowds: int = 0
    masks: int = 0
    """Objects with a mask."""
    without: int = 0
    """Pictures without an object to learn from."""
    by_size: tuple[int, int, int] = (0, 0, 0)
    """Objects below 32 x 32 pixels, up to 96 x 96, and above."""


def examine_detection(
    spec: Spec,
    *,
    need: Sequence[str] = ("train", "val"),
    threads: int | None = None,
    cached: bool = True,
    on_progress: Told | None = None,
    data_root: str | os.PathLike[str] | None = None,
) -> Examined[DetectionImages]:
    """Open the data as training does, or else as much of it as can be opened, and look at every picture.

    Args:
        spec: In any form of :mod:`mvitv2.data.detection.open`.
        need: Splits without which training cannot start.
        threads: That read at a time; ``None``: one per core.
        cached: Use what was seen before of files that have not changed since.
        on_progress: Told what is being done.
        data_root: Folder of the pictures, where it is not found.

    Raises:
        DataError: Not one split can be opened.
    """
    files = annotation_files(spec)
    datasets: dict[str, DetectionImages] = {}
    refused = [f"{spec} has no boxes of {split}" for split in need if split not in files and WHOLE not in files]
    if WHOLE in files and need:
        refused.append(f"{spec} is one piece of data, without {' and '.join(need)}; give both, as in TRAIN,VAL")
    for split, path in files.items():
        classes = next(iter(datasets.values())).classes if datasets else None
        part = path if split == WHOLE else {split: path}
        try:
            opened = open_detection(part, {split: None}, need=(), classes=classes, data_root=data_root, on_error="skip")
        except DataError as error:
            refused.append(str(error))
            continue
        datasets[split or ALONE] = opened[split].whole()
    if not datasets:
        raise DataError("; ".join(refused))
    seen: dict[str, Looks] = {}
    for split, dataset in datasets.items():

        def told(done: int, total: int, split: str = split) -> None:
            if on_progress is not None:
                on_progress(split, done, total)

        seen[split] = looks(dataset, threads=threads, cached=cached, on_progress=told)
    return Examined(str(spec), datasets, seen, "; ".join(refused))


def report_on_boxes(examined: Examined[DetectionImages], limits: Limits) -> Report:
    """What a look at pictures with boxes tells."""
    facts = {split: _facts(data, examined.looks[split]) for split, data in examined.datasets.items()}
    findings: list[Finding] = []
    if examined.refused:
        findings.append(Finding(PROBLEM, "refused", f"training cannot open it: {examined.refused}"))
    for split, dataset in examined.datasets.items():
        findings += _faults(split, dataset, limits)
        findings += _other_sizes(split, dataset, examined.looks[split], limits)
        findings += found_in_pictures(split, dataset, examined.looks[split], facts[split], limits)
        findings += _objects(split, dataset, facts[split])
    findings += found_classes(examined.datasets, limits, what="object")
    findings += found_copies(examined.datasets, examined.looks, limits)
    suggested, far = normalisation(facts.get("train") or next(iter(facts.values())), limits)
    return Report(examined.data, facts, ranked([*findings, *far]), suggested, limits)


def _facts(dataset: DetectionImages, seen: Looks) -> BoxFacts:
    """Figures of one split."""
    found = dataset.annotations
    solid = ~found.crowd
    areas = found.boxes[solid, 2] * found.boxes[solid, 3]
    return BoxFacts(
        **picture_facts(dataset, seen),
        counts=dataset.counts,
        objects=int(solid.sum()),
        crowds=int(found.crowd.sum()),
        masks=int((solid & (found.shapes.lengths > 0)).sum()),
        without=int((~found.usable).sum()),
        by_size=(
            int((areas < _SMALL).sum()),
            int(((areas >= _SMALL) & (areas <= _LARGE)).sum()),
            int((areas > _LARGE).sum()),
        ),
    )


def _faults(split: str, dataset: DetectionImages, limits: Limits) -> Iterator[Finding]:
    """What was wrong with the rows of the file."""
    faults = dataset.annotations.faults
    kept = len(dataset.annotations.labels) + len(dataset.annotations)
    lost = sum(count for kind, count in faults.counts.items() if kind in LEFT_OUT)
    severity = PROBLEM if lost > limits.max_unreadable * (kept + lost) else WARNING
    for kind, count in faults.counts.items():
        out = kind in LEFT_OUT
        text = f"{count} {(LEFT_OUT if out else KEPT_ROW)[kind]} in {split}{'; they are left out' * out}"
        yield Finding(severity if out else WARNING, kind, text, split, count, tuple(faults.examples[kind][:KEPT]))


def _other_sizes(split: str, dataset: DetectionImages, seen: Looks, limits: Limits) -> Iterator[Finding]:
    """Pictures that have another size than their annotations were made for."""
    said = dataset.annotations.sizes[dataset.places][:, ::-1]
    differ = np.flatnonzero(seen.readable & (said > 0).all(axis=1) & (said != seen.sizes).any(axis=1))
    if len(differ):
        turned = int((said[differ] == seen.sizes[differ][:, ::-1]).all(axis=1).sum())
        aside = f" ({turned} lie on their side: annotated without EXIF orientation)" if turned else ""
        rows = [(dataset.path(int(p)), *seen.sizes[p], *said[p]) for p in differ[:KEPT]]
        names = tuple(f"{path}: {w} x {h}, annotated as {aw} x {ah}" for path, w, h, aw, ah in rows)
        share = len(differ) / len(dataset)
        text = f"{plural(len(differ), 'picture')} of {split} of another size than annotated{aside}; they are left out"
        yield Finding(PROBLEM if share > limits.max_unreadable else WARNING, "size", text, split, len(differ), names)


def _objects(split: str, dataset: DetectionImages, facts: BoxFacts) -> Iterator[Finding]:
    """Objects and pictures that are odd but no fault."""
    if facts.objects == 0:
        yield Finding(PROBLEM if split == "train" else WARNING, "no-objects", f"{split} has no objects", split)
        return
    if facts.without:
        told = "training leaves them out" if split == "train" else "they count as measured"
        yield Finding(
            NOTE,
            "without",
            f"{plural(facts.without, 'picture')} of {split} without objects; {told}",
            split,
            facts.without,
        )
    if 0 < facts.masks < facts.objects:
        missing = facts.objects - facts.masks
        text = f"{plural(missing, 'object')} of {split} without a mask, {facts.masks} with one"
        yield Finding(WARNING, "maskless", f"{text}; training with masks leaves them out", split, missing)
    apart = tuple(_apart(dataset))
    if apart:
        text = f"{plural(len(apart), 'box', 'boxes')} of {split} that do not fit their mask"
        yield Finding(WARNING, "apart", text, split, len(apart), apart[:KEPT])


def _apart(dataset: DetectionImages) -> Iterator[str]:
    """Objects whose polygons lie somewhere else than their box."""
    found = dataset.annotations
    for place in range(len(found)):
        rows = found.objects(place)
        for row in range(rows.start, rows.stop):
            try:
                parts = polygons(found.shape(row) or {})
            except ShapeError:
                continue
            if not parts:
                continue
            points = np.concatenate([part.numpy() for part in parts])
            low, high = points.min(axis=0), points.max(axis=0)
            start, extent = found.boxes[row, :2], found.boxes[row, 2:]
            inner = np.clip(np.minimum(high, start + extent) - np.maximum(low, start), 0, None).prod()
            union = extent.prod() + (high - low).prod() - inner
            if inner < _APART * union:
                yield f"{found.files[place]}: {found.classes[int(found.labels[row])]} at x {start[0]:g}, y {start[1]:g}"
