"""Files of objects grow, survive being cut at any place, and lose no object of a picture or frame of a clip."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from mvitv2.tasks import records
from mvitv2.tasks.found import Found, ObjectsFound
from mvitv2.tasks.object_records import COLUMNS, opened_objects
from mvitv2.tasks.records import Done

DISC = Found("disc", 1, 7, 0.75, (1.0, 2.0, 30.5, 40.0), {"size": [60, 80], "counts": "abc"})
BLOCK = Found('a, "block"', 0, 3, 0.5, (5.0, 6.0, 7.0, 8.0))
ANSWERS = [
    ObjectsFound("one, two.png", (DISC, BLOCK, DISC), (60, 80)),
    ObjectsFound("nothing.png", (), (60, 80)),
    ObjectsFound("broken.png", error="is empty"),
    *(ObjectsFound("film.mp4", (DISC,) * count, (60, 80), None, count, count / 10) for count in range(3)),
    ObjectsFound("film.mp4", error="ends early"),
    ObjectsFound("last.png", (BLOCK, BLOCK), (60, 80)),
]


def written(path: Path, answers: list[ObjectsFound]) -> list[str]:
    """Write what is not there yet; gives the names that were."""
    file = opened_objects(path, resume=True)
    before = list(file.names())
    done = Done(before)
    for answer in answers:
        if answer.file not in done:
            file.write(answer.to_dict())
    file.close()
    return before


def content(path: Path) -> Any:
    if path.is_dir():
        parquet = pytest.importorskip("pyarrow.parquet")
        return [row for part in sorted(path.glob("part-*")) for row in parquet.read_table(part).to_pylist()]
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_cut_anywhere_it_ends_as_if_it_never_was(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"objects{suffix}"
    written(path, ANSWERS)
    whole = path.read_bytes()
    for cut in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:cut])
        written(path, ANSWERS)
        assert path.read_bytes() == whole, cut


@pytest.mark.parametrize("suffix", records.SUFFIXES)
@pytest.mark.parametrize("there", range(len(ANSWERS) + 1))
def test_what_is_last_is_looked_at_again(
    tmp_path: Path, suffix: str, there: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "PART_ROWS", 2)  # a film's frames lie in several parts
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path, other = tmp_path / f"objects{suffix}", tmp_path / f"other{suffix}"
    written(other, ANSWERS)
    written(path, ANSWERS[:there])
    before = set(written(path, ANSWERS))
    names = [answer.file for answer in ANSWERS[:there]]
    assert before == {name for name in names if name != names[-1]}
    assert content(path) == content(other)


def test_rows_and_lines(tmp_path: Path) -> None:
    written(tmp_path / "a.csv", ANSWERS)
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert len(rows) == 3 + 1 + 1 + (1 + 1 + 2) + 1 + 2 and tuple(rows[0]) == COLUMNS
    assert rows[0]["class"] == "disc" and rows[0]["right"] == "30.5" and rows[0]["frame"] == ""
    assert rows[3]["class"] == "" and rows[4]["error"] == "is empty"
    assert [row["frame"] for row in rows[5:9]] == ["0", "1", "2", "2"] and rows[8]["seconds"] == "0.2"
    written(tmp_path / "a.jsonl", ANSWERS)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines == [answer.to_dict() for answer in ANSWERS]
    assert "frame" not in lines[0] and lines[5]["frame"] == 2 and lines[5]["objects"][0]["mask"]["counts"] == "abc"


def test_a_table_of_parts(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    written(tmp_path / "a.parquet", ANSWERS)
    rows = content(tmp_path / "a.parquet")
    assert [row["file"] for row in rows] == [answer.file for answer in ANSWERS]
    assert rows[0]["class"] == ["disc", BLOCK.name, "disc"] and rows[0]["bottom"] == [40.0, 8.0, 40.0]
    assert len(rows[0]["mask"]) == 2 and json.loads(rows[0]["mask"][0])["counts"] == "abc" and rows[5]["frame"] == 2


def test_files_of_something_else_stay_as_they_are(tmp_path: Path) -> None:
    for name, text, message in (
        ("a.csv", "file,error,class_1\nx.png,,cat\n", "has other columns than file, error"),
        ("a.jsonl", '{"file": "a"}\nnot json\n', "has a line that is no answer: b'not json"),
        ("b.jsonl", "[1]\n", "has a line that is no answer"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message):
            opened_objects(tmp_path / name, resume=True)
        assert (tmp_path / name).read_text() == text
        with pytest.raises(ValueError, match="exists already; --resume goes on"):
            opened_objects(tmp_path / name, resume=False)
    with pytest.raises(ValueError, match=r"objects are written as \.jsonl, \.csv, \.parquet"):
        opened_objects(tmp_path / "a.txt", resume=False)
