"""A training folder with every broken picture of the zoo in it: the run finishes, the report names what was lost."""

from pathlib import Path

import pytest
from PIL import Image

from mvitv2.cli.__main__ import main
from mvitv2.data.images import ImageError, read_image
from mvitv2.data.sources import IMAGE_SUFFIXES

ZOO = Path(__file__).parents[2].parent / "shared" / "data" / "zoo"
FILES = sorted(path for folder in ("image_gen", "image_pillow") for path in (ZOO / folder).glob("*"))
SMALL = ["--recipe", "digits", "imgsz=32", "--set", "stages.depths=1,1", "--set", "stages.embed_dim=8"]

pytestmark = [
    pytest.mark.skipif(not FILES, reason=f"the zoo of broken files is not at {ZOO}"),
    pytest.mark.slow,
]


def unreadable(files: list[Path]) -> list[Path]:
    lost = []
    for path in files:
        try:
            read_image(path)
        except ImageError:
            lost.append(path)
    return lost


def test_the_run_finishes_and_the_report_names_and_counts_them(tmp_path: Path, capsys) -> None:
    good, zoo = tmp_path / "data" / "train" / "good", tmp_path / "data" / "train" / "zoo"
    for folder in (good, zoo):
        folder.mkdir(parents=True)
    for index in range(150):
        Image.new("RGB", (40, 30), (index, 200 - index, 90)).save(good / f"{index}.png")
    taken = [path for path in FILES if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    for path in taken:
        (zoo / f"{path.parent.name}_{path.name}").symlink_to(path)
    for name in ("good", "zoo"):
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        Image.new("RGB", (40, 30), (250, 10, 9)).save(tmp_path / "data" / "val" / name / "a.png")
    lost = unreadable(taken)
    assert 20 < len(lost) < len(taken)

    run = tmp_path / "run"
    words = ["train", str(tmp_path / "data"), "--output", str(run), *SMALL, "--epochs", "2", "-b", "32", "-j", "1"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert f"{len(lost)} training pictures could not be read" in told
    assert "warning: " in told, "the check before training has nothing to say about broken files"
    listed = (run / "unreadable.txt").read_text().splitlines()
    page = (run / "report.html").read_text()
    assert len(listed) == len(lost)
    assert f"{len(lost)} files could not be read" in page
    for path in lost:
        assert f"zoo/{path.parent.name}_{path.name}" in page, path
