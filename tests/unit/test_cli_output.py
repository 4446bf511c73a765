"""Columns line up, lose nothing, and keep what they show from steering the terminal."""

import json
import logging
from pathlib import Path

import pytest

from mvitv2.cli.conventions import conventions, meanings
from mvitv2.cli.output import check_folder, columns, counter, millions, notes, print_json, sizes
from mvitv2.core.config import MViTConfig
from mvitv2.variants import VARIANTS


def test_columns_line_up() -> None:
    rows = [("NAME", "COUNT"), ("a", 1), ("longer", 1000)]
    assert columns(rows, right=[1]) == "NAME    COUNT\na           1\nlonger   1000"
    assert columns(rows, indent="  ").splitlines()[1] == "  a       1"


def test_rows_may_be_ragged_or_none() -> None:
    assert columns([("a", "b"), ("c",)]) == "a  b\nc"
    assert columns([]) == ""


def test_cells_stay_on_their_line() -> None:
    assert columns([("a\nb\x1b[2J", "c")]) == "a b\\x1b[2J  c"


def test_json_is_ascii(capsys) -> None:
    print_json({"name": "猫\udcff"})
    shown = capsys.readouterr().out
    assert shown.isascii()
    assert json.loads(shown) == {"name": "猫\udcff"}


def test_notes_are_printed_once_and_only_inside(capsys) -> None:
    log = logging.getLogger("mvitv2.weights")
    with notes():
        log.info("%d tables\nresampled", 8)
        log.info("%d tables\nresampled", 8)
        log.debug("not this")
    log.info("nor this")
    assert capsys.readouterr().out == "note: 8 tables resampled\n"


def test_a_folder_that_is_not_there_is_noticed_early(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "x.json", Path("x.json"), Path()):
        check_folder(path)
    with pytest.raises(ValueError, match="there is no folder"):
        check_folder(tmp_path / "none" / "x.json")


def test_nothing_is_drawn_into_a_pipe(capsys) -> None:
    with counter("counting") as told:
        told(1, 2)
    assert capsys.readouterr() == ("", "")


def test_numbers() -> None:
    assert millions(24_173_320) == "24.2M"
    assert millions(5_480) == "5.5k"
    assert sizes((16, 224, 224)) == "16x224x224"


def test_conventions_are_told_in_the_words_of_the_config() -> None:
    told = {name: (value, meaning) for name, value, meaning in conventions(VARIANTS["mvitv2_s_cls"])}
    assert set(told) == {"class_token", "readout"}
    value, meaning = told["readout"]
    assert value == "class_token"
    assert meaning.startswith("What the classifier sees")
    assert conventions(VARIANTS["mvitv2_s"]) == []


def test_a_class_without_source_has_no_meanings() -> None:
    made: dict[str, type] = {}
    exec("class Made:\n    x: int = 1", made)
    assert meanings(made["Made"]) == {}
    assert len(meanings(MViTConfig)) > 10
