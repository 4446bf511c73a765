"""Every odd and broken picture of the zoo is a picture or one line, in time, without a word on the terminal."""

import csv
import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from mvitv2.data.folder import ImageFolder
from mvitv2.data.images import MAX_PIXELS, ImageError, read_image
from mvitv2.data.samples import collate
from mvitv2.data.transforms import EvalTransform
from mvitv2.preprocessing import IMAGENET

ZOO = Path(__file__).parents[2].parent / "shared" / "data" / "zoo"
FILES = sorted(path for folder in ("image_gen", "image_pillow") for path in (ZOO / folder).glob("*"))
SECONDS = 10.0
"""Far more than any of these files needs (all together take a few seconds)."""

pytestmark = pytest.mark.skipif(not FILES, reason=f"the zoo of broken files is not at {ZOO}")


def manifest() -> dict[str, str]:
    """What Pillow makes of each file, by its path in the zoo."""
    with (ZOO / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return {row[0]: row[2] for row in itertools.islice(csv.reader(file), 1, None)}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_picture_or_one_line(path, capfd):
    begin = time.monotonic()
    try:
        image = read_image(path)
    except ImageError as error:
        assert str(error).startswith(f"{error.source}: ")
        assert len(str(error).splitlines()) == 1 and len(error.reason) < 250
    else:
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= MAX_PIXELS
        tensor = EvalTransform(IMAGENET)(image)
        assert tensor.shape == (3, 224, 224) and tensor.isfinite().all()
    assert time.monotonic() - begin < SECONDS
    assert capfd.readouterr() == ("", "")


def test_what_pillow_reads_cleanly_is_read_and_the_rest_is_refused():
    Image.init()
    for path, result in manifest().items():
        if not path.startswith("image_") or (Path(path).suffix.startswith(".avif") and "AVIF" not in Image.OPEN):
            continue
        try:
            read_image(ZOO / path)
            read = True
        except ImageError:
            read = False
        assert read == (result == "ok"), path


def test_all_eight_orientations_are_one_picture():
    upright = np.asarray(read_image(ZOO / "image_gen" / "exif_orientation_1.jpg")).astype(int)
    for orientation in range(2, 9):
        turned = np.asarray(read_image(ZOO / "image_gen" / f"exif_orientation_{orientation}.jpg")).astype(int)
        assert turned.shape == upright.shape
        # saved as JPEG after turning: equal but for compression
        assert np.abs(turned - upright).mean() < 5, orientation


@pytest.mark.parametrize("other", ["exif_orientation_99.jpg", "exif_garbage.jpg", "jpg_named.png", "no_extension"])
def test_the_same_picture_under_other_circumstances(other):
    plain = np.asarray(read_image(ZOO / "image_gen" / "ok_rgb.jpg")).astype(int)
    assert np.abs(np.asarray(read_image(ZOO / "image_gen" / other)) - plain).mean() < 5


@pytest.mark.parametrize("other", ["gray16.png", "float32.tif"])
def test_gray_ones_show_the_same_as_the_plain_gray_one(other):
    gray = np.asarray(read_image(ZOO / "image_gen" / "gray.png")).astype(int)
    assert np.abs(np.asarray(read_image(ZOO / "image_gen" / other)) - gray).mean() <= 1


def test_one_bit_dots_average_to_the_gray_picture():
    gray, dots = (read_image(ZOO / "image_gen" / name).reduce(20) for name in ("gray.png", "bilevel.png"))
    assert np.abs(np.asarray(gray).astype(int) - np.asarray(dots)).mean() < 10


def test_colour_ones_show_the_same_as_the_plain_png():
    plain = np.asarray(read_image(ZOO / "image_gen" / "ok_rgb.png")).astype(int)
    for other in ("rgb16.png", "cmyk.jpg", "palette.png", "progressive.jpg", "subsampling444.jpg", "multipage.tif"):
        assert np.abs(np.asarray(read_image(ZOO / "image_gen" / other)) - plain).mean() < 10, other


def test_fully_transparent_is_white():
    assert np.asarray(read_image(ZOO / "image_gen" / "fully_transparent.png")).min() == 255


@pytest.mark.parametrize(
    "name, expected",
    [
        ("html_404_as.jpg", "HTML"),
        ("json_error_as.png", "JSON"),
        ("lfs_pointer_as.jpg", "git lfs pull"),
        ("text_as.jpg", "is text"),
        ("zero_byte.jpg", "is empty"),
        ("directory_named.jpg", "is a folder"),
        ("truncated_50pct.jpg", "cut off JPEG"),
        ("bomb_1bit_20000x20000.png", "400000000 pixels"),
        ("bomb_warning_only_1bit_12000x12000.png", "12000 x 12000 pixels"),
    ],
)
def test_reasons_name_what_the_file_is(name, expected):
    with pytest.raises(ImageError, match=expected):
        read_image(ZOO / "image_gen" / name)


def test_the_whole_zoo_as_a_class_is_read_or_named(tmp_path):
    """A training folder with every broken file in it: nothing stops, nothing is replaced, each loss is named."""
    for label, folder in enumerate(("image_gen", "image_pillow")):
        (tmp_path / f"class{label}").symlink_to(ZOO / folder)
    data = ImageFolder(tmp_path, EvalTransform(IMAGENET.at(32)), on_error="skip", suffixes=None)
    batches = list(DataLoader(data, 16, collate_fn=collate, num_workers=1))
    read = sum(len(batch.labels) for batch in batches)
    lost = [item for batch in batches for item in batch.unreadable]
    assert read + len(lost) == len(data) > 150
    scan = data.scan(num_threads=2)
    assert lost == list(scan.unreadable) and len({item.path for item in lost}) == len(lost)
    assert all(len(item.reason.splitlines()) == 1 for item in lost)
