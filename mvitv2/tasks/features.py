"""What a model sees of pictures, as numbers for something else: a vector each, or a map of any stage."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mvitv2.core.model import MViT
from mvitv2.data.transforms import EvalTransform
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.evaluation import AUTOCAST, evaluating, placed
from mvitv2.tasks.prediction import Read, Source, batched, preprocessing_of

LAYERS = ("pooled", "map", "stage1", "stage2", "stage3", "stage4")
"""``pooled``: what the classifier sees, ``(C,)``; ``map``: the tokens of the last stage, normed, ``(C, H, W)``;
``stageN``: the tokens that leave a stage, ``(C, H, W)``."""


@dataclass(frozen=True)
class Features:
    """The features of one picture, or why there are none."""

    file: str
    values: np.ndarray | None = None
    """float32, of the shape that :data:`LAYERS` says."""
    error: str | None = None


def features(
    model: MViT,
    sources: Source | Iterable[Source],
    *,
    layer: str = "pooled",
    average: bool = False,
    normalise: bool = False,
    batch_size: int = 32,
    workers: int = 2,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    preprocessing: Preprocessing | None = None,
    skip: Callable[[str], bool] | None = None,
) -> Iterator[Features]:
    """Features of pictures, one after another in the order of the sources, in bounded memory.

    Args:
        model: For images, with or without a classifier.
        sources: Files, folders, patterns, the bytes of files, or pictures; one or many.
        layer: One of :data:`LAYERS`.
        average: Of a map, the mean over its places: ``(C,)``.
        normalise: To length 1 over the channels.
        batch_size: Pictures in one forward pass.
        workers: Threads that read and decode; 0 reads between the passes.
        device: Where to compute; ``None``: where the model is.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (autocast).
        preprocessing: How pictures become numbers; ``None``: as the card says.
        skip: Told the name of a file; those of which it says yes are left out.

    Raises:
        ValueError: There is no such layer, or nothing says how the model wants its pictures.
    """
    stages = model.config.num_stages
    if layer not in LAYERS[: 2 + stages]:
        raise ValueError(f"layer={layer!r} is none of {', '.join(LAYERS[: 2 + stages])}")
    if average and layer == "pooled":
        raise ValueError("average=True is for maps; layer='pooled' is one vector already")
    record = preprocessing or preprocessing_of(model, classifier=False)
    place = placed(model, device)
    stream = batched(sources, EvalTransform(record), batch_size=batch_size, workers=workers, skip=skip)

    def found() -> Iterator[Features]:
        with closing(stream):
            for items in stream:
                yield from _of_batch(model, items, place, precision, take)

    def take(pixels: Tensor) -> Tensor:
        return extracted(model, pixels, layer, average=average, normalise=normalise)

    return found()


def extracted(model: MViT, pixels: Tensor, layer: str, *, average: bool, normalise: bool) -> Tensor:
    """``(B, C, H, W)`` pixels to ``(B, C')`` or ``(B, C', H', W')`` float32."""
    if layer == "pooled":
        found = model.forward_head(model.forward_features(pixels), pre_logits=True)
    else:
        stage = model.config.num_stages - 1 if layer == "map" else int(layer.removeprefix("stage")) - 1
        found = model.forward_intermediates(pixels, indices=[stage], norm=layer == "map")[1][0]
        found = found.flatten(2).mean(dim=2) if average else found
    found = found.float()
    return torch.nn.functional.normalize(found, dim=1) if normalise else found


def _of_batch(
    model: MViT, items: list[Read], device: torch.device, precision: str, extract: Callable[[Tensor], Tensor]
) -> Iterator[Features]:
    """Features of a batch of equal sizes, reasons in between."""
    images = [tensor for _, tensor in items if isinstance(tensor, Tensor)]
    rows: Iterator[np.ndarray] = iter(())
    if images:
        dtype = AUTOCAST[precision]
        with evaluating(model), torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            rows = iter(extract(torch.stack(images).to(device)).cpu().numpy())
    for file, tensor in items:
        yield Features(file, error=tensor) if isinstance(tensor, str) else Features(file, values=next(rows))
