"""Clips around AVA's keyframes, with boxes and their actions."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mvitv2.data.actions.tables import Keyframe, read_excluded, read_keyframes, read_names, read_people
from mvitv2.data.images import ImageError
from mvitv2.data.labelled import DataError
from mvitv2.data.samples import SampleKey, Unreadable, seeded, split_key
from mvitv2.data.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from mvitv2.data.video.info import at_times
from mvitv2.data.video.reader import open_clip
from mvitv2.preprocessing import Preprocessing

FIRST_SECOND = 900.0
"""AVA's clips of 15 minutes begin here in the film; a video that is shorter than its keyframes say begins so."""
BoxTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ActionFiles:
    """Where the parts of a data set in AVA's form lie."""

    videos: dict[str, Path]
    """File, or folder of frames, by the name of the video."""
    keyframes: dict[str, Path]
    """List of boxes with actions by split."""
    people: dict[str, Path]
    """List of detected people by split."""
    excluded: dict[str, Path]
    names: dict[int, str]
    """Of actions that count; all others are trained and not measured."""

    @property
    def classes(self) -> list[str]:
        """A name for every action from the first to the last that is named."""
        return [self.names.get(number, f"action {number + 1}") for number in range(max(self.names) + 1)]


def action_files(folder: Path) -> ActionFiles:
    """What lies in a folder: ``*train*.csv``, ``*val*.csv``, one ``.pbtxt``, videos in it or in ``videos/``.

    Lists with ``boxes`` or ``detected`` in their names are of detected people, those with ``excluded`` of keyframes
    that do not count. ``annotations/`` is looked into as well.

    Raises:
        DataError: A list of boxes with actions, or the videos, are missing.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder; expected ava_train_v2.2.csv, ava_val_v2.2.csv, a .pbtxt and videos/")
    places = [place for place in (folder, folder / "annotations") if place.is_dir()]
    tables = sorted(path for place in places for path in place.glob("*.csv"))
    kinds: dict[str, dict[str, Path]] = {"keyframes": {}, "people": {}, "excluded": {}}
    for path in tables:
        name = path.name.lower()
        split = next((split for split in ("train", "val", "test") if split in name), None)
        kind = "excluded" if "excluded" in name else "people" if "boxes" in name or "detected" in name else "keyframes"
        if split is not None:
            kinds[kind].setdefault(split, path)
    if not kinds["keyframes"]:
        raise DataError(f"{folder}: has no list of boxes such as ava_train_v2.2.csv; there is {_shown(tables)}")
    maps = sorted(path for place in places for path in place.glob("*.pbtxt"))
    names = read_names(maps[0]) if maps else _numbered(kinds["keyframes"].values())
    videos = _videos(folder / "videos" if (folder / "videos").is_dir() else folder)
    if not videos:
        raise DataError(f"{folder}: has no videos; expected videos/NAME.mp4 or videos/NAME/00001.jpg")
    return ActionFiles(videos, kinds["keyframes"], kinds["people"], kinds["excluded"], names)


def _shown(tables: Sequence[Path]) -> str:
    return ", ".join(path.name for path in tables[:5]) or "no .csv at all"


def _numbered(tables: Any) -> dict[int, str]:
    """Actions by number where nothing names them."""
    numbers = {a for path in tables for frame in read_keyframes(path) for each in frame.actions for a in each}
    return {number: f"action {number + 1}" for number in sorted(numbers)} or {0: "action 1"}


def _videos(folder: Path) -> dict[str, Path]:
    """Files by name without suffix, and folders that hold pictures."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if any(inner.suffix.lower() in IMAGE_SUFFIXES for inner in path.iterdir()):
                found[path.name] = path
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            found[path.stem] = path
    return found


class ActionSample(NamedTuple):
    """A clip around a keyframe."""

    clip: Tensor
    """``(C, T, H, W)``."""
    boxes: Tensor
    """``(K, 4)``: left, top, right, bottom in its pixels."""
    actions: Tensor
    """``(K, classes)`` float32, 1 where a box does it."""
    index: int


