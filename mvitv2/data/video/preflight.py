"""A look at clips before weeks are spent on them: every frame decoded, clips compared by four frames of each.

Copies, leaks, classes and colours are found as among pictures (:mod:`mvitv2.data.preflight`); what is added are
damage anywhere in a clip, and clips that are shorter than what a model is given.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mvitv2.data.findings import KEPT, WARNING, Finding, Limits, Report, plural
from mvitv2.data.forms import FolderForm, ListForm, ShardForm
from mvitv2.data.images import ImageSource, Traits
from mvitv2.data.labelled import DataError, Labelled, LabelledImages, file_stamp
from mvitv2.data.looks import Looks, looks
from mvitv2.data.open import Spec
from mvitv2.data.preflight import ALONE, Examined, Told, report_on
from mvitv2.data.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, walk
from mvitv2.data.tar import tar_index
from mvitv2.data.video.clips import LabelledClips
from mvitv2.data.video.info import ClipInfo
from mvitv2.data.video.open import SomethingForm, clip_forms, open_clip_files, open_clips
from mvitv2.data.video.reader import ClipSource, open_clip
from mvitv2.data.video.sampling import Sampling

_SNIFFED = 64
"""Files whose names tell what data are."""


class SeenClips(LabelledImages):
    """Clips as the pictures of four of their frames, for a look at them."""

    def __init__(self, files: Labelled, *, every_frame: bool = True) -> None:
        """Stand on a data set of files.

        Args:
            files: Where clips lie, and their classes.
            every_frame: Decode all of a clip, not four frames alone.
        """
        super().__init__(on_error="skip")
        self.files, self.every_frame = files, every_frame
        self.labels = files.labels
        self.name_classes(files.classes, files.class_names)
        self.notes = files.notes

    def __str__(self) -> str:
        return str(self.files)

    def path(self, index: int) -> Path:
        """The file of a clip."""
        return self.files.path(index)

    def source(self, index: int) -> ImageSource:
        """The file of a clip, or the bytes of it."""
        return self.files.source(index)

    def stamp(self, index: int) -> str:
        """Changes when the file of a clip does, or one in its folder; another one where not all frames are decoded."""
        path = self.path(index)
        inside = sorted(path.iterdir()) if path.is_dir() else []
        return "\n".join([f"every frame: {self.every_frame}", self.files.stamp(index), *map(file_stamp, inside)])

    def read(self, index: int) -> Image.Image:
        """Four frames of a clip as one picture of its size."""
        return self._seen(self.source(index), index, every_frame=False)[0]

    def look(self, source: ImageSource, index: int) -> tuple[Image.Image, Traits]:
        """The same, once the whole clip is known to decode."""
        picture, info = self._seen(source, index, every_frame=self.every_frame)
        return picture, Traits(info.codec, "RGB", info.frames, info.fps)

    def _seen(self, source: ClipSource, index: int, *, every_frame: bool) -> tuple[Image.Image, ClipInfo]:
        """Four frames as one picture, and what is known of the clip."""
        with open_clip(source, name=str(self.path(index))) as clip:
            info = clip.info
            if every_frame:
                clip.verify()
            last = info.frames - 1
            frames = clip.frames([last * part // 3 for part in range(4)]).permute(0, 2, 3, 1).numpy()
        return mosaic([Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]), info


def mosaic(frames: Sequence[Image.Image]) -> Image.Image:
    """Four frames in two rows, each at half its size."""
    width, height = (max(1, side // 2) for side in frames[0].size)
    page = Image.new("RGB", (2 * width, 2 * height))
    for place, frame in enumerate(frames):
        page.paste(frame.resize((width, height), Image.Resampling.BOX), (place % 2 * width, place // 2 * height))
    return page


def holds_clips(spec: Spec) -> bool:
    """Whether data are clips, told by the names of its first files.

    Raises:
        DataError: There is no such data.
    """
    form = next(iter(clip_forms(spec).values()))
    if isinstance(form, SomethingForm):
        return True
    if isinstance(form, ListForm):
        with form.path.open(encoding="utf-8-sig", errors="replace") as file:
            start = [line.lower() for line in islice(file, _SNIFFED)]
        if start and ("original_vido_id" in start[0] or "youtube_id" in start[0]):
            return True
        return any(re.search(rf"{re.escape(suffix)}\b", line) for line in start for suffix in VIDEO_SUFFIXES)
    if isinstance(form, ShardForm):
        first = Path(form.shards[0])
        names = tar_index(first).names[:1] if first.is_file() else []
        return any(Path(name).suffix.lower() in VIDEO_SUFFIXES for name in names)
    if isinstance(form, FolderForm):
        found = islice(walk(form.folder, suffixes=IMAGE_SUFFIXES | VIDEO_SUFFIXES), _SNIFFED)
        return any(isinstance(item, Path) and item.suffix.lower() in VIDEO_SUFFIXES for item in found)
    return False


def examine_clips(
    spec: Spec,
    *,
    need: Sequence[str] = ("train", "val"),
    threads: int | None = None,
    cached: bool = True,
    every_frame: bool = True,
    on_progress: Told | None = None,
    **options: Any,
) -> Examined:
    """Open the clips as training does, or else as much of them as can be opened, and look at all.

    Args:
        spec: In any form of :mod:`mvitv2.data.video.open`.
        need: Splits without which training cannot start.
        threads: That decode at a time; ``None``: one per core.
        cached: Use what was seen before of files that have not changed since.
        every_frame: Decode all of a clip, not four frames alone.
        on_progress: Told what is being done.
        **options: Fields of :class:`mvitv2.data.forms.Reading`.

    Raises:
        DataError: Not one split can be opened.
    """
    found, refused = _opened(spec, need, options)
    datasets = {split: SeenClips(files, every_frame=every_frame) for split, files in found.items()}
    seen = {}
    for split, dataset in datasets.items():

        def told(done: int, total: int, split: str = split) -> None:
            if on_progress is not None:
                on_progress(split, done, total)

        seen[split] = looks(dataset, threads=threads, cached=cached, on_progress=told)
    data = os.fspath(spec) if isinstance(spec, str | os.PathLike) else str(spec)
    return Examined(str(data), datasets, seen, refused, "clips")


def _opened(spec: Spec, need: Sequence[str], options: dict[str, Any]) -> tuple[Mapping[str, Labelled], str]:
    """Where the clips of each split lie, and why training would not open them.

    Raises:
        DataError: There are none.
    """
    forms = clip_forms(spec)
    try:
        opened = open_clips(spec, dict.fromkeys(forms, _alone), need=need, **options)
        return {split or ALONE: clips.index for split, clips in opened.items()}, ""
    except DataError as error:
        refused = error
    found: dict[str, Labelled] = {}
    for split in forms:
        try:
            found[split or ALONE] = open_clip_files(spec, split=split, **options)
        except DataError:  # the first reason is kept; what can be opened is looked at
            continue
    if not found:
        raise refused
    return found, str(refused)


def _alone(files: Labelled) -> LabelledClips:
    """Clips that nothing is sampled from."""
    return LabelledClips(files, Sampling())


def report_on_clips(examined: Examined, limits: Limits, sampling: Sampling) -> Report:
    """What a look at some clips tells, with those that are shorter than a model's clips."""
    report = report_on(examined, limits)
    short = [
        finding
        for split, data in examined.datasets.items()
        for finding in found_short(split, data, examined.looks[split], sampling)
    ]
    findings = tuple(replace(finding, text=_worded(finding.text)) for finding in report.findings)
    return replace(report, findings=(*findings, *short))


def found_short(split: str, dataset: LabelledImages, seen: Looks, sampling: Sampling) -> list[Finding]:
    """The clips of one split whose last frame would be repeated."""
    places = np.flatnonzero(seen.readable).tolist()
    short = [place for place in places if seen.frames[place] < needed(sampling, float(seen.fps[place]))]
    if not short:
        return []
    names = [f"{dataset.path(place)}: {seen.frames[place]} frames" for place in short[:KEPT]]
    rate = "" if sampling.rate is None else f" {sampling.rate} apart"
    text = (
        f"{plural(len(short), 'clip')} of {split} shorter than {sampling.num_frames} frames{rate}; frames are repeated"
    )
    return [Finding(WARNING, "short", text, split, len(short), tuple(names))]


def needed(sampling: Sampling, fps: float) -> float:
    """Frames a file must have for all frames of one clip to differ as asked."""
    return sampling.num_frames if sampling.rate is None else sampling.span(fps)


def _worded(text: str) -> str:
    """A sentence on pictures as one on clips."""
    return text.replace("picture", "clip")
