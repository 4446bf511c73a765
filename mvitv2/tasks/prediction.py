"""Files of one's own through a classifier: a stream of answers in the order of the files, in bounded memory."""

import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
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
from mvitv2.data.web import is_address
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.annotated import annotated
from mvitv2.tasks.evaluation import evaluating, placed, probabilities

Source = str | Path | bytes | Image.Image
Fetch = Callable[[str], bytes]
"""From an address to the bytes behind it, such as :class:`mvitv2.data.web.Web`."""
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

    @property
    def top1(self) -> str | None:
        """The likeliest class; ``None`` without an answer."""
        return self.classes[0] if self.classes else None

    @property
    def top5(self) -> list[tuple[str, float]]:
        """The five likeliest classes with their scores, or as many as were asked for."""
        return list(zip(self.classes, self.scores, strict=True))[:5]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``error`` is ``None`` where there are predictions."""
        rows = zip(self.classes, self.indices, self.scores, strict=True)
        predictions = [{"class": name, "index": index, "score": score} for name, index, score in rows]
        return {"file": self.file, "predictions": predictions, "error": self.error}

    def to_json(self) -> str:
        """:meth:`to_dict` as text."""
        return json.dumps(self.to_dict())

    def plot(self, picture: Image.Image | None = None) -> Image.Image:
        """The picture with the answer below it.

        Args:
            picture: ``None``: read from ``file``.

        Raises:
            mvitv2.data.images.ImageError: The file cannot be read.
        """
        return annotated(read_image(self.file) if picture is None else picture, self.top5)

    def save(self, path: str | Path, picture: Image.Image | None = None) -> None:
        """Write :meth:`plot` to a file, whose suffix says how."""
        self.plot(picture).convert("RGB").save(path)


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
    skip: Callable[[str], bool] | None = None,
    fetch: Fetch | None = None,
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
        skip: Told the name of a file; those of which it says yes are not read and get no answer.
        fetch: What reads ``https://`` and ``http://`` sources; ``None``: they get an ``error``, and nothing is fetched.

    Raises:
        ValueError: The model is no classifier of images, or nothing says how it wants its pictures.
    """
    if top < 1 or batch_size < 1 or workers < 0:
        raise ValueError(f"top={top} and batch_size={batch_size} must be at least 1, workers={workers} at least 0")
    transform = EvalTransform(preprocessing_of(model) if preprocessing is None else preprocessing)
    names, place = class_names(model), placed(model, device)
    stream = batched(sources, transform, batch_size=batch_size, workers=workers, skip=skip, fetch=fetch)

    def answers() -> Iterator[Prediction]:
        with closing(stream):
            for items in stream:
                yield from _named(model, items, names, place, top, precision)

    return answers()


def preprocessing_of(model: MViT, *, classifier: bool = True) -> Preprocessing:
    """How a model wants its pictures, from its card.

    Args:
        model: For images.
        classifier: It must have classes.

    Raises:
        ValueError: It is for clips or no classifier, or its card does not say.
    """
    config = model.config
    if config.rank != 2 or (classifier and config.num_classes == 0):
        kind = "takes clips" if config.rank != 2 else "has no classifier"
        raise ValueError(f"this model {kind}; predicting single images needs a classifier of images")
    record = model.card.get("preprocessing")
    if record is None:
        raise ValueError("the model's card has no 'preprocessing'; pass preprocessing=Preprocessing(...), or IMAGENET")
    return Preprocessing.from_dict(record)


def create_transform(
    model: MViT, *, img_size: int | tuple[int, int] | None = None, crop_pct: float | None = None
) -> EvalTransform:
    """From a picture to the tensor ``(C, H, W)`` that a model wants.

    Args:
        model: For images; its card says how.
        img_size: Another side, or height and width.
        crop_pct: Another part of the resized picture that the crop is.

    Raises:
        ValueError: The model is for clips, or its card does not say.
    """
    record = preprocessing_of(model, classifier=False)
    record = record if img_size is None else record.at(img_size)
    return EvalTransform(record if crop_pct is None else record.with_crop_fraction(crop_pct))


def class_names(model: MViT) -> list[str]:
    """Names of a model's classes; their numbers where its card has none."""
    names = model.card.get("classes") or [str(i) for i in range(model.config.num_classes)]
    if len(names) != model.config.num_classes:
        raise ValueError(f"the model's card names {len(names)} classes, the model has {model.config.num_classes}")
    return [str(name) for name in names]


def batched(
    sources: Source | Iterable[Source],
    transform: Callable[[Image.Image], Tensor],
    *,
    batch_size: int,
    workers: int,
    skip: Callable[[str], bool] | None = None,
    fetch: Fetch | None = None,
) -> Generator[list[Read], None, None]:
    """Sources as batches of one size of tensors, in order, with reasons in between.

    A batch ends when it has enough items, or when a tensor of another size comes. Never more than two batches are read
    ahead.

    Args:
        sources: As for :func:`predict`.
        transform: A picture to a tensor.
        batch_size: Items of a batch.
        workers: Threads that read and decode; 0 reads when a batch is asked for.
        skip: Told a name; yes leaves it out.
        fetch: What reads addresses.
    """
    many = [sources] if isinstance(sources, str | Path | bytes | Image.Image) else sources
    waiting: list[Read] = []
    items = (item for item in files_of(many) if skip is None or not skip(name_of(item)))
    for item in chain(
        read_ahead(items, partial(read_one, transform=transform, fetch=fetch), workers, 2 * batch_size), [None]
    ):
        shapes = {t.shape for _, t in waiting if isinstance(t, Tensor)}
        fits = item is not None and (not shapes or isinstance(item[1], str) or item[1].shape in shapes)
        if waiting and (not fits or len(waiting) >= batch_size):
            yield waiting
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


def read_ahead(
    items: Iterable[Source | Problem],
    read: Callable[[Source | Problem], tuple[str, Any]],
    workers: int,
    most: int,
) -> Iterator[tuple[str, Any]]:
    """Read sources in threads, at most ``most`` ahead, and hand them out in order."""
    if workers == 0:
        yield from map(read, items)
        return
    ahead: deque[Future[tuple[str, Any]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
        try:
            for item in items:
                ahead.append(pool.submit(read, item))
                if len(ahead) >= most:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def files_of(sources: Iterable[Source | Problem]) -> Iterator[Source | Problem]:
    """Folders and patterns opened up, addresses as they are; what gives nothing comes as a problem."""
    for source in sources:
        if isinstance(source, str | Path) and not (isinstance(source, str) and is_address(source)):
            yield from expand(str(source))
        else:
            yield source


def name_of(source: Source | Problem) -> str:
    """What a source is called."""
    if isinstance(source, Problem):
        return source.source
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "<image>")
    return source_name(source)


def read_one(
    source: Source | Problem, transform: Callable[[Image.Image], Any], fetch: Fetch | None = None
) -> tuple[str, Any]:
    """One source through a transform, or the reason why not."""
    name = name_of(source)
    if isinstance(source, Problem):
        return name, source.reason
    if isinstance(source, Image.Image):
        return name, transform(source)
    if isinstance(source, str) and fetch is None:
        return name, "is an address, and reading those is not allowed (--allow-urls, or fetch=mvitv2.data.web.Web())"
    try:
        return name, transform(read_image(fetch(source) if isinstance(source, str) and fetch else source))
    except ImageError as error:
        return name, error.reason
    except ValueError as error:  # a picture that no resize can make sense of
        return name, str(error)