class Keyframes(Dataset[Any]):
    """Clips around keyframes. An item is an :class:`ActionSample`, or an ``Unreadable``.

    Attributes:
        frames: The keyframes, in the order of the list.
        class_names: Of actions, by number.
    """

    def __init__(
        self,
        files: ActionFiles,
        split: str,
        preprocessing: Preprocessing,
        transform: BoxTransform,
        *,
        detected: bool = False,
        classes: Sequence[str] | None = None,
    ) -> None:
        """Read the lists; no video is opened.

        Args:
            files: Of the data set.
            split: Which list.
            preprocessing: Tells frames and their distance.
            transform: Frames and boxes to what the model is given.
            detected: Take detected people where there is a list of them, instead of the true boxes.
            classes: Names of the actions of a model; ``None``: those of the data.

        Raises:
            DataError: There is no such list, or videos that it names are missing, all of them.
        """
        if split not in files.keyframes:
            raise DataError(f"there is no list of boxes for {split}; there is {', '.join(files.keyframes)}")
        self.class_names = list(classes) if classes is not None else files.classes
        self.preprocessing, self.transform, self.videos = preprocessing, transform, files.videos
        excluded = read_excluded(files.excluded[split]) if split in files.excluded else set()
        found = read_keyframes(files.keyframes[split], num_classes=len(self.class_names))
        self.truth = [f for f in found if f.key not in excluded]
        self.detected = detected and split in files.people
        frames = _with_people(self.truth, read_people(files.people[split])) if self.detected else self.truth
        self.missing = sorted({f.video for f in frames} - set(files.videos))
        self.frames = [f for f in frames if f.video in files.videos and len(f.boxes)]
        if not self.frames:
            raise DataError(f"{files.keyframes[split]}: none of its videos is there: {', '.join(self.missing[:3])}")

    def __len__(self) -> int:
        return len(self.frames)

    def path(self, index: int) -> Path:
        """The video of a keyframe."""
        return self.videos[self.frames[index].video]

    def __getitem__(self, key: int | SampleKey) -> ActionSample | Unreadable:
        """A sample, under its seed if the key carries one."""
        index, seed = split_key(key)
        frame, path = self.frames[index], self.path(index)
        try:
            with open_clip(path) as clip, seeded(seed):
                frames = clip.frames(around(frame.second, clip.times, clip.info.seconds, self.preprocessing))
                pixels, boxes = self.transform(frames, torch.from_numpy(frame.boxes))
        except ImageError as error:
            return Unreadable(int(index), f"{path} at {frame.second:g} s", error.reason)
        return ActionSample(pixels, boxes, self.answers(frame), int(index))

    def part(self, indices: Sequence[int]) -> "Keyframes":
        """Some of the keyframes; what is true is theirs alone as well."""
        few = copy.copy(self)
        few.frames = [self.frames[index] for index in indices]
        keys = {frame.key for frame in few.frames}
        few.truth = [frame for frame in self.truth if frame.key in keys]
        return few

    def answers(self, frame: Keyframe) -> Tensor:
        """``(K, classes)``: 1 where a box does an action."""
        table = torch.zeros(len(frame.boxes), len(self.class_names))
        for row, actions in enumerate(frame.actions):
            table[row, list(actions)] = 1.0
        return table


def _with_people(truth: Sequence[Keyframe], people: dict[str, np.ndarray]) -> list[Keyframe]:
    """The same keyframes with detected people for boxes, of whom nobody says what they do."""
    empty = np.empty((0, 4), np.float32)
    return [Keyframe(f.video, f.second, people.get(f.key, empty), ()) for f in truth]


def around(second: float, times: np.ndarray, length: float, preprocessing: Preprocessing) -> list[int]:
    """Numbers of the frames of a clip around a keyframe (SlowFast ``utils.get_sequence``); the ends are repeated.

    Args:
        second: Of the keyframe, as the list says.
        times: Seconds of all frames after the first.
        length: Seconds of the file.
        preprocessing: Frames and their distance.
    """
    count, rate = preprocessing.num_frames or 1, preprocessing.sampling_rate or 1
    fps = preprocessing.fps or (len(times) - 1) / max(float(times[-1]), 1e-9) or 1.0
    begins = FIRST_SECOND if second >= FIRST_SECOND > length else 0.0
    wanted = [second - begins + (place * rate - count * rate // 2) / fps for place in range(count)]
    return at_times(times, wanted)
