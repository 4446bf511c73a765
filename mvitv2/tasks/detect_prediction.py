"""Files of one's own through a detector: a stream of objects in the order of the files, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mvitv2.data.detection.augment import resize_of
from mvitv2.data.images import ImageError
from mvitv2.data.sources import Problem
from mvitv2.data.video.info import Frame
from mvitv2.data.video.reader import ClipSource, open_clip
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.detect.config import Selection
from mvitv2.tasks.detect.detector import Detector
from mvitv2.tasks.detect_views import Looking
from mvitv2.tasks.evaluation import placed
from mvitv2.tasks.found import ObjectsFound
from mvitv2.tasks.prediction import Fetch, Source, files_of, name_of, read_ahead, read_one

SMALLEST_TILE = 32
"""Pixels."""


def predict_objects(
    model: Detector,
    sources: Source | Iterable[Source | Problem],
    *,
    batch_size: int = 1,
    workers: int = 2,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    preprocessing: Preprocessing | None = None,
    selection: Selection | None = None,
    tile: int | None = None,
    skip: Callable[[str], bool] | None = None,
    fetch: Fetch | None = None,
) -> Iterator[ObjectsFound]:
    """Objects in pictures, one picture after another in the order of the sources.

    A file that cannot be read gives an :class:`ObjectsFound` with its ``error``; the rest goes on.

    Args:
        model: Its ``card`` tells classes and preprocessing.
        sources: Files, folders, patterns, the bytes of files, or pictures; one or many.
        batch_size: Pictures in one forward pass, of any sizes.
        workers: Threads that read and decode; 0 reads between the passes.
        device: Where to compute; ``None``: where the model is.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (autocast).
        preprocessing: How pictures are resized; ``None``: as the card says.
        selection: Thresholds other than the model's.
        tile: Pictures with a longer side are looked at in squares of this side, in pixels of the picture.
        skip: Told the name of a file; those of which it says yes are not read and get no answer.
        fetch: What reads ``https://`` and ``http://`` sources; ``None``: they get an ``error``, and nothing is fetched.

    Raises:
        ValueError: Numbers out of range, or nothing says how the model wants its pictures.
    """
    if workers < 0:
        raise ValueError(f"workers={workers} must be at least 0")
    seen = looking(model, batch_size, precision, preprocessing, selection, tile)
    place, read = placed(model, device), partial(read_one, transform=seen.views, fetch=fetch)
    many = [sources] if isinstance(sources, str | Path | bytes | Image.Image) else sources

    def answers() -> Iterator[ObjectsFound]:
        waiting: list[tuple[str, Any]] = []
        items = (item for item in files_of(many) if skip is None or not skip(name_of(item)))
        for item in read_ahead(items, read, workers, 2 * batch_size):
            waiting.append(item)
            if len(waiting) >= batch_size:
                yield from seen.answers(waiting, place)
                waiting = []
        if waiting:
            yield from seen.answers(waiting, place)

    return answers()


def predict_frames(
    model: Detector,
    source: ClipSource,
    *,
    name: str,
    batch_size: int = 1,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    preprocessing: Preprocessing | None = None,
    selection: Selection | None = None,
    tile: int | None = None,
) -> Iterator[tuple[ObjectsFound, Image.Image | None]]:
    """Objects in every frame of a clip, with the frame; never more than a batch of frames is held.

    A clip that cannot be read, or not to its end, ends with an :class:`ObjectsFound` with its ``error``, without frame.

    Args:
        model: Its ``card`` tells classes and preprocessing.
        source: A clip, as for :func:`mvitv2.data.video.reader.open_clip`.
        name: What the clip is called in the answers.
        batch_size: Frames in one forward pass.
        device: Where to compute; ``None``: where the model is.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (autocast).
        preprocessing: How frames are resized; ``None``: as the card says.
        selection: Thresholds other than the model's.
        tile: As for :func:`predict_objects`.

    Raises:
        mvitv2.extras.MissingExtra: No reader of clips is installed.
        ValueError: Numbers out of range, or nothing says how the model wants its pictures.
    """
    seen, place = looking(model, batch_size, precision, preprocessing, selection, tile), placed(model, device)

    def answers() -> Iterator[tuple[ObjectsFound, Image.Image | None]]:
        waiting: list[Frame] = []
        for item in frames_of(source):
            if isinstance(item, Frame):
                waiting.append(item)
            if waiting and (isinstance(item, str) or len(waiting) == batch_size):
                yield from in_frames(seen, name, waiting, place)
                waiting = []
            if isinstance(item, str):
                yield ObjectsFound(name, error=item), None
        if waiting:
            yield from in_frames(seen, name, waiting, place)

    return answers()


def frames_of(source: ClipSource) -> Iterator[Frame | str]:
    """The frames of a clip; as the last, where it cannot be read to its end, the reason."""
    try:
        with open_clip(source) as clip:
            yield from clip.stream()
    except ImageError as error:
        yield error.reason


def in_frames(
    seen: Looking, name: str, frames: Sequence[Frame], place: torch.device
) -> Iterator[tuple[ObjectsFound, Image.Image]]:
    """Objects in some frames, with the frames as pictures."""
    pictures = [Image.fromarray(frame.pixels.permute(1, 2, 0).numpy()) for frame in frames]
    answers = seen.answers([(name, seen.views(picture)) for picture in pictures], place)
    for frame, picture, answer in zip(frames, pictures, answers, strict=True):
        yield replace(answer, frame=frame.index, seconds=frame.time), picture


def looking(
    model: Detector,
    batch_size: int,
    precision: str,
    preprocessing: Preprocessing | None,
    selection: Selection | None,
    tile: int | None,
) -> Looking:
    """How a detector is to look at pictures.

    Raises:
        ValueError: Numbers out of range, or nothing says how the model wants its pictures.
    """
    if batch_size < 1 or (tile is not None and tile < SMALLEST_TILE):
        raise ValueError(f"batch_size={batch_size} must be at least 1, tile={tile} {SMALLEST_TILE} pixels")
    resize = resize_of(preprocessing or detector_preprocessing(model))
    return Looking(model, resize, selection, precision, tile)


def detector_preprocessing(model: Detector) -> Preprocessing:
    """How a detector wants its pictures, from its card.

    Raises:
        ValueError: Its card does not say.
    """
    record = model.card.get("preprocessing")
    if record is None:
        raise ValueError("the detector's card has no 'preprocessing'; pass preprocessing=DETECTION, or another")
    return Preprocessing.from_dict(record)
