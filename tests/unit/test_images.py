"""Reading one file: every colour mode, every orientation, and one line for everything that is no picture."""

import io
import os
import pickle
import random
import socket
import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from mvitv2.data.images import FORMATS, ImageError, read_image
from mvitv2.data.signatures import content_name


def picture(width: int = 12, height: int = 8) -> Image.Image:
    """Smooth colours, different in every corner."""
    rows, columns = np.mgrid[0:height, 0:width]
    values = np.stack([columns * 255 // (width - 1), rows * 255 // (height - 1), (rows + columns) * 9 % 256], axis=-1)
    return Image.fromarray(values.astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    """The bytes of a file of format ``kind``."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(source, **options) -> np.ndarray:
    """What :func:`read_image` makes of ``source``."""
    return np.asarray(read_image(source, **options))


def reason(source, **options) -> str:
    """The one line with which ``source`` is refused."""
    with pytest.raises(ImageError) as caught:
        read_image(source, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_path_bytes_and_a_file_are_the_same(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(data := encoded(picture()))
    for source in (path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data)):
        np.testing.assert_array_equal(pixels(source), np.asarray(picture()))


def test_a_file_object_is_read_from_its_start_and_left_open():
    stream = io.BytesIO(encoded(picture()))
    stream.seek(20)
    assert read_image(stream).size == (12, 8)
    assert not stream.closed


def test_a_stream_that_cannot_seek():
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: object) -> int:
            raise io.UnsupportedOperation

    assert read_image(Pipe(encoded(picture()))).size == (12, 8)


def test_the_name_does_not_matter(tmp_path):
    for name in ("a.png", "b", "c.txt", "-rf.jpg", "ü 猫.webp"):
        (tmp_path / name).write_bytes(encoded(picture(), "JPEG"))
        assert read_image(tmp_path / name).mode == "RGB"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"])
def test_every_mode_becomes_rgb(mode, tmp_path):
    image = Image.new(mode, (5, 4))
    kind = {"1": "PNG", "L": "PNG", "LA": "PNG", "P": "PNG", "RGB": "PNG", "RGBA": "PNG"}.get(mode, "TIFF")
    if mode in ("PA", "HSV", "YCbCr"):  # files of these are rare or unheard of
        from mvitv2.data.colours import to_rgb

        assert to_rgb(image).mode == "RGB"
        return
    read = read_image(encoded(image, kind))
    assert (read.mode, read.size) == ("RGB", (5, 4))
    assert read_image(encoded(image, kind), channels="L").mode == "L"


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match='"RGB" or "L"'):
        read_image(encoded(picture()), channels="CMYK")


def test_alpha_lies_over_white():
    image = Image.new("RGBA", (3, 1), (200, 0, 0, 255))
    image.putpixel((1, 0), (200, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 51))
    np.testing.assert_array_equal(pixels(encoded(image))[0], [[200, 0, 0], [255, 255, 255], [204, 204, 204]])
    np.testing.assert_array_equal(pixels(encoded(image), background=None)[0], [[200, 0, 0], [200, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(pixels(encoded(image), background=(0, 0, 9))[0][1], [0, 0, 9])


def test_gray_alpha_and_colour_keys_lie_over_white():
    gray = Image.new("LA", (2, 1), (10, 255))
    gray.putpixel((1, 0), (10, 0))
    np.testing.assert_array_equal(pixels(encoded(gray))[0], [[10] * 3, [255] * 3])
    keyed = Image.new("RGB", (2, 1), (1, 2, 3))
    keyed.putpixel((1, 0), (9, 9, 9))
    np.testing.assert_array_equal(pixels(encoded(keyed, transparency=(9, 9, 9)))[0], [[1, 2, 3], [255] * 3])
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    np.testing.assert_array_equal(pixels(encoded(palette, transparency=1))[0], [[10, 20, 30], [255] * 3])
    np.testing.assert_array_equal(pixels(encoded(palette))[0], [[10, 20, 30], [40, 50, 60]])


def test_sixteen_bits_are_scaled_never_clipped():
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF", "PPM"):
        read = pixels(encoded(Image.fromarray(values), kind))
        np.testing.assert_array_equal(read[0, :, 0], [0, 0, 1, 128, 255])


def test_a_colour_key_of_sixteen_bit_gray():
    values = np.array([[0, 300, 65535]], dtype=np.uint16)
    read = pixels(encoded(Image.fromarray(values), transparency=300))
    np.testing.assert_array_equal(read[0, :, 0], [0, 255, 255])


@pytest.mark.parametrize(
    "values, expected",
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),  # 0..1 is 0..255
        ([0.25, 0.5, 0.75], [64, 128, 191]),  # not stretched: its white is known
        ([0.0, 100.0, 255.0], [0, 100, 255]),  # 8-bit numbers in floats
        ([-1.0, 0.0, 1.0], [0, 128, 255]),  # anything else: its own minimum to maximum
        ([0.0, 500.0, 1000.0], [0, 128, 255]),
        ([float("nan"), float("inf"), 1.0], [0, 0, 255]),  # no number: black
        ([float("nan")] * 3, [0, 0, 0]),
        ([7e5, 7e5, 7e5], [0, 0, 0]),
    ],
)
def test_floats(values, expected):
    read = pixels(encoded(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF"))
    np.testing.assert_array_equal(read[0, :, 0], expected)


@pytest.mark.parametrize(
    "values, expected",
    [([0, 100, 255], [0, 100, 255]), ([0, 256, 65535], [0, 1, 255]), ([-10, 0, 10], [0, 128, 255])],
)
def test_32_bit_integers(values, expected):
    read = pixels(encoded(Image.fromarray(np.array([values], dtype=np.int32)), "TIFF"))
    np.testing.assert_array_equal(read[0, :, 0], expected)


def test_cmyk_of_adobe_is_not_inverted():
    read = pixels(encoded(picture().convert("CMYK"), "JPEG", quality=100, subsampling=0)).astype(int)
    assert np.abs(read - np.asarray(picture())).mean() < 8


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_orientations_give_the_same_picture(kind):
    from PIL.Image import Transpose as T

    stored = {1: None, 2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE, 6: T.ROTATE_90}
    stored |= {7: T.TRANSVERSE, 8: T.ROTATE_270}
    image = picture(24, 16)
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    for orientation, turn in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(image if turn is None else image.transpose(turn), kind, exif=exif, **options)
        read = pixels(data).astype(int)
        assert read.shape == (16, 24, 3)
        assert np.abs(read - np.asarray(image)).max() <= (12 if kind == "JPEG" else 0), f"orientation {orientation}"


@pytest.mark.parametrize("orientation", [0, 9, 99, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(pixels(encoded(picture(), exif=exif)), np.asarray(picture()))


@pytest.mark.parametrize(
    "block", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b""]
)
def test_garbage_in_exif_is_ignored(block):
    assert read_image(encoded(picture(), "JPEG", exif=block)).size == (12, 8)


def test_the_first_frame_or_page():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(pixels(data)[0, 0], [255, 0, 0])


def test_too_many_pixels_are_refused_by_the_header_alone():
    image = Image.new("1", (2000, 1000))
    assert "has 2000 x 1000 pixels, more than max_pixels=1000000" in reason(encoded(image), max_pixels=1_000_000)
    assert read_image(encoded(image), max_pixels=2_000_000).size == (2000, 1000)
    bomb = b"P4 60000 60000\n"  # a header with nothing behind it
    assert "has 3600000000 pixels, more than max_pixels=89478485" in reason(bomb)


def test_files_that_are_not_there(tmp_path):
    assert "does not exist" in reason(tmp_path / "none.jpg")
    (link := tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert "is a link to" in reason(link)
    (loop := tmp_path / "loop.jpg").symlink_to(loop)
    assert "cannot be opened" in reason(loop)
    assert "cannot be opened" in reason(tmp_path / ("x" * 300))
    assert "cannot be opened" in reason("a\0b.jpg")


def test_special_files_are_refused_and_never_waited_for(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    assert "is a folder" in reason(tmp_path / "folder.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "is a pipe" in reason(tmp_path / "pipe.jpg")
    assert "is a device" in reason("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        assert "is a socket" in reason(tmp_path / "s")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path):
    (path := tmp_path / "a.png").write_bytes(encoded(picture()))
    path.chmod(0)
    assert "permission denied" in reason(path)


def test_a_denied_open_is_one_line(tmp_path, monkeypatch):
    (path := tmp_path / "a.png").write_bytes(encoded(picture()))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert "may not be read (permission denied)" in reason(path)


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"", "is empty (0 bytes)"),
        (b"<!DOCTYPE html><html><body>404", "is an HTML page"),
        (b'{"error": "not found"}', "is JSON text"),
        (b"{not json", "is text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b'<?xml version="1.0"?><svg xmlns="x"/>', "is an SVG drawing"),
        (b'<?xml version="1.0"?><a/>', "is XML text"),
        ("Grüße\n".encode() * 400, "is text"),
        (b"%PDF-1.7", "is a PDF document"),
        (b"PK\x03\x04....", "is a ZIP archive"),
        (b"\0\0\0\x18ftypheic\0\0", "is a HEIC photo"),
        (b"\0\0\0\x18ftypmp42\0\0", "is a video"),
        (b"\0" * 100, "nothing but zero bytes"),
        (b"\xff\xd8", "starts as JPEG"),
        (b"\x89PNG\r\n\x1a\n", "starts as PNG"),
        (b"P6\n-1 5\n255\n", "starts as PPM"),
        (b"\xde\xad\xbe\xef" * 9, "is in no image format known here"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is a PostScript drawing"),
    ],
)
def test_what_is_no_image_is_named(data, expected):
    assert expected in reason(data)


def test_text_cut_inside_a_character_is_still_text():
    assert content_name(("a" + "ü" * 2000).encode()[:2048]).startswith("is text")


def test_formats_that_start_programs_are_not_read():
    assert not {"EPS", "WMF", "MPEG", "PDF"} & set(FORMATS)


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "SGI", "PCX"]
)
def test_damaged_files_are_one_line_or_a_picture(kind, capfd):
    """Cut off and with bits turned over, any file is read or refused, without a warning or a word."""
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    chance = random.Random(kind)
    data = encoded(picture(32, 32), kind)
    assert read_image(data).size[0] >= 16
    variants = [data[: len(data) * part // 10] for part in range(1, 10)]
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(chance.choice((1, 3, 10))):
            broken[chance.randrange(min(len(data), chance.choice((64, len(data)))))] = chance.randrange(256)
        variants.append(bytes(broken))
    for variant in variants:
        try:
            assert read_image(variant, max_pixels=1_000_000).mode == "RGB"
        except ImageError as error:
            assert len(str(error).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF"])
def test_a_file_cut_in_half_is_refused(kind):
    data = encoded(picture(64, 64), kind)
    assert "is " in reason(data[: len(data) // 2])


def test_errors_name_the_file_on_one_line(tmp_path):
    path = tmp_path / "two\nlines \udcff.jpg"
    path.write_bytes(b"x")
    message = reason(path)
    assert "two\\nlines \\udcff.jpg: is " in message
    message.encode("utf-8")


def test_errors_travel_between_processes():
    error = ImageError("is a folder", "a.jpg")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.source, copy.reason) == ("a.jpg: is a folder", "a.jpg", "is a folder")
    assert str(ImageError(str(error))) == str(error), "DataLoader rebuilds an error from its message alone"


def test_something_that_is_no_source():
    with pytest.raises(TypeError, match="got int"):
        read_image(3)  # type: ignore[arg-type]


def test_threads_leave_the_warning_filters_as_they_were():
    data = [encoded(picture()), b"P4 9000 9000\n", encoded(picture(), "JPEG", exif=b"Exif\0\0garbage")]
    before = list(warnings.filters)

    def read_many() -> None:
        for index in range(60):
            try:
                read_image(data[index % 3])
            except ImageError:
                continue

    threads = [threading.Thread(target=read_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
