"""Clips that are opened and closed again and again, good and bad, leave nothing behind."""

import gc
import os
from pathlib import Path

import pytest

from mvitv2.data.video.faults import ClipError
from mvitv2.data.video.reader import open_clip
from tests.clips import write_clip

pytest.importorskip("av", reason="needs PyAV, the extra video")
STATUS = Path("/proc/self/statm")


@pytest.mark.skipif(not STATUS.is_file(), reason="memory is told by /proc, which this system has not")
@pytest.mark.parametrize("decodes", [120, pytest.param(2000, marks=pytest.mark.slow)])
def test_memory_and_files_stay_flat(tmp_path, decodes):
    good = write_clip(tmp_path / "good.mp4", 24, size=(96, 160), options={"bf": "3"}, movflags="faststart")
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(good.read_bytes()[:-1500])

    def used() -> float:
        gc.collect()
        return int(STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def many(count: int) -> None:
        for number in range(count):
            try:
                with open_clip((good, bad)[number % 2]) as clip:
                    clip.frames([number % 24, 0, 23])
                    next(clip.stream(5))
            except ClipError:
                continue

    many(40)
    before, files = used(), len(list(Path("/proc/self/fd").iterdir()))
    many(decodes)
    # one leaked frame a time would be 5 MiB
    assert used() - before < 4
    assert len(list(Path("/proc/self/fd").iterdir())) == files
