"""Columns line up, lose nothing, and keep what they show from steering the terminal."""

import json

from mvitv2.cli.conventions import conventions, meanings
from mvitv2.cli.output import columns, millions, print_json, sizes
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


def test_numbers() -> None:
    assert millions(24_173_320) == "24.2M"
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
