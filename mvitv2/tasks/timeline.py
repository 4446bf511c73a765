"""What happens when in a clip of any length: windows that slide over it, and the likeliest classes of every second.

A clip is streamed once. Only frames that a window under way needs are kept, prepared for the model, so memory does not
grow with the length.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor

from mvitv2.core.model import MViT
from mvitv2.data.images import ImageError, source_name
from mvitv2.data.video.info import Clip, Frame
from mvitv2.data.video.reader import ClipSource, open_clip
from mvitv2.data.video.transforms import EvalClip
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.clips import clip_preprocessing_of
from mvitv2.tasks.evaluation import evaluating, placed, probabilities
from mvitv2.tasks.prediction import class_names

PART_SECONDS = 2.0
"""Length of a window for models that take one frame from each of equal parts, where nothing else is asked for."""


@dataclass(frozen=True)
class Ranked:
    """The likeliest classes of a stretch of a clip."""

    start: float
    """Seconds after the first frame."""
    end: float
    classes: tuple[str, ...]
    """Names, likeliest first."""
    scores: tuple[float, ...]
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Timeline:
    """What a model says about one clip, or why it says nothing."""

    file: str
    whole: Ranked | None = None
    """Of the mean over all windows."""
    seconds: list[Ranked] = field(default_factory=list)
    """Of the mean over the windows that overlap each second."""
    scores: Tensor = field(default_factory=lambda: torch.empty(0, 0), compare=False, repr=False)
    """``(seconds, classes)`` float32: of every class, where ``seconds`` has the likeliest; 10 MB an hour of 700."""
    windows: int = 0
    error: str | None = None
    """One line, where the clip could not be read to its end; what came before stands."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without ``scores``."""
        return {
            "file": self.file,
            "error": self.error,
            "windows": self.windows,
            "whole": None if self.whole is None else vars(self.whole),
            "seconds": [vars(second) for second in self.seconds],
        }


@dataclass(frozen=True)
class Sliding:
    """Windows over a clip.

    Args:
        preprocessing: How frames become numbers, and how far apart those of a window are.
        step: Seconds from one window to the next.
        length: Seconds of a window, for models that take equal parts; ``None``: :data:`PART_SECONDS`. Others have it
            from their rate.

    Raises:
        ValueError: ``step`` or ``length`` cannot be.
    """

    preprocessing: Preprocessing
    step: float = 1.0
    length: float | None = None

    def __post_init__(self) -> None:
        """Refuse what gives no windows."""
        given = self.length
        if not (math.isfinite(self.step) and self.step > 0) or (given is not None and not given > 0):
            raise ValueError(f"step={self.step} and length={given} must be seconds above 0")
        if given is not None and self.preprocessing.sampling_rate is not None:
            raise ValueError(f"length={given}: this model's windows have the length of its frames, its sampling_rate")

    def offsets(self, fps: float) -> list[float]:
        """Seconds from the start of a window to each of its frames, for a file of ``fps`` frames a second.

        As :class:`mvitv2.data.video.sampling.Sampling` spreads them: from the first to the last of ``rate * T`` frames.
        """
        record = self.preprocessing
        count = record.num_frames or 1
        if record.sampling_rate is None:
            part = (PART_SECONDS if self.length is None else self.length) / count
            return [(place + 0.5) * part for place in range(count)]
        frames_a_second = record.fps or fps or 1.0
        span = (record.sampling_rate * count - 1) / frames_a_second
        return [span * place / max(count - 1, 1) for place in range(count)]

    def over(self, clip: Clip) -> Iterator[tuple[float, float, Tensor]]:
        """Start and end of every window in seconds, and its frames ``(C, T, H, W)``.

        The first window is there in any case, its last frame repeated where the clip is too short; others as long as
        the clip fills them, and one more where its end would be seen by none.
        """
        fps = clip.info.fps
        offsets, prepare = self.offsets(fps), EvalClip(self.preprocessing)
        frame_time = 1 / fps if fps > 0 else offsets[-1] / max(len(offsets) - 1, 1) or 1.0
        open_windows: deque[_Window] = deque()
        opened, seen, end, last = 0, 0.0, 0.0, None
        for frame, until in _with_ends(clip.stream(), frame_time):
            end, last = until, frame
            prepared: Tensor | None = None
            while opened * self.step + offsets[0] < until:
                open_windows.append(_Window(opened * self.step, offsets))
                opened += 1
            for window in open_windows:
                while window.wants(until):
                    prepared = prepare(frame.pixels[None])[0] if prepared is None else prepared
                    window.frames.append(prepared)
            while open_windows and open_windows[0].full:
                done = open_windows.popleft()
                seen = done.end
                yield done.start, done.end + frame_time, torch.cat(done.frames, dim=1)
        rest = next((window for window in open_windows if window.frames), None)
        if rest is not None and last is not None and (rest.start == 0 or end - seen > frame_time * 1.5):
            yield rest.start, end, rest.clip(prepare(last.pixels[None])[0])


class _Window:
    """A window under way."""

    def __init__(self, start: float, offsets: Sequence[float]):
        self.start, self.times = start, [start + offset for offset in offsets]
        self.end = self.times[-1]
        self.frames: list[Tensor] = []

    @property
    def full(self) -> bool:
        """Whether it has all its frames."""
        return len(self.frames) == len(self.times)

    def wants(self, until: float) -> bool:
        """Whether its next frame is on screen before ``until``."""
        return not self.full and self.times[len(self.frames)] < until - 1e-9

    def clip(self, last: Tensor) -> Tensor:
        """``(C, T, H, W)``; the last frame of the file stands for those that it does not have."""
        return torch.cat([*self.frames, *[last] * (len(self.times) - len(self.frames))], dim=1)


