"""Clips are read frame by frame as they were filmed, from whatever they lie in, or refused in one line."""

import io
import os
import socket
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mvitv2.data.images import ImageError
from mvitv2.data.video.codec import loaded
from mvitv2.data.video.faults import Caps, ClipError
from mvitv2.data.video.info import at_times
from mvitv2.data.video.reader import ByteRange, open_clip, probe, read_frames
from mvitv2.extras import MissingExtra
from tests.clips import level, numbers, picture, write_clip

av = pytest.importorskip("av", reason="needs PyAV, the extra video")

B_FRAMES = {"bf": "3", "b-pyramid": "normal"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 frames, 10 a second, B-frames, a key frame every 8."""
    return write_clip(tmp_path_factory.mktemp("clips") / "plain.mp4", options=B_FRAMES)


def test_what_is_known_of_a_clip(clip):
    info = probe(clip)
    assert (info.frames, info.size, info.codec, info.rotation) == (24, (48, 64), "h264", 0)
    assert info.fps == 10.0 and info.seconds == pytest.approx(2.4)
    assert info.variable_rate is False and info.streams == ("video",) and info.reader.startswith("pyav")
    assert info.to_dict()["frames"] == 24


@pytest.mark.parametrize(
    "asked", [[0], [23], [7, 8, 9], [20, 3, 3, 0], [0, 12, 23], list(range(24)), list(range(23, -1, -1))]
)
def test_frames_come_by_their_number_in_the_order_asked(clip, asked):
    with open_clip(clip) as opened:
        frames = opened.frames(asked)
        assert frames.shape == (len(asked), 3, 48, 64) and frames.dtype == torch.uint8
        assert numbers(frames) == asked
        assert numbers(opened.frames(asked[::-1])) == asked[::-1]  # an open clip can go back


def test_no_frames_and_frames_that_are_not_there(clip):
    with open_clip(clip) as opened:
        assert len(opened.frames([])) == 0
        with pytest.raises(IndexError, match="has 24 frames, 0 to 23, no frame 24"):
            opened.frames([24])


CODECS = {
    "mp4": ("h264.mp4", {"options": B_FRAMES}),
    "one key frame": ("long.mp4", {"options": {**B_FRAMES, "g": "250"}}),
    "matroska": ("h264.mkv", {"options": B_FRAMES}),
    "transport stream": ("h264.ts", {"options": B_FRAMES}),
    "mpeg4 avi": ("mpeg4.avi", {"codec": "mpeg4", "options": {"qscale": "2"}}),
    "mpeg2": ("mpeg2.mpg", {"codec": "mpeg2video", "fps": 25, "options": {"bf": "2", "b": "2000k"}}),
    "vp9": ("vp9.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}}),
    "raw": ("raw.h264", {"options": {"bf": "0"}}),
    "ten bits": ("ten.mkv", {"pixel_format": "yuv420p10le"}),
    "gray": ("gray.mkv", {"codec": "ffv1", "pixel_format": "gray"}),
    "odd sides": ("odd.mp4", {"size": (49, 63), "pixel_format": "yuv444p"}),
    "fragmented": ("fragmented.mp4", {"movflags": "frag_keyframe+empty_moov", "options": B_FRAMES}),
}


@pytest.mark.parametrize("kind", CODECS)
def test_every_container_and_codec_gives_the_same_frames(tmp_path, kind):
    name, how = CODECS[kind]
    path = write_clip(tmp_path / name, **how)
    with open_clip(path) as opened:
        assert opened.info.frames == 24
        assert numbers(opened.frames([21, 2, 13])) == [21, 2, 13]
        assert numbers(torch.stack([frame.pixels for frame in opened.stream(5)])) == list(range(5, 24))


def test_a_variable_rate_is_told_and_times_choose_frames(tmp_path):
    times = [0, 1, 2, 10, 11, 30, 31, 32]
    path = write_clip(tmp_path / "vfr.mkv", 8, fps=100, times=times)
    with open_clip(path) as opened:
        assert opened.info.variable_rate is True
        np.testing.assert_allclose(opened.times, np.asarray(times) / 100, atol=1e-3)
        assert at_times(opened.times, [0.0, 0.05, 0.1, 0.2, 0.305, 9.0]) == [0, 2, 3, 4, 5, 7]
        assert numbers(opened.frames([3, 5])) == [3, 5]


def test_a_stream_that_starts_late_starts_with_its_first_frame(tmp_path):
    path = write_clip(tmp_path / "late.mkv", 8, times=list(range(50, 58)))
    with open_clip(path) as opened:
        assert opened.times[0] == 0 and opened.info.seconds == pytest.approx(0.8, abs=0.01)
        assert numbers(opened.frames([0, 7])) == [0, 7]


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_frames_are_turned_upright(tmp_path, rotation):
    path = write_clip(tmp_path / "turned.mp4", 3, rotation=rotation)
    with open_clip(path) as opened:
        assert opened.info.rotation == rotation % 360
        pixels = opened.frames([1])[0].permute(1, 2, 0).numpy()
    assert pixels.shape[:2] == opened.info.size
    upright = np.rot90(picture(1), rotation // 90)
    assert np.abs(pixels.astype(int) - upright).mean() < 6


def test_bytes_files_stretches_and_folders_are_clips(tmp_path, clip):
    data = clip.read_bytes()
    with tarfile.open(tmp_path / "clips.tar", "w") as archive:
        archive.add(clip, "a/plain.mp4")
    with tarfile.open(tmp_path / "clips.tar") as archive:
        member = archive.getmember("a/plain.mp4")
    stretch = ByteRange(tmp_path / "clips.tar", member.offset_data, member.size)
    file = io.BytesIO(data)
    for source in (clip, str(clip), data, file, stretch):
        assert numbers(read_frames(source, [17, 4])) == [17, 4]
    assert not file.closed
    assert read_frames(clip, [17]).equal(read_frames(stretch, [17]))


def test_a_folder_of_pictures_is_a_clip(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(12):
        Image.fromarray(picture(index)).save(folder / f"img_{index}.png")
    (folder / "notes.txt").write_text("no frame")
    with open_clip(folder, fps=12) as opened:
        info = opened.info
        assert (info.frames, info.fps, info.size, info.codec) == (12, 12, (48, 64), "frames")
        assert numbers(opened.frames([10, 2, 2])) == [10, 2, 2]
        assert [frame.index for frame in opened.stream(9)] == [9, 10, 11]
    files = [folder / "img_3.png", folder / "img_1.png"]
    assert numbers(read_frames(files, [0, 1])) == [3, 1]
    Image.new("RGB", (10, 10)).save(folder / "img_5.png")
    with open_clip(folder) as opened, pytest.raises(ClipError, match=r"frame 5, img_5.png, has 10 x 10 .* 64 x 48"):
        opened.frames([4, 5])
    (folder / "img_6.png").write_bytes(b"broken")
    with open_clip(folder) as opened, pytest.raises(ClipError, match=r"frame 6, img_6.png, is text"):
        opened.frames([6])


def test_a_second_video_stream_can_be_chosen_and_is_told(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("ffv1", rate=10) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv444p"
        for number, stream in enumerate(streams):
            for index in range(4):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index + 10 * number), format="rgb24")))
            container.mux(stream.encode())
    with open_clip(path) as first, open_clip(path, stream=1) as second:
        assert first.info.notes == ("has 2 video streams; number 0 is read",)
        assert numbers(first.frames([3])) == [3] and numbers(second.frames([3])) == [13]
    with pytest.raises(ClipError, match="has 2 video streams, no stream 2"):
        open_clip(path, stream=2)


def sound(path: Path) -> Path:
    """A file of sound alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_what_is_no_video_is_refused_in_one_line(tmp_path, clip):
    os.mkfifo(tmp_path / "pipe.mp4")
    cases = {
        "only audio": sound(tmp_path / "sound.mp4"),
        r"is empty \(0 bytes\)": b"",
        "is text, not a video": b"hello\n" * 10,
        "is a JPEG picture, not a video": b"\xff\xd8\xff" + bytes(50),
        "Git LFS pointer, not the video itself": b"version https://git-lfs.github.com/spec/v1\n",
        "cut off, damaged": clip.read_bytes()[:1000],
        "does not exist": tmp_path / "nothing.mp4",
        "is a pipe": tmp_path / "pipe.mp4",
        "holds no pictures": tmp_path,
        "HTML page": b"<html><body>404</body></html>",
    }
    for message, source in cases.items():
        with pytest.raises(ImageError, match=message) as caught:
            open_clip(source)
        assert "\n" not in str(caught.value)


def test_a_cut_off_clip_gives_the_frames_it_has_and_says_where_it_ends(tmp_path):
    path = write_clip(tmp_path / "first.mp4", 200, movflags="faststart", options={"g": "20", **B_FRAMES})
    data = path.read_bytes()
    with open_clip(data[: int(len(data) * 0.7)]) as opened:
        assert numbers(opened.frames([0, 5])) == [0, 5]
        with pytest.raises(ClipError, match=r"is damaged: decoding stops|it says; frame"):
            list(opened.stream())
            opened.frames([opened.info.frames - 1])


@pytest.mark.parametrize("start", [0, 10])
def test_what_is_known_can_be_asked_for_while_frames_are_streamed(clip, start):
    with open_clip(clip) as opened:
        streamed = []
        for frame in opened.stream(start):
            assert opened.info.frames == len(opened.times) == 24
            streamed.append(frame.pixels)
        assert numbers(torch.stack(streamed)) == list(range(start, 24))


@pytest.mark.parametrize("meanwhile", ["frames", "close", "verify", "another stream"])
def test_a_clip_that_is_used_otherwise_while_it_is_streamed_says_so(clip, meanwhile):
    with open_clip(clip) as opened:
        frames = opened.stream()
        assert next(frames).index == 0
        if meanwhile == "frames":
            assert numbers(opened.frames([20])) == [20]
        elif meanwhile == "another stream":
            assert next(opened.stream(3)).index == 3
        else:
            getattr(opened, meanwhile)()
        with pytest.raises(RuntimeError, match=r"plain.mp4: was closed or read elsewhere while .* open it once more"):
            next(frames)


def test_limits_refuse_before_memory_is_spent(clip):
    for caps, message in (
        (Caps(max_pixels=1000), "64 x 48 pixels, more than max_pixels=1000"),
        (Caps(max_frames=10), "more than max_frames=10"),
        (Caps(max_seconds=1.0), "lasts 2 seconds, more than max_seconds=1"),
        (Caps(max_bytes=20_000), "3 frames of 64 x 48 take 27648 bytes, more than max_bytes=20000"),
    ):
        with pytest.raises(ClipError, match=message):
            read_frames(clip, [0, 1, 2], caps=caps)
    with pytest.raises(ValueError, match="max_frames=0 must be above 0"):
        Caps(max_frames=0)


@pytest.mark.parametrize("reader", ["pyav", "torchcodec"])
def test_playlists_open_nothing(tmp_path, clip, reader):
    if reader == "torchcodec":
        try:
            loaded()
        except MissingExtra as error:
            pytest.skip(f"needs torchcodec and an FFmpeg of the system: {error}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        web = f"http://127.0.0.1:{port}/a.mp4"
        playlists = {
            "m3u8": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{web}\n#EXT-X-ENDLIST\n",
            "ffconcat": f"ffconcat version 1.0\nfile {clip}\nfile {web}\n",
            "mpd": f'<?xml version="1.0"?>\n<MPD><Period><BaseURL>{web}</BaseURL></Period></MPD>',
        }
        for kind, text in playlists.items():
            path = tmp_path / f"list.{kind}.mp4"
            path.write_text(text)
            with pytest.raises(ClipError, match="not a video"):
                open_clip(path, reader=reader)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_an_unknown_reader_is_named(clip):
    with pytest.raises(ValueError, match=r"reader='decord' must be one of .*torchcodec"):
        open_clip(clip, reader="decord")


def test_without_any_reader_the_extra_is_named(monkeypatch, clip):
    for module in ("av", "torchcodec", "torchcodec.decoders"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'mvitv2\[video\]'"):
        open_clip(clip)


def test_levels_are_apart():
    assert len({level(index) for index in range(24)}) == 24 and level(0) == level(24)
