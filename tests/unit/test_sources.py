"""Sources: files, folders, patterns and standard input as one stream that leaves nothing out without a word."""

import os
from collections import Counter
from io import BytesIO
from pathlib import Path

import pytest

from mvitv2.data.sources import PathStream, Problem, expand, natural_key, suffix_counts, walk


def names(items) -> list[str]:
    """The last part of each path, and the reason of each problem."""
    return [item.name if isinstance(item, Path) else f"!{item.reason}" for item in items]


def test_natural_order():
    given = ["img10", "img2", "IMG1", "a", "2", "10", "img2b"]
    assert sorted(given, key=natural_key) == ["2", "10", "a", "IMG1", "img2", "img2b", "img10"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files and folders with traps."""
    for name in (
        "1.jpg",
        "10.jpg",
        "2.jpg",
        "notes.txt",
        ".hidden.jpg",
        "b/3.png",
        "b/c/4.WEBP",
        ".git/5.jpg",
        "[x].jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_folder_is_walked_in_natural_order(tree):
    assert names(expand(str(tree))) == ["1.jpg", "2.jpg", "10.jpg", "[x].jpg", "3.png", "4.WEBP"]
    assert len(list(walk(tree, suffixes=None))) == 7


def test_a_file_is_taken_whatever_its_name(tree):
    assert names(expand(str(tree / "notes.txt"))) == ["notes.txt"]
    assert names(expand(str(tree / ".hidden.jpg"))) == [".hidden.jpg"]
    assert names(expand(str(tree / "[x].jpg"))) == ["[x].jpg"], "a name that exists is no pattern"


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("*.jpg", ["1.jpg", "2.jpg", "10.jpg", "[x].jpg"]),
        ("[0-9].jpg", ["1.jpg", "2.jpg"]),
        ("?0.jpg", ["10.jpg"]),
        ("*", ["1.jpg", "2.jpg", "10.jpg", "[x].jpg", "3.png", "4.WEBP", "notes.txt"]),
        ("b*", ["3.png", "4.WEBP"]),
        ("*/*.png", ["3.png"]),
        ("**/*.png", ["3.png"]),
        ("**/*", ["1.jpg", "2.jpg", "10.jpg", "[x].jpg", "notes.txt", "3.png", "4.WEBP"]),
        ("**", ["1.jpg", "2.jpg", "10.jpg", "[x].jpg", "3.png", "4.WEBP", "notes.txt"]),
        ("**/**/*.WEBP", ["4.WEBP"]),
        (".h*", [".hidden.jpg"]),
        ("b/../1.*", ["1.jpg"]),
        ("*.gif", ["!matches nothing"]),
        ("z*/*.jpg", ["!matches nothing"]),
    ],
)
def test_patterns(tree, pattern, expected):
    assert sorted(names(expand(f"{tree}/{pattern}"))) == sorted(expected)


def test_patterns_below_the_current_folder(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert [str(path) for path in expand("*.jpg")] == ["1.jpg", "2.jpg", "10.jpg", "[x].jpg"]
    assert [str(path) for path in expand("b/**/*.WEBP")] == ["b/c/4.WEBP"]


def test_what_is_missing_is_reported_with_its_neighbours(tree):
    stream = PathStream([str(tree / "1.jgp"), tree / "2.jpg", str(tree / "none*"), "a\0b"])
    assert names(stream) == ["2.jpg"]
    assert (stream.found, stream.num_problems) == (1, 3)
    assert stream.problems[0].source == str(tree / "1.jgp")
    assert stream.problems[0].reason.startswith("does not exist (did you mean '1.jpg'")


def test_a_folder_without_images_says_what_is_in_it(tmp_path):
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.txt").touch()
    (tmp_path / "readme").touch()
    stream = PathStream([tmp_path])
    assert list(stream) == []
    reason = "is a folder without images: 3 other files (2 .txt, 1 without suffix) in it"
    assert stream.problems == [Problem(str(tmp_path), reason)]
    assert stream.ignored == Counter({".txt": 2, "": 1})
    assert suffix_counts(Counter()) == "no files"


def test_names_from_standard_input(tree):
    lines = f"{tree}/1.jpg\n\n{tree}/b\r\n{tree}/nothing\n{tree}/*.txt".encode()
    stream = PathStream(["-", str(tree / "2.jpg")], stdin=BytesIO(lines))
    assert names(stream) == ["1.jpg", "3.png", "4.WEBP", "notes.txt", "2.jpg"]
    assert stream.num_problems == 1


def test_any_bytes_are_a_name(tmp_path):
    name = b"\xff\xfe.jpg"
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    stream = PathStream(["-"], stdin=BytesIO(os.fsencode(tmp_path) + b"/" + name + b"\n"))
    assert [os.fsencode(path.name) for path in stream] == [name]


def test_links_in_circles_end(tree):
    (tree / "b" / "up").symlink_to(tree)
    (tree / "b" / "self").symlink_to(".")
    (tree / "other").symlink_to(tree / "b")
    found = names(expand(str(tree)))
    assert found.count("1.jpg") == 1 and found.count("3.png") == 2, "a linked folder is read, a circle is not"
    assert names(expand(f"{tree}/**/*.png")) == ["3.png"]


def test_dangling_links_and_pipes_come_out_for_their_reader_to_refuse(tree):
    (tree / "b" / "gone.jpg").symlink_to("nowhere")
    os.mkfifo(tree / "b" / "pipe.jpg")
    assert names(expand(str(tree / "b"))) == ["3.png", "4.WEBP", "gone.jpg", "pipe.jpg"]


def test_a_folder_that_cannot_be_listed_is_reported_and_the_rest_read(tree, monkeypatch):
    scandir = os.scandir

    def guarded(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", guarded)
    stream = PathStream([tree])
    assert names(stream) == ["1.jpg", "2.jpg", "10.jpg", "[x].jpg"]
    assert stream.problems == [Problem(str(tree / "b"), "cannot be listed (Permission denied)")]


def test_problems_are_kept_in_bounded_number(tmp_path):
    stream = PathStream(str(tmp_path / f"{i}.jpg") for i in range(300))
    assert list(stream) == [] and stream.num_problems == 300 and len(stream.problems) == 100
