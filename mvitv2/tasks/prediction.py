"""Files of one's own through a classifier: a stream of answers in the order of the files, in bounded memory."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mvitv2.core.model import MViT
from mvitv2.data.images import ImageError, read_image, source_name
from mvitv2.data.sources import Problem, expand
from mvitv2.data.transforms import EvalTransform
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.evaluation import evaluating, placed, probabilities

Source = str | Path | bytes | Image.Image
Read = tuple[str, Tensor | str]
"""What the source is called, and its tensor or the reason why there is none."""


@dataclass(frozen=True)
class Prediction:
    """What a model says about one image, or why it says nothing."""

    file: str
    classes: tuple[str, ...] = ()
    """Names, likeliest first."""
    scores: tuple[float, ...] = ()
    """One per name, 0 to 1."""
    indices: tuple[int, ...] = ()
    """Numbers of those classes."""
    error: str | None = None
    """One line, where the image could not be read."""


def predict(
    model: MViT,
    sources: Source | Iterable[Source],
    *,
    top: int = 5,
    batch_size: int = 32,
    workers: int = 2,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    preprocessing: Preprocessing | None = None,
) -> Iterator[Prediction]:
    """Answers for images, one after another in the order of the sources.

    Nothing is read before the first answer is asked for, and never more than a few batches ahead. A file that cannot be
    read gives a :class:`Prediction` with its ``error``; the rest goes on.

    Args:
        model: A classifier of images; its ``card`` tells classes and preprocessing.
        sources: Files, folders, patterns, the bytes of files, or pictures; one or many.
        top: Classes per answer, likeliest first.
        batch_size: Images in one forward pass.
        workers: Threads that read and decode; 0 reads between the passes.
        device: Where to compute; ``None``: where the model is.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (autocast).
        preprocessing: How pictures become numbers; ``None``: as the card says.

    Raises:
        ValueError: The model is no classifier of images, or nothing says how it wants its pictures.
    """
    if top < 1 or batch_size < 1 or workers < 0:
        raise ValueError(f"top={top} and batch_size={batch_size} must be at least 1, workers={workers} at least 0")
    transform = EvalTransform(preprocessing_of(model) if preprocessing is None else preprocessing)
    many = [sources] if isinstance(sources, str | Path | bytes | Image.Image) else sources
    names, place = class_names(model), placed(model, device)
    return _answers(model, many, transform, names, place, (top, batch_size, workers, precision))


def preprocessing_of(model: MViT) -> Preprocessing:
    """How a model wants its pictures, from its card.

    Raises:
        ValueError: It is for clips or no classifier, or its card does not say.
    """
    config = model.config
    if config.rank != 2 or config.num_classes == 0:
        kind = "takes clips" if config.rank != 2 else "has no classifier"
        raise ValueError(f"this model {kind}; predicting single images needs a classifier of images")
    record = model.card.get("preprocessing")
    if record is None:
        raise ValueError("the model's card has no 'preprocessing'; pass preprocessing=Preprocessing(...), or IMAGENET")
    return Preprocessing.from_dict(record)


def class_names(model: MViT) -> list[str]:
    """Names of a model's classes; their numbers where its card has none."""
    names = model.card.get("classes") or [str(i) for i in range(model.config.num_classes)]
    if len(names) != model.config.num_classes:
        raise ValueError(f"the model's card names {len(names)} classes, the model has {model.config.num_classes}")
    return [str(name) for name in names]


def _answers(
    model: MViT,
    sources: Iterable[Source],
    transform: EvalTransform,
    names: list[str],
    device: torch.device,
    options: tuple[int, int, int, str],
) -> Iterator[Prediction]:
    """The stream itself: a batch is full when it has enough images, or when one of another size comes."""
    top, batch_size, workers, precision = options
    waiting: list[Read] = []
    stream = _read_ahead(sources, transform, workers, 2 * batch_size)
    for item in chain(stream, [None]):
        shapes = {t.shape for _, t in waiting if isinstance(t, Tensor)}
        fits = item is not None and (not shapes or isinstance(item[1], str) or item[1].shape in shapes)
        if waiting and (not fits or len(waiting) >= batch_size):
            yield from _named(model, waiting, names, device, top, precision)
            waiting = []
        if item is not None:
            waiting.append(item)


def _named(
    model: MViT, items: Sequence[Read], names: list[str], device: torch.device, top: int, precision: str
) -> Iterator[Prediction]:
    """Answers for a batch of equal sizes, reasons in between."""
    images = [tensor for _, tensor in items if isinstance(tensor, Tensor)]
    ranked: Iterator[Any] = iter(())
    if images:
        with evaluating(model):
            scores = probabilities(model, torch.stack(images).to(device), precision)
        values, indices = scores.topk(min(top, len(names)), dim=-1)
        ranked = zip(values.tolist(), indices.tolist(), strict=True)
    for file, tensor in items:
        if isinstance(tensor, str):
            yield Prediction(file, error=tensor)
        else:
            best, numbers = next(ranked)
            yield Prediction(file, tuple(names[i] for i in numbers), tuple(best), tuple(numbers))


def _read_ahead(sources: Iterable[Source], transform: EvalTransform, workers: int, most: int) -> Iterator[Read]:
    """Read sources in threads, at most ``most`` ahead, and hand them out in order."""
    if workers == 0:
        yield from (_read(item, transform) for item in _files(sources))
        return
    ahead: deque[Future[Read]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
        try:
            for item in _files(sources):
                ahead.append(pool.submit(_read, item, transform))
                if len(ahead) >= most:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _files(sources: Iterable[Source]) -> Iterator[Source | Problem]:
    """Folders and patterns opened up; what gives nothing comes as a problem."""
    for source in sources:
        if isinstance(source, str | Path):
            yield from expand(str(source))
        else:
            yield source


def _read(source: Source | Problem, transform: EvalTransform) -> Read:
    """One source as a tensor, or the reason why not."""
    if isinstance(source, Problem):
        return source.source, source.reason
    if isinstance(source, Image.Image):
        name = getattr(source, "filename", "") or "<image>"
        return str(name), transform(source)
    name = source_name(source)
    try:
        return name, transform(read_image(source))
    except ImageError as error:
        return name, error.reason
    except ValueError as error:  # a picture that no resize can make sense of
        return name, str(error)
