"""torchcodec, the second reader, gives the frames that PyAV gives, and is named where it reads."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mvitv2.data.video.codec import loaded
from mvitv2.data.video.faults import ClipError
from mvitv2.data.video.reader import open_clip
from mvitv2.extras import MissingExtra
from tests.clips import numbers, write_clip

av = pytest.importorskip("av", reason="needs PyAV, the extra video")
try:
    loaded()
    MISSING = ""
except MissingExtra as error:
    MISSING = str(error)
reads = pytest.mark.skipif(bool(MISSING), reason=f"needs torchcodec and an FFmpeg: {MISSING}")
AGAIN = "MVITV2_TESTS_WITH_PYAVS_FFMPEG"


@pytest.mark.skipif("finds no FFmpeg" not in MISSING or AGAIN in os.environ, reason="torchcodec works, or is not there")
def test_the_tests_below_pass_with_the_ffmpeg_that_pyav_brings(tmp_path):
    libraries = Path(av.__file__).parents[1] / "av.libs"
    for file in libraries.glob("lib*.so.*") if libraries.is_dir() else ():
        stem, _, version = file.name.partition(".so.")
        (tmp_path / f"{stem.rsplit('-', 1)[0]}.so.{version.split('.')[0]}").symlink_to(file)
    if not list(tmp_path.iterdir()):
        pytest.skip(f"{libraries} is not here: this PyAV was built with the FFmpeg of the system")
    environment = {**os.environ, "LD_LIBRARY_PATH": f"{tmp_path}:{libraries}", AGAIN: "1"}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if "finds no FFmpeg" in done.stdout:
        pytest.skip("the FFmpeg that PyAV brings is not one that torchcodec knows")
    assert done.returncode == 0 and "5 passed" in done.stdout, done.stdout + done.stderr


@reads
@pytest.mark.parametrize("rotation", [0, 90, 180])
def test_both_readers_give_the_same_frames(tmp_path, rotation):
    path = write_clip(tmp_path / "clip.mp4", 20, rotation=rotation, options={"bf": "3"})
    with open_clip(path) as ours, open_clip(path, reader="torchcodec") as theirs:
        assert theirs.info.reader.startswith("torchcodec") and ours.info.reader.startswith("pyav")
        for field in ("frames", "fps", "size", "rotation", "codec"):
            assert getattr(ours.info, field) == getattr(theirs.info, field), field
        asked = [19, 3, 3, 11]
        torch.testing.assert_close(ours.frames(asked), theirs.frames(asked), rtol=0, atol=0)
        np.testing.assert_allclose(theirs.times, ours.times, atol=1e-6)
        rest = torch.stack([frame.pixels for frame in theirs.stream(15)])
        torch.testing.assert_close(rest, ours.frames(range(15, 20)), rtol=0, atol=0)


@reads
def test_it_takes_the_place_of_a_missing_pyav(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.mp4", 8)
    monkeypatch.setitem(sys.modules, "av", None)
    with open_clip(path) as clip:
        assert clip.info.reader.startswith("torchcodec")
        assert numbers(clip.frames([7, 0])) == [7, 0]


@reads
def test_what_is_no_video_is_refused_in_one_line(tmp_path):
    good = write_clip(tmp_path / "clip.mp4", 8).read_bytes()
    for source, message in (
        (b"", "is empty"),
        (good[:700], "cannot be read as a video"),
        (os.urandom(99), "as a video"),
    ):
        with pytest.raises(ClipError, match=message) as caught:
            open_clip(source, reader="torchcodec")
        assert "\n" not in str(caught.value)
