"""The sheet of ``mvitv2 check``: samples as a recipe's training sees them, beside what they were made of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvitv2.cli.failures import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from mvitv2.cli.check import Options
    from mvitv2.data.preflight import Examined
    from mvitv2.preprocessing import Preprocessing
    from mvitv2.train.recipe import Recipe

USUAL = {"classify": "imagenet_t", "video": "k400_s"}
"""Recipe by what the data is for, where none is named."""
OF_CLIPS = ("video", "maskfeat")


def drawn(options: "Options", examined: "Examined[Any]") -> "Image":
    """The sheet of the first split, which is that of training where there is one."""
    from mvitv2.data.detection.dataset import DetectionImages
    from mvitv2.data.video.preflight import SeenClips

    dataset = next(iter(examined.datasets.values()))
    if isinstance(dataset, DetectionImages):
        return boxes(options, dataset)
    return clips(options, dataset) if isinstance(dataset, SeenClips) else pictures(options, dataset)


def boxes(options: "Options", dataset: Any) -> "Image":
    """Pictures with boxes."""
    from mvitv2.data.detection.augment import MultiScale
    from mvitv2.data.detection.sheet import detection_sheet
    from mvitv2.train.detection import train_transform

    own = None if options.recipe is None else named(options, "classify")
    how = MultiScale() if own is None or own.task == "classify" else train_transform(own, {})
    return detection_sheet(dataset, how, count=options.show, seed=options.seed)


def pictures(options: "Options", dataset: Any) -> "Image":
    """Pictures with a class."""
    from mvitv2.data.sheet import sheet
    from mvitv2.train.classification import on_device, preprocessing_for, train_transform

    chosen = named(options, "classify")
    record = preprocessing_for(chosen, {})
    transform = finished(train_transform(chosen, record), on_device(chosen, record))
    return sheet(dataset, transform, record, count=options.show, seed=options.seed)


def clips(options: "Options", dataset: Any) -> "Image":
    """Clips, of each a few frames.

    Raises:
        UsageError: The recipe is of something else.
    """
    from mvitv2.data.video.sampling import Sampling
    from mvitv2.data.video.sheet import clip_sheet
    from mvitv2.train.video import clips_on_device, train_clip

    chosen, record = named(options, "video"), clip_record(options)
    transform = finished(train_clip(chosen, record)[0], clips_on_device(chosen, record))
    sampling = Sampling.of(record)
    return clip_sheet(dataset.files, sampling, record, transform=transform, count=options.show, seed=options.seed)


def clip_record(options: "Options") -> "Preprocessing":
    """Which frames of a clip a model is given, and how: the recipe's, with what the command line changes.

    Raises:
        UsageError: The recipe is of something else.
    """
    from mvitv2.train.video import clip_preprocessing

    chosen = named(options, "video")
    if chosen.task not in OF_CLIPS:
        raise UsageError(
            f"--recipe {options.recipe}: task {chosen.task!r} is not of clips with classes, as this data is"
        )
    record = clip_preprocessing(chosen)
    if options.rate is not None:
        every = options.rate != "none"
        fps = record.fps or 30.0 if every else None
        record = replace(record, sampling_rate=options.rate if every else None, fps=fps)
    return record if options.frames is None else replace(record, num_frames=options.frames)


def named(options: "Options", kind: str) -> "Recipe":
    """The recipe that is named, or written to a file by a run, or else the usual one, at the size that is asked for."""
    from mvitv2.cli.chosen import from_file
    from mvitv2.train.recipe import overridden
    from mvitv2.train.recipes import recipe

    name = options.recipe or USUAL[kind]
    chosen = from_file(Path(name)) if Path(name).is_file() else recipe(name)
    return chosen if options.img_size is None else overridden(chosen, {"img_size": options.img_size})


def finished(crop: Callable[[Any], Any], augment: Any) -> Callable[[Any], Any]:
    """What training does to one sample, with what it does to batches on the device."""
    if augment is None:
        return crop

    def transform(sample: Any) -> Any:
        from torch import randint

        return augment(crop(sample)[None], seed=int(randint(1 << 62, ())))[0]

    return transform
