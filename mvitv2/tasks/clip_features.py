"""What a model sees of clips, as numbers for something else: a vector for each clip, or for each of its seconds."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from mvitv2.core.model import MViT
from mvitv2.data.images import ImageError
from mvitv2.data.video.reader import ClipSource, open_clip
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.clips import clip_preprocessing_of
from mvitv2.tasks.evaluation import AUTOCAST, evaluating, placed
from mvitv2.tasks.features import Features, extracted
from mvitv2.tasks.timeline import Seconds, Sliding, clip_name, many, scored_windows


def clip_features(
    model: MViT,
    sources: ClipSource | Iterable[ClipSource],
    *,
    seconds: bool = False,
    normalise: bool = False,
    step: float = 1.0,
    batch_size: int = 4,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    preprocessing: Preprocessing | None = None,
    skip: Callable[[str], bool] | None = None,
) -> Iterator[Features]:
    """Features of clips, each streamed once in bounded memory: means over windows that slide over it.

    Args:
        model: For clips, with or without a classifier.
        sources: Files, folders of frames, bytes; one or many.
        seconds: A vector for each second, called ``FILE#t=12``, instead of one for each clip.
        normalise: To length 1.
        step: Seconds from one window to the next.
        batch_size: Windows in one forward pass.
        device: Where to compute; ``None``: where the model is.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (autocast).
        preprocessing: How clips become numbers; ``None``: as the card says.
        skip: Told a name; those of which it says yes are left out.

    Raises:
        ValueError: Nothing says how the model wants its clips, or a number is out of range.
    """
    record = clip_preprocessing_of(model) if preprocessing is None else preprocessing
    sliding, place, dtype = Sliding(record, step), placed(model, device), AUTOCAST[precision]

    def compute(clips: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast(place.type, dtype, enabled=dtype is not None):
            return extracted(model, clips.to(place), "pooled", average=False, normalise=False).cpu()

    def found() -> Iterator[Features]:
        for source in many(sources):
            name = clip_name(source)
            if seconds or skip is None or not skip(name):
                with evaluating(model):
                    yield from vectors(source, name, sliding, compute, batch_size=batch_size, seconds=seconds)

    wanted = (one for one in found() if skip is None or not skip(one.file))
    return (unit(one) for one in wanted) if normalise else wanted


def vectors(
    source: ClipSource,
    name: str,
    sliding: Sliding,
    compute: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    seconds: bool,
) -> Iterator[Features]:
    """The vectors of one clip, or the reason why there are none; what came before an error stands."""
    sums = Seconds()
    error: str | None = None
    try:
        with open_clip(source) as clip:
            for start, end, vector in scored_windows(sliding.over(clip), compute, batch_size):
                for second, mean in sums.add(start, end, vector):
                    if seconds:
                        yield Features(f"{name}#t={second}", mean.numpy())
    except ImageError as problem:
        error = problem.reason
    if seconds:
        yield from (Features(f"{name}#t={second}", mean.numpy()) for second, mean in sums.rest())
    elif sums.windows and error is None:
        yield Features(name, (sums.total / sums.windows).numpy())
    if error is not None:
        yield Features(name, error=error)


def unit(found: Features) -> Features:
    """The same at length 1."""
    if found.values is None:
        return found
    return replace(found, values=torch.nn.functional.normalize(torch.from_numpy(found.values), dim=0).numpy())
