"""Data sets of clips with a class each: random clips to train on, fixed views to evaluate on.

They stand on any data set of files (:class:`mvitv2.data.labelled.Labelled`: class folders, lists, shards), which says
where each clip lies and what it shows.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvitv2.data.images import ImageError, ImageSource
from mvitv2.data.labelled import Labelled
from mvitv2.data.samples import Batch, SampleKey, Unreadable, seeded, split_key
from mvitv2.data.video.faults import CAPS, Caps
from mvitv2.data.video.pictures import FPS
from mvitv2.data.video.reader import ClipSource, OpenClip, open_clip
from mvitv2.data.video.sampling import Sampling

FramesTransform = Callable[[Tensor], Tensor]


class LabelledClips(Labelled):
    """Clips with a class each.

    Attributes:
        index: The data set that says where they lie.
        sampling: Which frames are taken.
        transform: ``(T, 3, H, W)`` uint8 to what the model is given; ``None``: items hold the frames themselves.
    """

    def __init__(
        self,
        index: Labelled,
        sampling: Sampling,
        transform: FramesTransform | None = None,
        *,
        on_error: str = "raise",
        caps: Caps = CAPS,
        reader: str = "auto",
        fps: float = FPS,
    ) -> None:
        """Stand on a data set of files; no clip is opened.

        Args:
            index: Where clips lie, and their classes.
            sampling: Which frames are taken.
            transform: Frames to what the model is given.
            on_error: See :class:`Labelled`.
            caps: Limits that a clip is refused by.
            reader: See :func:`mvitv2.data.video.reader.open_clip`.
            fps: Of clips that are pictures.
        """
        super().__init__(on_error=on_error)
        self.index, self.sampling, self.transform = index, sampling, transform
        self._how: dict[str, Any] = {"caps": caps, "reader": reader, "fps": fps}
        self.labels = index.labels
        self.name_classes(index.classes, index.class_names)
        self.notes = index.notes

    def __str__(self) -> str:
        return str(self.index)

    def path(self, index: int) -> Path:
        """The file of a sample, or a name that tells where it is."""
        return self.index.path(index)

    def source(self, index: int) -> ImageSource:
        """The file of a sample, or the bytes of it."""
        return self.index.source(index)

    def stamp(self, index: int) -> str:
        """Changes when the file of a sample does."""
        return self.index.stamp(index)

    def order(self, *, seed: int, epoch: int) -> list[int]:
        """The order of an epoch, that of the data set below."""
        return self.index.order(seed=seed, epoch=epoch)

    def open(self, index: int) -> OpenClip:
        """The clip of a sample, to be closed.

        Raises:
            ImageError: It cannot be opened.
        """
        source: ClipSource = self.source(index)
        name = None if isinstance(source, Path) else str(self.path(index))
        return open_clip(source, name=name, **self._how)

    def clips(self, index: int) -> list[list[int]]:
        """The numbers of the frames of each clip that an item takes from a sample."""
        with self.open(index) as clip:
            return self.chosen(len(clip.times), clip.info.fps)

    def chosen(self, frames: int, fps: float) -> list[list[int]]:
        """The numbers of the frames of each clip that an item takes from a file."""
        raise NotImplementedError

    def item(self, clips: Sequence[Tensor]) -> Tensor:
        """An item's tensor of its clips."""
        raise NotImplementedError

    def __getitem__(self, key: int | SampleKey) -> Any:
        """``(clips, label)``, under its seed if the key carries one, or an ``Unreadable``.

        Raises:
            ImageError: The clip cannot be read and ``on_error`` is ``"raise"``.
        """
        index, seed = split_key(key)
        try:
            with seeded(seed), self.open(index) as clip:
                info = clip.info
                chosen = self.chosen(info.frames, info.fps)
                clips = _taken(clip, chosen)
                made = [frames if self.transform is None else self.transform(frames) for frames in clips]
                return self.item(made), int(self.labels[index])
        except ImageError as error:
            if self.on_error == "raise":
                raise
            return Unreadable(int(index), str(self.path(index)), error.reason)


class TrainingClips(LabelledClips):
    """Random clips: an item is ``(clip, label)``, or ``((repeats, ...), label)`` for repeated augmentation.

    Repeats are other frames and other augmentations of one file, which is opened once
    (SlowFast ``AUG.NUM_SAMPLE``); :func:`collate_clips` makes samples of them.
    """

    def __init__(self, *args: Any, repeats: int = 1, **options: Any) -> None:
        """As :class:`LabelledClips`.

        Args:
            *args: Of it.
            repeats: Clips that an item takes from a file.
            **options: Of it.

        Raises:
            ValueError: ``repeats`` is below 1.
        """
        super().__init__(*args, **options)
        if repeats < 1:
            raise ValueError(f"repeats={repeats} must be at least 1")
        self.repeats = repeats

    def chosen(self, frames: int, fps: float) -> list[list[int]]:
        """See :meth:`mvitv2.data.video.sampling.Sampling.random`."""
        return [self.sampling.random(frames, fps) for _ in range(self.repeats)]

    def item(self, clips: Sequence[Tensor]) -> Tensor:
        """The clip, or all repeats."""
        return torch.stack(list(clips)) if self.repeats > 1 else clips[0]


class ViewedClips(LabelledClips):
    """Fixed views: an item is ``((V, C, T, H, W), label)`` of ``num_clips`` times the crops of the transform, in the
    order of SlowFast: all crops of the first clip, then of the second. A single view comes as ``(C, T, H, W)``.
    """

    def __init__(self, *args: Any, num_clips: int = 1, **options: Any) -> None:
        """As :class:`LabelledClips`.

        Args:
            *args: Of it; the transform is an :class:`mvitv2.data.video.transforms.EvalClip`.
            num_clips: Clips over the length of a file.
            **options: Of it.

        Raises:
            ValueError: The sampling gives no such number of clips.
        """
        super().__init__(*args, **options)
        self.sampling.views(1, 1.0, num_clips)
        self.num_clips = num_clips

    def chosen(self, frames: int, fps: float) -> list[list[int]]:
        """See :meth:`mvitv2.data.video.sampling.Sampling.views`."""
        return self.sampling.views(frames, fps, self.num_clips)

    def item(self, clips: Sequence[Tensor]) -> Tensor:
        """All views."""
        views = torch.cat(list(clips)) if self.transform is not None else torch.stack(list(clips))
        return views[0] if len(views) == 1 else views


def _taken(clip: OpenClip, chosen: Sequence[Sequence[int]]) -> list[Tensor]:
    """The frames of several clips of one file, each read once."""
    if len(chosen) == 1:
        return [clip.frames(chosen[0])]
    numbers = sorted({number for one in chosen for number in one})
    place = {number: row for row, number in enumerate(numbers)}
    frames = clip.frames(numbers)
    return [frames[[place[number] for number in one]] for one in chosen]


def collate_clips(items: Sequence[tuple[Tensor, int] | Unreadable]) -> Batch:
    """As :func:`mvitv2.data.samples.collate`, where each item may be several clips ``(R, C, T, H, W)`` of one class."""
    good = [item for item in items if not isinstance(item, Unreadable)]
    clips = [clip[None] if clip.ndim == 4 else clip for clip, _ in good]
    labels = [label for (_, label), clip in zip(good, clips, strict=True) for _ in range(len(clip))]
    images = torch.cat(clips) if clips else torch.empty(0)
    bad = tuple(item for item in items if isinstance(item, Unreadable))
    return Batch(images, torch.tensor(labels, dtype=torch.int64), bad)
