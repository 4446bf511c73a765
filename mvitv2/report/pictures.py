"""Pictures for a page: what the model saw, where it looked, and what it said."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from mvitv2.core.model import MViT
from mvitv2.data.transforms import denormalised
from mvitv2.explain import attention_map, overlay
from mvitv2.tasks.evaluation import Evaluation, Example
from mvitv2.tasks.prediction import preprocessing_of

SIDE = 144
"""Longest side of a picture on the page, pixels."""
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
    names, preprocessing = list(dataset.class_names), preprocessing_of(model)
    answer = example.predicted if columns is None else columns[example.predicted]
    tensor = dataset[example.index][0]
    seen = enlarged(denormalised(tensor, preprocessing))
    looked = ""
    if model.config.reversible is None:
        pixels = tensor[None].to(next(model.parameters()).device)
        looked = data_address(overlay(seen, attention_map(model, pixels, torch.tensor([answer]))[0]))
    path = getattr(dataset, "path", None)
    name = path(example.index).name if path else f"no. {example.index}"
    return Sample(data_address(seen), looked, names[example.label], names[example.predicted], example.score, name)


def enlarged(image: Image.Image) -> Image.Image:
    """The picture with its longest side at ``SIDE``."""
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def data_address(image: Image.Image) -> str:
    """A picture as a ``data:`` address, so that the page needs no other file."""
    kind = "jpeg" if min(image.size) >= JPEG_FROM else "png"
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 88} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
