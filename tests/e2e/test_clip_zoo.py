"""Every odd and broken clip that is at hand: the frames that a plain decoder finds, or one line that says why not."""

import csv
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from mvitv2.data.video.faults import ClipError
from mvitv2.data.video.reader import open_clip
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.timeline import predict_clips
from tests import tiny

av = pytest.importorskip("av", reason="needs PyAV, the extra video")

DATA = Path(__file__).parents[3] / "shared" / "data"
ZOO, REAL = DATA / "zoo", DATA / "clips" / "real"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ZOO / "manifest.csv").is_file(), reason=f"{ZOO} is not here: odd and broken clips"),
]
REFUSED = {"video_gen/jpg_named.mp4"}
"""What FFmpeg decodes and is no clip all the same."""


def rows(manifest: Path) -> list[dict[str, str]]:
    """The rows of a manifest; none where it is missing, so that the tests are skipped rather than red."""
    if not manifest.is_file():
        return []
    with manifest.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def videos() -> Iterator[tuple[str, str, dict[str, object]]]:
    """Path, what plain PyAV did with it, and what it found."""
    for row in rows(ZOO / "manifest.csv"):
        if row["path"].startswith("video"):
            name = next(key for key in row if key.startswith("result"))
            yield row["path"], row[name], json.loads(row["details"] or "{}")


def plainly(path: Path, wanted: set[int]) -> tuple[int, dict[int, np.ndarray]]:
    """How many frames there are, and some of them, decoded from the start with nothing of ours."""
    found: dict[int, np.ndarray] = {}
    count = 0
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            count += 1
            if index in wanted:
                found[index] = frame.to_ndarray(format="rgb24")
    return count, found


@pytest.mark.parametrize(
    ("name", "result", "details"), list(videos()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_frames_of_a_plain_decoder_or_one_line(name, result, details):
    path = ZOO / name
    if result != "ok" or name in REFUSED:
        with pytest.raises(ClipError) as caught, open_clip(path) as clip:
            frames = clip.info.frames
            clip.frames(range(frames))
        assert "\n" not in str(caught.value) and path.name in str(caught.value)
        return
    with open_clip(path) as clip:
        info = clip.info
        assert info.frames == details["decoded"]
        chosen = np.random.default_rng(0).integers(0, info.frames, 5).tolist()
        frames = clip.frames(chosen)
        half = list(islice(clip.stream(info.frames // 2), 5))
    number, expected = plainly(path, {*chosen, *(frame.index for frame in half)})
    assert number == info.frames
    for index, pixels in [*zip(chosen, frames, strict=True), *((frame.index, frame.pixels) for frame in half)]:
        upright = np.rot90(expected[index], info.rotation // 90)
        np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), upright)
    assert [frame.index for frame in half] == list(range(info.frames // 2, info.frames))[:5]


def test_real_clips_have_the_frames_and_the_rate_they_are_listed_with():
    for row in rows(REAL / "manifest.csv"):
        with open_clip(REAL / row["path"]) as clip:
            info = clip.info
            assert (info.frames, info.codec) == (int(row["frames"]), row["codec"]), row["path"]
            assert info.size == (int(row["height"]), int(row["width"])), row["path"]
            assert info.fps == pytest.approx(float(row["fps"]), rel=0.01), row["path"]
            assert clip.frames([info.frames - 1, 0]).shape == (2, 3, *info.size)


@pytest.mark.skipif(not (REAL / "manifest.csv").is_file(), reason=f"{REAL} is not here: clips as they were filmed")
def test_every_real_clip_has_an_answer_for_each_of_its_seconds():
    torch.manual_seed(0)
    model, listed = tiny.model(tiny.clip(num_classes=3)), rows(REAL / "manifest.csv")
    how = {"size": (16, 16), "resize": 16, "num_frames": 4, "sampling_rate": 5, "fps": 10.0}
    model.card = {"preprocessing": Preprocessing(**how).to_dict(), "classes": ["a", "b", "c"]}
    answers = predict_clips(model, [REAL / row["path"] for row in listed], batch_size=8)
    for row, found in zip(listed, answers, strict=True):
        assert found.error is None, row["path"]
        length = int(row["frames"]) / float(row["fps"])
        assert found.seconds[-1].end == pytest.approx(length, abs=0.3), row["path"]
        assert [second.start for second in found.seconds] == list(range(len(found.seconds))), row["path"]
        torch.testing.assert_close(found.scores.sum(dim=1), torch.ones(len(found.seconds)))
