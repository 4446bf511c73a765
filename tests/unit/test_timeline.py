"""Windows over clips of any length, and the seconds that follow from them."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="clips are read by PyAV: the extra video")

from mvitv2.core.model import MViT
from mvitv2.data.video.info import Frame
from mvitv2.data.video.reader import open_clip
from mvitv2.data.video.sampling import Sampling
from mvitv2.preprocessing import Preprocessing
from mvitv2.report.film import COLOURS, write_chart
from mvitv2.tasks.clip_features import clip_features
from mvitv2.tasks.timeline import Ranked, Seconds, Sliding, Timeline, predict_clips
from tests import films, tiny

PREPARED = Preprocessing(
    size=(16, 16), resize=16, interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3,
    num_frames=4, sampling_rate=5, fps=10.0,
)  # fmt: skip


@dataclass
class Info:
    fps: float


class Counted:
    """A film whose frames are as bright as their number."""

    def __init__(self, frames: int, fps: float, times: list[float] | None = None):
        self.count, self.info = frames, Info(fps)
        self.at = times or [number / fps for number in range(frames)]

    def stream(self, start: int = 0) -> Iterator[Frame]:
        for number in range(start, self.count):
            pixels = torch.full((3, 16, 16), number % 256, dtype=torch.uint8)
            yield Frame(number, self.at[number], pixels)


def numbers(frames: torch.Tensor) -> list[int]:
    """Frames ``(C, T, H, W)`` by how bright they are."""
    return (frames[0, :, 0, 0] * 255).round().int().tolist()


def test_windows_take_the_frames_that_the_rule_says() -> None:
    """20 frames at 10 a second in 4: from the first to the 20th, and on by a second."""
    windows = list(Sliding(PREPARED).over(Counted(60, 10.0)))  # type: ignore[arg-type]
    assert [numbers(frames) for _, _, frames in windows][:3] == [[0, 6, 12, 19], [10, 16, 22, 29], [20, 26, 32, 39]]
    assert [(start, round(end, 6)) for start, end, _ in windows] == [(s, s + 2.0) for s in range(5)]


def test_the_first_window_is_that_of_the_evaluation() -> None:
    (one,) = Sampling.of(PREPARED).views(20, 10.0)
    _, _, frames = next(iter(Sliding(PREPARED).over(Counted(20, 10.0))))  # type: ignore[arg-type]
    assert numbers(frames) == one


@pytest.mark.parametrize("fps", [5.0, 24.0, 29.97, 60.0, 240.0])
def test_windows_are_as_long_at_any_rate(fps: float) -> None:
    windows = list(Sliding(PREPARED).over(Counted(int(fps * 6), fps)))  # type: ignore[arg-type]
    for start, _, frames in windows[:-1]:
        seconds = np.array([number / fps for number in numbers(frames)]) - start
        # the frame on screen began at most a frame's time before
        assert (np.array([0, 1.9 / 3, 3.8 / 3, 1.9]) - seconds).min() > -1e-6 or fps > 42  # brightness wraps at 256
        assert len(seconds) == 4


def test_a_clip_that_is_too_short_repeats_its_last_frame() -> None:
    ((start, end, frames),) = Sliding(PREPARED).over(Counted(7, 10.0))  # type: ignore[arg-type]
    assert (start, end, numbers(frames)) == (0.0, pytest.approx(0.7), [0, 6, 6, 6])
    ((_, _, one),) = Sliding(PREPARED).over(Counted(1, 10.0))  # type: ignore[arg-type]
    assert numbers(one) == [0, 0, 0, 0]


def test_the_end_is_seen() -> None:
    windows = list(Sliding(PREPARED).over(Counted(27, 10.0)))  # type: ignore[arg-type]
    assert [numbers(frames) for _, _, frames in windows] == [[0, 6, 12, 19], [10, 16, 22, 26]]
    assert windows[-1][1] == pytest.approx(2.7)


def test_memory_does_not_grow_with_the_length() -> None:
    """Windows of 10,000 frames hold no more objects at a time than those of 1,000."""
    most = []
    for frames in (1_000, 10_000):
        tracemalloc.start()
        for _ in Sliding(PREPARED).over(Counted(frames, 10.0, list(map((0.1).__mul__, range(frames))))):  # type: ignore[arg-type]
            pass
        most.append(tracemalloc.get_traced_memory()[1] - 8 * 6 * frames)  # the times themselves
        tracemalloc.stop()
    assert most[1] < 2 * most[0] + 100_000


def test_frames_that_last_unequally_long() -> None:
    times = [0.0, 0.1, 1.5, 1.6, 3.0]
    ((_, _, first), *_) = Sliding(PREPARED).over(Counted(5, 2.0, times))  # type: ignore[arg-type]
    assert numbers(first) == [0, 1, 1, 3]  # on screen at 0, 0.63, 1.27 and 1.9 seconds


def test_equal_parts_of_a_window_of_any_length() -> None:
    parts = Preprocessing.from_dict({**PREPARED.to_dict(), "sampling_rate": None, "fps": None})
    _, _, frames = next(iter(Sliding(parts, step=2.0, length=4.0).over(Counted(80, 10.0))))  # type: ignore[arg-type]
    assert numbers(frames) == [5, 15, 25, 35]
    with pytest.raises(ValueError, match="windows have the length of its frames"):
        Sliding(PREPARED, length=4.0)
    with pytest.raises(ValueError, match="step=0 and length=None must be seconds above 0"):
        Sliding(PREPARED, step=0)


def test_seconds_are_means_of_the_windows_that_overlap_them() -> None:
    sums, done = Seconds(), []
    for start, value in enumerate((1.0, 2.0, 6.0)):
        done += [(second, float(mean)) for second, mean in sums.add(start, start + 2.0, torch.tensor(value))]
    assert done == [(0, 1.0), (1, 1.5)]
    assert [(second, float(mean)) for second, mean in sums.rest()] == [(2, 4.0), (3, 6.0)]


@pytest.fixture(scope="module")
def model() -> MViT:
    torch.manual_seed(0)
    made = tiny.model(tiny.clip(num_classes=3))
    made.card = {"preprocessing": PREPARED.to_dict(), "classes": ["a", "b", "c"]}
    return made


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return films.write_film(tmp_path_factory.mktemp("films") / "long.mp4", films.moving_square(True, frames=45))


def test_a_timeline(model: MViT, film: Path) -> None:
    (found,) = predict_clips(model, film, top=2)
    assert (found.error, found.windows) == (None, 4)
    assert [(s.start, round(s.end, 3)) for s in found.seconds] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 4.5)]
    assert found.whole is not None
    assert len(found.whole.classes) == 2
    assert found.whole.scores[0] >= found.whole.scores[1]
    again = next(iter(predict_clips(model, [str(film)], top=2, batch_size=1)))
    assert [s.classes for s in again.seconds] == [s.classes for s in found.seconds]


def test_a_timeline_keeps_the_scores_of_all_classes(model: MViT, film: Path) -> None:
    (found,) = predict_clips(model, film, top=1)
    assert found.scores.shape == (5, 3)
    torch.testing.assert_close(found.scores.sum(dim=1), torch.ones(5))
    for second, row in zip(found.seconds, found.scores, strict=True):
        assert second.indices == (int(row.argmax()),)
        assert second.scores == (float(row.max()),)
    assert "scores" not in found.to_dict()


def drawn_lines(timeline: Timeline, target: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> dict[str, list[float]]:
    """What a chart draws, by name of class."""
    figure = pytest.importorskip("matplotlib.figure", reason="charts are drawn by matplotlib: the extra train")
    drawn: list[Any] = []
    saved = figure.Figure.savefig
    monkeypatch.setattr(figure.Figure, "savefig", lambda made, where: (drawn.append(made), saved(made, where)))
    write_chart(timeline, target, most)
    assert target.stat().st_size > 1000
    lines = drawn[0].axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines)
    return {line.get_label(): line.get_ydata().tolist() for line in lines}


def test_a_chart_draws_every_class_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More classes than colours, each the likeliest of its second, and truly in the others too."""
    count = len(COLOURS) + 3
    scores = torch.full((count, count), 0.05) + torch.diag(torch.linspace(0.3, 0.5, count))
    tops = [Ranked(i, i + 1, (f"class {i}",), (float(scores[i, i]),), (i,)) for i in range(count)]
    timeline = Timeline("long.mp4", tops[0], tops, scores, count)
    drawn = drawn_lines(timeline, tmp_path / "all.png", monkeypatch, count)
    assert set(drawn) == {f"class {i}" for i in range(count)}
    for index in range(count):
        assert drawn[f"class {index}"] == pytest.approx([*scores[:, index].tolist(), float(scores[-1, index])])
    few = drawn_lines(timeline, tmp_path / "few.png", monkeypatch, 2)
    assert list(few) == [f"class {count - 1}", f"class {count - 2}"]


def test_what_cannot_be_read_is_told_and_the_rest_goes_on(model: MViT, film: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    first, second = predict_clips(model, [tmp_path / "bad.mp4", film])
    assert first.whole is None
    assert first.error is not None
    assert second.error is None


def test_vectors_of_clips_and_of_seconds(model: MViT, film: Path) -> None:
    (whole,) = clip_features(model, film)
    seconds = list(clip_features(model, film, seconds=True))
    assert [one.file for one in seconds] == [f"{film}#t={second}" for second in range(5)]
    assert whole.values is not None
    assert whole.values.shape == (model.num_features,)
    with torch.no_grad():
        with open_clip(film) as clip:
            windows = [frames for _, _, frames in Sliding(PREPARED).over(clip)]
        features = model.forward_head(model.forward_features(torch.stack(windows)), pre_logits=True)
    np.testing.assert_allclose(whole.values, features.mean(dim=0).numpy(), rtol=0, atol=1e-5)
    (unit,) = clip_features(model, film, normalise=True)
    assert unit.values is not None
    assert np.linalg.norm(unit.values) == pytest.approx(1.0, abs=1e-6)
    assert list(clip_features(model, film, skip=lambda name: True)) == []
