"""Windows slide over a clip of any length, each frame decoded once."""

import pytest

from mvitv2.data.video.reader import open_clip
from mvitv2.data.video.sampling import Sampling
from mvitv2.data.video.windows import window_starts, windows
from tests.clips import numbers, write_clip

pytest.importorskip("av", reason="needs PyAV, the extra video")


@pytest.mark.parametrize(
    ("frames", "size", "step", "expected"),
    [
        (20, 8.0, 8.0, [0, 8, 12]),
        (24, 8.0, 8.0, [0, 8, 16]),
        (20, 8.0, 4.0, [0, 4, 8, 12]),
        (5, 8.0, 8.0, [0]),
        (8, 8.0, 1.0, [0]),
    ],
)
def test_windows_cover_a_clip_to_its_end(frames, size, step, expected):
    assert window_starts(frames, size, step) == expected


def test_windows_of_a_clip(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 20, fps=10)
    with open_clip(path) as clip:
        found = list(windows(clip, Sampling(4, 2, None)))
        assert [window.indices for window in found] == [(0, 2, 4, 7), (8, 10, 12, 15), (12, 14, 16, 19)]
        assert [numbers(window.frames) for window in found] == [list(window.indices) for window in found]
        assert [(round(w.start, 3), round(w.stop, 3)) for w in found] == [(0.0, 0.8), (0.8, 1.6), (1.2, 2.0)]
        close = list(windows(clip, Sampling(4, 2, None), every=0.3))
        assert [window.indices[0] for window in close] == [0, 3, 6, 9, 12]
        with pytest.raises(ValueError, match="rate=None"):
            next(windows(clip, Sampling(4, None, None)))


def test_a_clip_shorter_than_a_window_repeats_its_last_frame(tmp_path):
    with open_clip(write_clip(tmp_path / "short.mp4", 3)) as clip:
        (only,) = windows(clip, Sampling(4, 4, None))
    assert only.indices == (0, 2, 2, 2)


def test_memory_holds_one_window(tmp_path):
    alive: list[int] = []
    with open_clip(write_clip(tmp_path / "long.mp4", 200)) as clip:
        stream = clip.stream

        def counted(start=0):
            for frame in stream(start):
                alive.append(frame.index)
                yield frame

        clip.stream = counted  # type: ignore[method-assign]
        found = list(windows(clip, Sampling(4, 2, None)))
    assert alive == list(range(200)) and len(found) == 25  # every frame once, in order
