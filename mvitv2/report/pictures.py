"""Pictures for a page: what the model saw, where it looked, and what it said; of clips a few frames side by side."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from mvitv2.core.model import MViT
from mvitv2.data.transforms import denormalised
from mvitv2.explain import attention_map, overlay
from mvitv2.tasks.clips import clip_preprocessing_of
from mvitv2.tasks.evaluation import Evaluation, Example
from mvitv2.tasks.prediction import preprocessing_of

SIDE = 144
"""Longest side of a picture on the page, pixels."""
FRAMES = 4
"""Frames of a clip that are shown, from its first to its last."""
FRAME_SIDE = 112
"""Longest side of each of them, pixels."""
JPEG_FROM = 96
"""Pictures the model sees at this side or larger are stored as JPEG, smaller ones as PNG."""


@dataclass(frozen=True)
class Sample:
    """One picture and what the model says about it."""

    picture: str
    """``data:`` address."""
    attention: str
    """``data:`` address of the picture with the attention over it; empty where it cannot be told."""
    truth: str
    guess: str
    score: float
    name: str
    """Of the file, or the place in the data set."""

    @property
    def right(self) -> bool:
        """Whether the model is right."""
        return self.truth == self.guess


def samples(
    model: MViT, dataset: Any, evaluation: Evaluation, *, most: int = 24, columns: Sequence[int] | None = None
) -> list[Sample]:
    """The most confident mistakes, then correct answers, at most ``most`` in all and a third of them at least correct.

    Args:
        model: What was evaluated.
        dataset: What it was evaluated on.
        evaluation: Tells which places are mistakes.
        most: Pictures.
        columns: The model's class of each of the data's, where the data has some of them only.
    """
    right = max(most - len(evaluation.mistakes), most // 3)
    chosen = [*evaluation.mistakes[: most - min(right, len(evaluation.correct))], *_spaced(evaluation.correct, right)]
    return [sample(model, dataset, example, columns) for example in chosen[:most]]


def _spaced(examples: list[Example], count: int) -> list[Example]:
    """``count`` of the examples, from all classes."""
    if len(examples) <= count:
        return examples
    return [examples[i * len(examples) // count] for i in range(count)]


def sample(model: MViT, dataset: Any, example: Example, columns: Sequence[int] | None = None) -> Sample:
    """One place of a data set with its picture and the attention for what the model says."""
    names = list(dataset.class_names)
    preprocessing = (clip_preprocessing_of if model.config.rank == len("thw") else preprocessing_of)(model)
    answer = example.predicted if columns is None else columns[example.predicted]
    tensor = dataset[example.index][0]
    seen, looked = picture_of(tensor, preprocessing), ""
    frames = 1 if tensor.ndim == len("chw") else len(shown_frames(tensor.shape[1]))
    if model.config.reversible is None:
        pixels = tensor[None].to(next(model.parameters()).device)
        weights = side_by_side(attention_map(model, pixels, torch.tensor([answer]))[0])
        looked = data_address(divided(overlay(seen, weights), frames))
    path = getattr(dataset, "path", None)
    name = path(example.index).name if path else f"no. {example.index}"
    return Sample(
        data_address(divided(seen, frames)), looked, names[example.label], names[example.predicted], example.score, name
    )


def picture_of(tensor: Tensor, preprocessing: Any) -> Image.Image:
    """What the model saw: ``(C, H, W)``, or some frames of ``(C, T, H, W)`` from left to right."""
    if tensor.ndim == len("chw"):
        return enlarged(denormalised(tensor, preprocessing))
    frames = [enlarged(denormalised(tensor[:, t], preprocessing), FRAME_SIDE) for t in shown_frames(tensor.shape[1])]
    width, height = frames[0].size
    strip = Image.new("RGB", (width * len(frames), height))
    for place, frame in enumerate(frames):
        strip.paste(frame, (place * width, 0))
    return strip


def side_by_side(weights: Tensor) -> Tensor:
    """A map ``(H, W)`` as it is; of ``(T, H, W)`` the frames that :func:`picture_of` shows, ``(H, frames * W)``."""
    return weights if weights.ndim == len("hw") else torch.cat([weights[t] for t in shown_frames(len(weights))], dim=1)


def divided(strip: Image.Image, frames: int) -> Image.Image:
    """A strip with a line between neighbouring frames."""
    pen = ImageDraw.Draw(strip)
    for place in range(1, frames):
        left = place * strip.width // frames
        pen.line((left, 0, left, strip.height), fill="white")
    return strip


def shown_frames(frames: int) -> list[int]:
    """Which of a clip's frames are shown."""
    return torch.linspace(0, frames - 1, min(frames, FRAMES)).round().long().tolist()


def enlarged(image: Image.Image, side: int = SIDE) -> Image.Image:
    """The picture with its longest side at ``side``."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def data_address(image: Image.Image) -> str:
    """A picture as a ``data:`` address, so that the page needs no other file."""
    kind = "jpeg" if min(image.size) >= JPEG_FROM else "png"
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 88} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