def _with_ends(frames: Iterator[Frame], frame_time: float) -> Iterator[tuple[Frame, float]]:
    """Every frame, and when the next one takes its place."""
    before: Frame | None = None
    for frame in frames:
        if before is not None:
            yield before, frame.time
        before = frame
    if before is not None:
        yield before, before.time + frame_time


class Seconds:
    """Means over windows as means over the windows that overlap each second, which is done when no later one can."""

    def __init__(self) -> None:
        self.sums: dict[int, Tensor] = {}
        self.counts: dict[int, int] = {}
        self.total, self.windows, self.end = torch.zeros(()), 0, 0.0

    def add(self, start: float, end: float, scores: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Count a window ``(classes,)``; gives the seconds that are done."""
        self.total, self.windows, self.end = self.total + scores, self.windows + 1, max(self.end, end)
        yield from self._before(math.floor(start))
        for second in range(math.floor(start), max(math.ceil(end - 1e-6), math.floor(start) + 1)):
            self.sums[second] = self.sums.get(second, 0) + scores
            self.counts[second] = self.counts.get(second, 0) + 1

    def rest(self) -> Iterator[tuple[int, Tensor]]:
        """The seconds that are left."""
        yield from self._before(None)

    def _before(self, second: int | None) -> Iterator[tuple[int, Tensor]]:
        for place in sorted(s for s in self.sums if second is None or s < second):
            yield place, self.sums.pop(place) / self.counts.pop(place)


def predict_clips(
    model: MViT,
    sources: ClipSource | Iterable[ClipSource],
    *,
    top: int = 5,
    step: float = 1.0,
    length: float | None = None,
    batch_size: int = 4,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    preprocessing: Preprocessing | None = None,
) -> Iterator[Timeline]:
    """What a model says about clips, one after another, each streamed once.

    Args:
        model: A classifier of clips; its ``card`` tells classes and preprocessing.
        sources: Files, folders of frames, bytes; one or many.
        top: Classes per answer, likeliest first.
        step: Seconds from one window to the next.
        length: Seconds of a window, for models that take equal parts.
        batch_size: Windows in one forward pass.
        device: Where to compute; ``None``: where the model is.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (autocast).
        preprocessing: How clips become numbers, other frames or sizes as well; ``None``: as the card says.

    Raises:
        ValueError: The model is no classifier of clips, or a number is out of range.
    """
    if top < 1 or batch_size < 1:
        raise ValueError(f"top={top} and batch_size={batch_size} must be at least 1")
    record = clip_preprocessing_of(model) if preprocessing is None else preprocessing
    sliding, names, place = Sliding(record, step, length), class_names(model), placed(model, device)
    options = (top, batch_size, precision)
    return (_timeline(model, source, sliding, names, place, options) for source in many(sources))


def many(sources: ClipSource | Iterable[ClipSource]) -> Iterable[ClipSource]:
    """One source or several, as several. A list is several; a folder or a list inside it is one clip of pictures."""
    single = isinstance(sources, str | bytes | bytearray | memoryview) or not isinstance(sources, Iterable)
    return cast("Iterable[ClipSource]", [sources] if single or hasattr(sources, "read") else sources)


def clip_name(source: ClipSource) -> str:
    """What a clip is called; one of pictures by the first of them."""
    if isinstance(source, list | tuple):
        return str(source[0]) if source else "<no frames>"
    return source_name(cast("Any", source))


def scored_windows(
    stream: Iterator[tuple[float, float, Tensor]], compute: Callable[[Tensor], Tensor], batch_size: int
) -> Iterator[tuple[float, float, Tensor]]:
    """Start and end of every window, and what ``compute`` makes of it: ``(B, C, T, H, W) -> (B, ...)``, in batches."""
    while chunk := list(islice(stream, batch_size)):
        rows = compute(torch.stack([frames for _, _, frames in chunk]))
        yield from ((start, end, row) for (start, end, _), row in zip(chunk, rows, strict=True))


def _timeline(
    model: MViT,
    source: ClipSource,
    sliding: Sliding,
    names: Sequence[str],
    device: torch.device,
    options: tuple[int, int, str],
) -> Timeline:
    """One clip."""
    top, batch_size, precision = options
    sums, error = Seconds(), None
    means: list[tuple[int, Tensor]] = []

    def ranked(start: float, end: float, scores: Tensor) -> Ranked:
        values, numbers = scores.topk(min(top, len(names)))
        found: tuple[int, ...] = tuple(numbers.tolist())
        return Ranked(start, end, tuple(names[i] for i in found), tuple(values.tolist()), found)

    def compute(clips: Tensor) -> Tensor:
        return probabilities(model, clips.to(device), precision).cpu()

    try:
        with open_clip(source) as clip, evaluating(model):
            for start, end, scores in scored_windows(sliding.over(clip), compute, batch_size):
                means += sums.add(start, end, scores)
    except ImageError as problem:
        error = problem.reason
    means += sums.rest()
    if not means:
        return Timeline(clip_name(source), error=error)
    rows = [ranked(second, min(second + 1, sums.end), mean) for second, mean in means]
    whole = ranked(0.0, sums.end, sums.total / sums.windows)
    every = torch.stack([mean for _, mean in means])
    return Timeline(clip_name(source), whole, rows, every, sums.windows, error)
