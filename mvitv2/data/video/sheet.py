"""A sheet of clips as the model will see them in training, each beside the clip it was made of."""

from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from mvitv2.data.images import ImageError
from mvitv2.data.labelled import DataError, Labelled
from mvitv2.data.samples import sample_seed, seeded
from mvitv2.data.sheet import chosen, fitted, laid_out
from mvitv2.data.transforms import denormalised
from mvitv2.data.video.clips import FramesTransform, TrainingClips
from mvitv2.data.video.sampling import Sampling
from mvitv2.data.video.transforms import EvalClip, TrainClip
from mvitv2.preprocessing import KINETICS, Preprocessing

_SHOWN = 4  # frames of a clip


def clip_sheet(
    files: Labelled,
    sampling: Sampling,
    preprocessing: Preprocessing = KINETICS,
    *,
    transform: FramesTransform | None = None,
    count: int = 8,
    seed: int = 0,
) -> Image.Image:
    """``count`` clips of different classes: four frames as they are evaluated, and the same four augmented.

    Args:
        files: Where clips lie.
        sampling: Which frames are taken.
        preprocessing: Size and statistics.
        transform: What training does to frames; gives ``(C, T, H, W)``. ``None``: Kinetics' recipe.
        count: Clips.
        seed: Which clips and frames, and how they are augmented.

    Raises:
        DataError: None of the clips can be read.
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    record = replace(preprocessing, num_frames=sampling.num_frames)
    train = transform or TrainClip(record)
    raw, plain = TrainingClips(files, sampling), EvalClip(record)
    cells = []
    for place, index in enumerate(chosen(files, count, seed)):
        with seeded(sample_seed(seed, 0, place)):
            try:
                frames, label = raw[index]
            except ImageError:  # the report names it; here the next one is shown
                continue
            made = train(frames)
        cells.append(([strip(plain(frames)[0], record), strip(made, record)], files.class_names[label]))
        if len(cells) == count:
            break
    if not cells:
        raise DataError(f"{files}: none of the clips for the sheet can be read")
    return laid_out([([fitted(image) for image in pair], name) for pair, name in cells])


def strip(clip: Tensor, preprocessing: Preprocessing) -> Image.Image:
    """Four frames of ``(C, T, H, W)`` in two rows."""
    places = torch.linspace(0, clip.shape[1] - 1, _SHOWN).long().tolist()
    frames = [denormalised(clip[:, place], preprocessing).convert("RGB") for place in places]
    width, height = frames[0].size
    page = Image.new("RGB", (2 * width, 2 * height))
    for place, frame in enumerate(frames):
        page.paste(frame, (place % 2 * width, place // 2 * height))
    return page
