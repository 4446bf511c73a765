"""A look at data before training: every kind of finding is found where it is, and nowhere else."""

import io
import json
import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from mvitv2.data import duplicates, looks
from mvitv2.data.duplicates import exact_copies, near_copies
from mvitv2.data.findings import Limits, Report
from mvitv2.data.folder import ImageFolder
from mvitv2.data.labelled import DataError
from mvitv2.data.preflight import examine, preflight, report_on
from mvitv2.data.preflight_page import page
from mvitv2.data.sheet import sheet
from mvitv2.data.transforms import EvalTransform
from mvitv2.preprocessing import IMAGENET, Preprocessing

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "photos10"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache of its own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MVITV2_CACHE", str(folder))
    return folder


def picture(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Smooth random colours: unlike any other, like itself in any size; near ImageNet's mean and deviation."""
    values = np.random.default_rng(seed).normal((124, 116, 104), 70, (6, 8, 3)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two clean splits of two classes."""
    for split, number, first in (("train", 6, 0), ("val", 3, 100)):
        for label, name in enumerate(("cat", "dog")):
            for place in range(number):
                save(picture(first + 10 * label + place), tmp_path / split / name / f"{place}.png")
    return tmp_path


def kinds(report: Report) -> dict[str, str]:
    """Severity by kind."""
    return {finding.kind: finding.severity for finding in report.findings}


def only(report: Report, kind: str):
    """The one finding of a kind."""
    (found,) = [finding for finding in report.findings if finding.kind == kind]
    return found


def test_clean_data_is_clean(root):
    report = preflight(root)
    assert report.findings == () and report.exit_code == 0
    report.stop_if_needed()
    assert report.splits["train"].counts == {"cat": 6, "dog": 6} and report.splits["val"].images == 6
    assert report.splits["train"].sides == (72, 72, 72) and report.splits["train"].kinds == {"PNG RGB": 12}
    assert report.normalisation["source"] == "imagenet" and report.normalisation["mean"] == [0.485, 0.456, 0.406]


def test_unreadable_files_are_counted_with_their_reason(root):
    (root / "train" / "cat" / "2.png").write_bytes(b"")
    (root / "train" / "dog" / "2.png").write_text("<html>")
    report = preflight(root)
    found = only(report, "unreadable")
    assert (found.severity, found.split, found.count) == ("warning", "train", 2) and report.exit_code == 3
    assert "is empty" in found.examples[0] and "HTML" in found.examples[1] and "(16.7 %)" in found.text
    assert report.splits["train"].unreadable == 2


def test_too_many_unreadable_files_stop_training(root):
    for place in range(6):
        (root / "train" / "cat" / f"{place}.png").write_bytes(b"x")
    report = preflight(root, limits=Limits(max_unreadable=0.4))
    assert kinds(report) == {"unreadable": "problem", "empty": "problem"} and report.exit_code == 1
    with pytest.raises(DataError, match=r"6 pictures of train cannot be read .*; 1 class of train without a readable"):
        report.stop_if_needed()


def test_tiny_and_odd_pictures(root):
    save(picture(201, (20, 90)), root / "train" / "cat" / "a.png")
    save(picture(202, (40, 300)), root / "train" / "cat" / "b.png")
    report = preflight(root)
    assert only(report, "tiny").examples[0].endswith("a.png: 20 x 90")
    assert only(report, "aspect").count == 2
    assert not preflight(root, limits=Limits(min_side=20, max_aspect=8)).findings


def test_colour_modes(root):
    save(picture(1).convert("CMYK"), root / "train" / "cat" / "a.jpg")
    save(picture(2).convert("RGBA"), root / "train" / "cat" / "b.png")
    save(picture(3).convert("L"), root / "train" / "cat" / "c.png")
    colour = picture(4).convert("P")
    save(colour, root / "train" / "cat" / "d.png", transparency=0)
    found = only(preflight(root), "colours")
    assert found.count == 3 and "1 CMYK, 1 RGBA, 1 P+alpha" in found.text and "transparent parts white" in found.text
    assert found.examples[0].endswith("a.jpg: JPEG CMYK")
    assert only(preflight(root), "gray").text == "1 of 16 pictures of train are gray; their channels are made equal"


def test_data_that_is_all_gray(tmp_path):
    for split in ("train", "val"):
        for place in range(5):
            save(picture(place + len(split) * 10).convert("L"), tmp_path / split / "a" / f"{place}.png")
    told = [finding.text for finding in preflight(tmp_path).findings if finding.kind == "gray"]
    assert told[0] == "all pictures of train are gray; channels=gray trains on one channel" and len(told) == 2


# copies


def test_the_same_file_in_one_split_and_in_two(root):
    data = (root / "train" / "cat" / "0.png").read_bytes()
    (root / "train" / "cat" / "again.png").write_bytes(data)
    (root / "val" / "cat" / "leak.png").write_bytes((root / "train" / "cat" / "1.png").read_bytes())
    (root / "val" / "cat" / "other.png").write_bytes((root / "train" / "dog" / "1.png").read_bytes())
    report = preflight(root)
    assert kinds(report) == {"same": "warning", "leak-same": "warning", "leak-same-contrary": "warning"}
    assert only(report, "same").examples == (f"{root}/train/cat/0.png = {root}/train/cat/again.png",)
    assert only(report, "leak-same").text == "the same file in train and in val: 1 picture leaked, in 1 group"
    assert "under different classes" in only(report, "leak-same-contrary").text


def test_nearly_the_same_picture(root):
    again = picture(0).resize((48, 36), Image.Resampling.BICUBIC)
    save(again, root / "train" / "cat" / "small.jpg", quality=60)
    assert kinds(preflight(root)) == {"near": "note"}
    save(ImageEnhance.Brightness(picture(1)).enhance(0.8), root / "val" / "cat" / "dark.png")
    assert kinds(preflight(root)) == {"near": "note", "leak-near": "warning"}
    save(again, root / "train" / "dog" / "small.png")
    assert kinds(preflight(root)) == {"near-contrary": "warning", "leak-near": "warning"}


@pytest.mark.parametrize("many", [0, 1 << 20])
def test_copies_are_found_among_few_and_many(monkeypatch, many):
    monkeypatch.setattr(duplicates, "_ALL_PAIRS", many)
    images = [picture(seed, (64, 48)) for seed in range(300)]
    images += [image.resize((32, 24), Image.Resampling.BICUBIC) for image in images[:100]]
    seen = [looks.described(image, bytes(16), "PNG RGB") for image in images]
    hashes = np.array([one.hash for one in seen], np.uint64)
    thumbs = np.array([np.frombuffer(one.thumb, np.uint8) for one in seen])
    readable = np.ones(len(seen), bool)
    readable[0] = False
    groups = near_copies(hashes, thumbs, readable)
    assert {group.places for group in groups} == {(place, 300 + place) for place in range(1, 100)}


def test_flat_pictures_are_not_known_again():
    seen = [looks.described(Image.new("RGB", (32, 32), (200, 30, 30)), bytes(16), "") for _ in range(3)]
    hashes = np.array([one.hash for one in seen], np.uint64)
    thumbs = np.array([np.frombuffer(one.thumb, np.uint8) for one in seen])
    assert near_copies(hashes, thumbs, np.ones(3, bool)) == []


@pytest.mark.parametrize("count", [0, 1])
def test_copies_of_nothing(count):
    readable = np.ones(count, bool)
    assert exact_copies(np.zeros((count, 16), np.uint8), readable) == []
    assert near_copies(np.zeros(count, np.uint64), np.zeros((count, 192), np.uint8), readable) == []


def test_copies_agree_with_comparing_all_pairs():
    chance = np.random.default_rng(0)
    digests = chance.integers(0, 3, (200, 16), np.uint8) * (chance.random((200, 1)) < 0.3)
    readable = chance.random(200) < 0.9
    expected: dict[bytes, list[int]] = {}
    for place in np.flatnonzero(readable).tolist():
        expected.setdefault(digests[place].tobytes(), []).append(place)
    groups = {group.places for group in exact_copies(digests.astype(np.uint8), readable)}
    assert groups == {tuple(places) for places in expected.values() if len(places) > 1}


# classes


def test_classes_that_differ_are_told_beside_the_refusal(root):
    (root / "val" / "dog").rename(root / "val" / "dogs")
    report = preflight(root)
    assert report.exit_code == 1 and report.findings[0].kind == "refused"
    told = [finding.text for finding in report.findings if finding.kind == "classes"]
    assert told == ["1 class of train without a picture in val: dog", "1 class of val without a picture in train: dogs"]
    assert report.splits["val"].counts == {"cat": 3, "dogs": 3}


def test_small_and_unbalanced_classes(root):
    for place in range(3):
        (root / "train" / "dog" / f"{place}.png").unlink()
    found = only(preflight(root), "few")
    assert found.text == "1 class of train with fewer than 5 pictures: dog" and found.examples == ("dog: 3",)
    assert "cat has 6 pictures, dog has 3" in only(preflight(root, limits=Limits(max_imbalance=1.5)), "imbalance").text


def test_a_missing_split_and_data_that_is_not_split(root):
    (root / "val").rename(root / "other")
    report = preflight(root)
    assert report.exit_code == 1 and list(report.splits) == ["train"] and "looked for" in report.findings[0].text
    assert preflight(root, need=("train",)).exit_code == 0
    report = preflight(root / "train")
    assert report.exit_code == 1 and list(report.splits) == ["all"]
    assert preflight(root / "train", need=()).exit_code == 0


def test_data_that_cannot_be_opened_at_all(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        preflight(tmp_path / "none")


def test_notes_of_lists(root):
    (root / "l.csv").write_text("train/cat/0.png,cat\ntrain/cat/1.png,cat\ntrain/cat/0.png,cat\n")
    report = preflight(f"{root}/l.csv,{root}/val", limits=Limits(min_images=1))
    assert "lists 1 files again" in only(report, "note").text


# normalisation


def test_pictures_far_from_imagenet_get_their_own_normalisation(root):
    for path in root.rglob("*.png"):
        save(ImageEnhance.Brightness(Image.open(path)).enhance(0.3), path)
    report = preflight(root)
    assert kinds(report) == {"normalisation": "note"} and report.exit_code == 0
    pixels = np.stack([np.asarray(Image.open(p), np.float64) / 255 for p in sorted((root / "train").rglob("*.png"))])
    assert report.normalisation["mean"] == pytest.approx(pixels.mean(axis=(0, 1, 2)), abs=1e-3)
    assert report.normalisation["std"] == pytest.approx(pixels.std(axis=(0, 1, 2)), abs=1e-3)


# the cache


def test_what_was_seen_is_kept_until_a_file_changes(root, cache, monkeypatch):
    first = preflight(root).to_dict()
    monkeypatch.setattr(looks, "look", lambda dataset, index: pytest.fail("looked again"))
    assert preflight(root).to_dict() == first
    monkeypatch.undo()
    monkeypatch.setenv("MVITV2_CACHE", str(cache))
    path = root / "train" / "cat" / "0.png"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert preflight(root).exit_code == 3
    path.write_bytes(data)
    os.utime(path, (1, 1))
    assert preflight(root).exit_code == 0


def test_a_damaged_cache_is_made_again(root, cache):
    first = preflight(root).to_dict()
    for path in (cache / "looks").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert preflight(root).to_dict() == first


def test_without_a_cache_nothing_is_written(root, cache):
    preflight(root, cached=False)
    assert not (cache / "looks").exists()


def test_the_cache_is_bounded(root, cache, monkeypatch):
    monkeypatch.setattr(looks, "_KEPT", 3)
    for place in range(4):
        save(picture(50 + place), root / "train" / "cat" / f"new{place}.png")
        preflight(root)
    assert len(list((cache / "looks").iterdir())) == 3


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(root, threads):
    (root / "train" / "cat" / "2.png").write_bytes(b"")
    told: list[tuple[str, int, int]] = []
    report = preflight(root, threads=threads, cached=False, on_progress=lambda *step: told.append(step))
    assert [finding.kind for finding in report.findings] == ["unreadable"]
    assert told == [("train", i, 12) for i in range(1, 13)] + [("val", i, 6) for i in range(1, 7)]


# what it is written as


def test_a_report_is_plain_json(root):
    (root / "train" / "cat" / "2.png").write_bytes(b"")
    told = json.loads(json.dumps(preflight(root).to_dict()))
    assert told["exit_code"] == 3 and told["findings"][0]["kind"] == "unreadable"
    assert told["splits"]["train"]["counts"] == {"cat": 6, "dog": 6} and told["limits"]["min_side"] == 32


class Tags(HTMLParser):
    """Counts tags, and keeps what pages load."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]


def test_a_page_has_the_pictures_and_loads_nothing(root):
    bad = root / "train" / "<script>alert(1)"
    save(picture(77), bad / "&.png")
    (root / "val" / "cat" / "leak.png").write_bytes((root / "train" / "cat" / "1.png").read_bytes())
    examined = examine(root)
    text = page(examined, report_on(examined, Limits()))
    (tags := Tags()).feed(text)
    assert "<script>" not in text and "script" not in tags.tags and "&lt;script&gt;alert(1)" in text
    assert len(tags.loaded) > 4 and all(source.startswith("data:image/jpeg;base64,") for source in tags.loaded)
    assert "the same file in train and in val" in text and "training cannot start" in text


def test_a_page_shows_some_of_all_classes(tmp_path):
    """Of twelve classes with two pictures each, evenly: of the first and of the last."""
    for number in range(24):
        save(picture(number), tmp_path / "train" / f"c{number // 2:02}" / f"{number}.png")
    examined = examine(tmp_path, need=("train",))
    shown = page(examined, report_on(examined, Limits())).partition("Some of train")[2]
    assert shown.count("<figure>") == 8 and "<b>c00</b>" in shown and "<b>c11</b>" in shown


# the sheet


SMALL = IMAGENET.at(32)


def test_a_sheet_shows_each_sample_beside_its_source(root):
    folder = ImageFolder(root / "train")
    drawn = sheet(folder, EvalTransform(SMALL), SMALL, count=4)
    assert drawn.mode == "RGB" and drawn.width > 4 * 180
    again = sheet(folder, EvalTransform(SMALL), SMALL, count=4)
    assert again.tobytes() == drawn.tobytes()
    assert sheet(folder, EvalTransform(SMALL), SMALL, count=4, seed=1).tobytes() != drawn.tobytes()


def test_a_sheet_takes_every_class_before_a_second_of_any(root):
    seen: list[int] = []

    def noted(image: Image.Image) -> torch.Tensor:
        seen.append(image.getpixel((0, 0))[0])  # type: ignore[index]
        return torch.zeros(3, 8, 8)

    folder = ImageFolder(root / "train")
    of = {folder.read(i).getpixel((0, 0))[0]: int(folder.labels[i]) for i in range(len(folder))}  # type: ignore[index]
    sheet(folder, noted, Preprocessing(size=(8, 8), resize=8), count=2)
    assert {of[red] for red in seen} == {0, 1}


def test_a_sheet_of_gray_and_odd_names(root):
    (root / "train" / "cat").rename(root / "train" / "猫 with a very long name that does not fit at all")
    gray = Preprocessing(size=(16, 16), resize=16, mean=(0.5,), std=(0.5,), channels="gray")
    assert sheet(ImageFolder(root / "train"), EvalTransform(gray), gray, count=3).mode == "RGB"


def test_a_sheet_leaves_out_what_cannot_be_read(root):
    for path in sorted((root / "train").rglob("*.png"))[:-1]:
        path.write_bytes(b"")
    assert sheet(ImageFolder(root / "train"), EvalTransform(SMALL), SMALL, count=4).height < 300
    next((root / "train").rglob("5.png")).write_bytes(b"")
    (root / "train" / "dog" / "5.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the pictures for the sheet can be read"):
        sheet(ImageFolder(root / "train"), EvalTransform(SMALL), SMALL)
    with pytest.raises(ValueError, match="count=0"):
        sheet(ImageFolder(root / "train"), EvalTransform(SMALL), SMALL, count=0)


# real photographs


@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"the photographs are not at {PHOTOS}")
def test_copies_of_photographs_are_found_and_different_ones_are_not():
    folder = ImageFolder(PHOTOS / "val")
    images = [folder.read(place) for place in range(0, len(folder), 4)]
    copies = []
    for image in images[:40]:
        half = image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
        half.save(stream := io.BytesIO(), "JPEG", quality=50)
        copies.append(Image.open(stream).convert("RGB"))
    seen = [looks.described(image, bytes(16), "") for image in [*images, *copies]]
    hashes = np.array([one.hash for one in seen], np.uint64)
    thumbs = np.array([np.frombuffer(one.thumb, np.uint8) for one in seen])
    found = {group.places for group in near_copies(hashes, thumbs, np.ones(len(seen), bool))}
    right = {(place, len(images) + place) for place in range(40)}
    assert len(found & right) >= 38 and not found - right
