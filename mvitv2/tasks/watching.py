"""Actions of people in a video: boxes second by second, and what a model says about each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from mvitv2.core.model import MViT
from mvitv2.data.actions.boxes import WholeFrames
from mvitv2.data.actions.keyframes import around
from mvitv2.data.video.reader import ClipSource, open_clip
from mvitv2.tasks.actions import RoIClassifier
from mvitv2.tasks.clips import clip_preprocessing_of
from mvitv2.tasks.evaluation import evaluating, placed
from mvitv2.tasks.prediction import class_names


@dataclass(frozen=True)
class Person:
    """A box of a keyframe and what is done in it."""

    second: float
    box: tuple[float, float, float, float]
    """Left, top, right, bottom as parts of the frame."""
    actions: tuple[str, ...]
    """Likeliest first; several may be true at once."""
    scores: tuple[float, ...]
    indices: tuple[int, ...]


def watch(
    model: MViT,
    source: ClipSource,
    boxes: Mapping[float, np.ndarray],
    *,
    top: int = 5,
    device: str | torch.device | None = None,
) -> Iterator[Person]:
    """What is done in boxes of a video, keyframe after keyframe; frames are whole, of any shape.

    Args:
        model: A detector of actions; its card tells actions and preprocessing.
        source: A clip.
        boxes: ``(K, 4)`` by second, as parts of the frame.
        top: Actions per box.
        device: Where to compute; ``None``: where the model is.

    Raises:
        mvitv2.data.images.ImageError: The clip cannot be read.
        ValueError: The model's card does not say how it wants its clips.
    """
    preprocessing, names, place = clip_preprocessing_of(model), class_names(model), placed(model, device)
    prepare, heads = WholeFrames(preprocessing), RoIClassifier(model)
    with open_clip(source) as clip, evaluating(model), torch.inference_mode():
        for second in sorted(boxes):
            frames = clip.frames(around(second, clip.times, clip.info.seconds, preprocessing))
            pixels, corners = prepare(frames, torch.from_numpy(boxes[second]))
            logits = heads(pixels[None].to(place), F.pad(corners, (1, 0)).to(place)).float().cpu()
            scores = logits if model.config.head_activation == "sigmoid" else logits.sigmoid()
            yield from _people(second, boxes[second], scores, names, top)


def _people(second: float, boxes: np.ndarray, scores: torch.Tensor, names: Sequence[str], top: int) -> Iterator[Person]:
    """The likeliest actions of each box."""
    values, numbers = scores.topk(min(top, len(names)), dim=1)
    for box, best, ranked in zip(boxes.tolist(), values.tolist(), numbers.tolist(), strict=True):
        found: tuple[int, ...] = tuple(ranked)
        yield Person(second, (box[0], box[1], box[2], box[3]), tuple(names[i] for i in found), tuple(best), found)
