"""A video with answers drawn on it, frame by frame in bounded memory, and the answers of a timeline as a chart."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mvitv2.data.video.reader import ClipSource, open_clip
from mvitv2.extras import required
from mvitv2.tasks.timeline import Timeline

CLOCK = 60_000
"""Ticks of a second, as many as all codecs count: frames keep their times, whatever their rate."""
CODECS = ("libx264", "libopenh264", "mpeg4")
"""The first that PyAV has here."""
LONGEST = 1280
"""Side that frames are shrunk to, in pixels."""
COLOURS = ("#4c9be8", "#f2a341", "#5fc27e", "#e0637c", "#a483e3", "#c9b458", "#4fc3c7", "#d98bc0")
STROKES = ("-", "--", ":", "-.")
"""Of lines in a chart, where colours come again."""
SHOWN = 3


@dataclass(frozen=True)
class Overlay:
    """What is drawn on a frame."""

    lines: Sequence[tuple[str, float]] = ()
    """Names and scores, likeliest first; along the lower edge, each with a bar."""
    boxes: Sequence[tuple[tuple[float, float, float, float], str]] = field(default_factory=tuple)
    """Left, top, right, bottom in parts of the frame, and what is said of it."""


def write_film(source: ClipSource, target: Path, overlay: Callable[[float], Overlay]) -> int:
    """Write a video with an overlay on every frame; gives the number of frames.

    Args:
        source: A clip.
        target: An .mp4 file; what is there is replaced once the new one is whole.
        overlay: Seconds after the first frame -> what is drawn.

    Raises:
        mvitv2.data.images.ImageError: The clip cannot be read; what was written up to there is removed.
        mvitv2.extras.MissingExtra: PyAV is not installed.
    """
    with open_clip(source) as clip, new_film(target, clip.info.fps) as film:  # the rate before the frames: it decodes
        for frame in clip.stream():
            picture = shrunk(Image.fromarray(frame.pixels.permute(1, 2, 0).numpy()))
            draw(picture, overlay(frame.time))
            film.add(picture, frame.time)
    return film.frames


@contextmanager
def new_film(target: Path, fps: float) -> Iterator["Film"]:
    """A video that is written frame by frame; it is there whole, or not at all.

    Args:
        target: An .mp4 file; what is there is replaced once the new one is whole and has a frame.
        fps: Frames a second, roughly: each frame has its own time. 0 where nothing is known.

    Raises:
        mvitv2.extras.MissingExtra: PyAV is not installed.
    """
    av: Any = required("av", extra="video")
    temporary = target.with_name(f".{target.name}.tmp.mp4")
    try:
        with av.open(str(temporary), "w") as file:
            film = Film(av, file, fps)
            yield film
            film.finish()
        if film.frames:
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


class Film:
    """A video that is being written.

    Args:
        av: The module PyAV.
        file: Its open container.
        fps: Frames a second, roughly.
    """

    def __init__(self, av: Any, file: Any, fps: float):
        self.av, self.file, self.fps = av, file, fps
        self.stream: Any = None
        self.frames, self.last = 0, -1

    def add(self, picture: Image.Image, seconds: float) -> None:
        """The next frame, shown from that second on; all get the size of the first."""
        picture = shrunk(picture)
        if self.stream is None:
            self.stream = _stream(self.av, self.file, picture.size, self.fps)
        if picture.size != (self.stream.width, self.stream.height):
            picture = picture.resize((self.stream.width, self.stream.height), Image.Resampling.BILINEAR)
        packet = self.av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
        self.last = max(round(seconds * CLOCK), self.last + 1)
        packet.pts, packet.time_base = self.last, Fraction(1, CLOCK)
        self.file.mux(self.stream.encode(packet))
        self.frames += 1

    def finish(self) -> None:
        """Write what the encoder has kept back."""
        if self.stream is not None:
            self.file.mux(self.stream.encode())


def _stream(av: Any, film: Any, size: tuple[int, int], fps: float) -> Any:
    """The stream of pictures of a film."""
    codec = next((name for name in CODECS if name in av.codecs_available), CODECS[-1])
    stream = film.add_stream(codec, rate=Fraction(fps or 25.0).limit_denominator(1001))
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, CLOCK)
    stream.codec_context.thread_count = 1
    if codec == "libx264":
        stream.options = {"crf": "23", "preset": "veryfast"}
    else:
        stream.bit_rate = 8 * size[0] * size[1]
    return stream


def shrunk(picture: Image.Image) -> Image.Image:
    """At most :data:`LONGEST` pixels long, and of even sides, which encoders ask for; tiny frames are enlarged."""
    scale = min(LONGEST / max(picture.size), 1.0)
    scale = max(scale, min(240 / min(picture.size), LONGEST / max(picture.size)))
    width, height = (max(round(side * scale / 2) * 2, 2) for side in picture.size)
    return picture if picture.size == (width, height) else picture.resize((width, height), Image.Resampling.BILINEAR)


def draw(picture: Image.Image, overlay: Overlay) -> None:
    """Draw on a picture."""
    pen = ImageDraw.Draw(picture, "RGBA")
    size = max(min(picture.size) // 18, 11)
    font = ImageFont.load_default(size)
    for number, (corners, words) in enumerate(overlay.boxes):
        left, top, right, bottom = (v * s for v, s in zip(corners, (*picture.size, *picture.size), strict=True))
        colour = COLOURS[number % len(COLOURS)]
        pen.rectangle((left, top, max(right, left), max(bottom, top)), outline=colour, width=max(size // 7, 2))
        _words(pen, (left, max(top - size * 1.3, 0)), words, font, colour)
    height = round(size * 1.4)
    for row, (name, score) in enumerate(reversed(overlay.lines)):
        top = picture.height - (row + 1) * height
        pen.rectangle((0, top, picture.width, top + height), fill=(0, 0, 0, 130))
        pen.rectangle((0, top, picture.width * min(max(score, 0.0), 1.0), top + height), fill=(76, 155, 232, 120))
        pen.text((size // 2, top + height // 2), f"{name}  {100 * score:.0f} %", font=font, fill="white", anchor="lm")


def _words(pen: ImageDraw.ImageDraw, place: tuple[float, float], words: str, font: Any, colour: str) -> None:
    pen.rectangle(pen.textbbox(place, words, font=font), fill=(0, 0, 0, 170))
    pen.text(place, words, font=font, fill=colour)


def film_of(timeline: Timeline, top: int = SHOWN) -> Callable[[float], Overlay]:
    """The likeliest classes of each second, to be drawn on its frames."""
    starts = [second.start for second in timeline.seconds]

    def overlay(time: float) -> Overlay:
        place = int(np.searchsorted(starts, time + 1e-9, side="right")) - 1
        if place < 0:
            return Overlay()
        second = timeline.seconds[place]
        return Overlay(list(zip(second.classes[:top], second.scores[:top], strict=True)))

    return overlay


def write_chart(timeline: Timeline, target: Path, most: int = 6) -> None:
    """The scores of the classes that are likeliest somewhere, second by second, as a picture.

    Args:
        timeline: At least a second.
        target: A file of any kind that matplotlib writes, such as .png or .svg.
        most: Classes at most.

    Raises:
        ValueError: There is not one second.
        mvitv2.extras.MissingExtra: matplotlib is not installed.
    """
    if not timeline.seconds:
        raise ValueError(f"{timeline.file}: there is not one second to draw: {timeline.error}")
    figure_module: Any = required("matplotlib.figure", extra="train")
    names = {index: name for s in timeline.seconds for index, name in zip(s.indices, s.classes, strict=True)}
    drawn = sorted(names, key=lambda index: -float(timeline.scores[:, index].max()))[:most]
    times = [second.start for second in timeline.seconds]
    figure = figure_module.Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    for number, index in enumerate(drawn):
        scores, colour = timeline.scores[:, index].tolist(), COLOURS[number % len(COLOURS)]
        look = {"label": names[index], "color": colour, "linestyle": STROKES[number // len(COLOURS) % len(STROKES)]}
        axes.step([*times, timeline.seconds[-1].end], [*scores, scores[-1]], where="post", **look)
    axes.set(xlabel="seconds", ylabel="score", ylim=(0, 1.02), xlim=(0, timeline.seconds[-1].end))
    axes.set_title(Path(timeline.file).name)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(target)
