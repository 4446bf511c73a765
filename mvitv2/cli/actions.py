"""What commands do with models that tell actions of people: AVA's measure, and films with boxes."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mvitv2.cli.failures import UsageError, one_line
from mvitv2.cli.output import columns, counter

if TYPE_CHECKING:
    import numpy as np
    from torch import device

    from mvitv2.cli.eval import Options as EvalOptions
    from mvitv2.cli.predict import Options as PredictOptions
    from mvitv2.core.model import MViT
    from mvitv2.tasks.processes import Processes
    from mvitv2.tasks.watching import Person

SHOWN = 3
"""Actions that are written at a box."""


def eval_actions(options: "EvalOptions", model: "MViT", device: "device", processes: "Processes") -> int:
    """Measure a detector of actions on data in AVA's form.

    Raises:
        UsageError: Several processes are to do it.
    """
    from mvitv2.cli.eval import as_json, percent, tell_unreadable, write
    from mvitv2.data.actions.boxes import WholeFrames
    from mvitv2.data.actions.keyframes import Keyframes, action_files
    from mvitv2.data.actions.tables import write_predictions
    from mvitv2.tasks.clips import clip_preprocessing_of
    from mvitv2.tasks.detected import evaluate_actions

    if processes.count > 1:
        raise UsageError("actions of people are measured by one process; start mvitv2 eval without torchrun or srun")
    files, record = action_files(Path(options.data)), clip_preprocessing_of(model)
    whole = WholeFrames(record)
    dataset = Keyframes(files, options.split, record, whole, detected=True, classes=model.card.get("classes"))
    with counter("measuring") as told:
        found = evaluate_actions(
            model,
            dataset,
            files.names,
            workers=options.workers,
            device=device,
            precision=options.precision,
            keep=options.scores is not None,
            on_frame=told,
        )
    if options.json == "-":
        print(as_json(options, found))
    else:
        boxes = "of detected people" if found.detected else "the true ones"
        rows = [("mAP at 0.5", percent(found.precision.mean(files.names))), ("keyframes", found.keyframes)]
        print(columns([*rows, ("boxes", f"{found.boxes}, {boxes}"), ("unreadable", len(found.unreadable))]))
        if options.json is not None:
            write(Path(options.json), as_json(options, found))
    if options.scores is not None:
        write_predictions(options.scores, found.lines)
    tell_unreadable(found.unreadable)
    return 0


def predict_actions(options: "PredictOptions", model: "MViT") -> int:
    """Say what the people of each clip do, second by second, and draw it; 1 if there were clips without an answer.

    Raises:
        UsageError: Nothing says where the people are.
    """
    from mvitv2.cli.clips import clip_sources
    from mvitv2.cli.pictures import names
    from mvitv2.data.images import ImageError
    from mvitv2.tasks.devices import device_named
    from mvitv2.tasks.watching import watch

    if options.boxes is None:
        raise UsageError("this model tells actions of people in boxes: give --boxes, a list of them in AVA's form")
    listed = boxes_by_video(options.boxes)
    failed = 0
    for path in clip_sources(names(options.files)):
        try:
            if path.stem not in listed:
                raise ImageError(
                    f"has no boxes in {options.boxes}, which lists {', '.join(list(listed)[:3])}", str(path)
                )
            device = device_named(options.device)
            people = list(watch(model, path, listed[path.stem], top=options.top_k, device=device))
        except ImageError as error:
            failed += 1
            print(f"{one_line(str(path))}: {one_line(error.reason)}", file=sys.stderr, flush=True)
            continue
        tell(str(path), people, options.format)
        if options.timeline is not None:
            write_people(path, people, options.timeline)
    return 1 if failed else 0


def boxes_by_video(path: Path) -> "dict[str, dict[float, np.ndarray]]":
    """Boxes of every video and second."""
    from mvitv2.data.actions.tables import read_keyframes

    found: dict[str, dict[float, np.ndarray]] = {}
    for frame in read_keyframes(path):
        found.setdefault(frame.video, {})[frame.second] = frame.boxes
    return found


def tell(file: str, people: "list[Person]", form: str) -> None:
    """A line, or a row, for each person and second."""
    if form in ("json", "jsonl"):
        said = {"file": file, "people": [vars(person) for person in people]}
        print(json.dumps(said, indent=2 if form == "json" else None), flush=True)
        return
    for person in people:
        scored = list(zip(person.scores, person.actions, strict=True))
        corners = [f"{v:.3f}" for v in person.box]
        if form == "csv":
            print(",".join([one_line(file), f"{person.second:g}", *corners, *(f"{n},{s:.4f}" for s, n in scored)]))
        else:
            said = "  ".join(f"{100 * s:5.1f} % {one_line(n)}" for s, n in scored)
            print(f"{one_line(file)}  {person.second:6g} s  [{' '.join(corners)}]  {said}", flush=True)


def write_people(path: Path, people: "list[Person]", folder: Path) -> None:
    """The clip with boxes and actions drawn on it, and the lines that AVA's evaluation reads."""
    from mvitv2.data.actions.tables import write_predictions
    from mvitv2.report.film import Overlay, write_film

    folder.mkdir(parents=True, exist_ok=True)
    lines = ((path.stem, p.second, p.box, i, s) for p in people for i, s in zip(p.indices, p.scores, strict=True))
    write_predictions(folder / f"{path.stem}.csv", lines)
    by_second: dict[float, list[Person]] = {}
    for person in people:
        by_second.setdefault(person.second, []).append(person)

    def overlay(time: float) -> Overlay:
        near = min(by_second, key=lambda second: abs(second - time), default=None)
        if near is None or abs(near - time) > 1:
            return Overlay()
        return Overlay(boxes=[(p.box, ", ".join(f"{n} {100 * s:.0f} %" for n, s in said(p))) for p in by_second[near]])

    write_film(path, folder / f"{path.stem}.mp4", overlay)


def said(person: "Person") -> list[tuple[str, float]]:
    """What is written at a box."""
    return list(zip(person.actions[:SHOWN], person.scores[:SHOWN], strict=True))
