"""Configurations from files: a value of the wrong kind is named with its field, whatever it is."""

import json
import random
from dataclasses import fields
from typing import Any

import pytest

from mvitv2.core.config import BlockConfig, MViTConfig
from mvitv2.variants import VARIANTS
from mvitv2.weights.plain import check_sizes, fits, stored_card, stored_config, wrong_kinds
from mvitv2.weights.rename import DialectError
from tests import tiny


def through_json(config: MViTConfig) -> dict[str, Any]:
    return json.loads(json.dumps(config.to_dict()))


@pytest.mark.parametrize("name", VARIANTS)
def test_there_and_back(name: str) -> None:
    assert stored_config(through_json(VARIANTS[name])) == VARIANTS[name]


ANY = [None, True, 0, -1, 1.5, float("nan"), 10**30, "abc", [], [1], [1, 2, 3], [0, 0], ["a", "b"], {}, {"a": 1}, [[1]]]


@pytest.mark.parametrize("form", tiny.FORMS)
@pytest.mark.parametrize("seed", range(40))
def test_any_value_anywhere_is_a_model_or_one_error(form: str, seed: int) -> None:
    choose = random.Random(f"{form} {seed}")
    values = through_json(tiny.FORMS[form]())
    place = values if choose.random() < 0.5 else choose.choice(values["blocks"])
    place[choose.choice(list(place))] = choose.choice(ANY)
    try:
        config = stored_config(values)
    except DialectError as error:
        assert "its configuration" in str(error)
    else:
        assert isinstance(config, MViTConfig)


def test_all_offenders_are_named() -> None:
    values = through_json(tiny.image())
    values |= {"input_size": 64, "readout": "best", "norm_eps": "small"}
    values["blocks"][0] = "none"
    del values["blocks"][1]["dim_in"]
    with pytest.raises(DialectError, match=r"blocks=.*, input_size=64, norm_eps=small, readout=best"):
        stored_config(values)
    assert wrong_kinds(values["blocks"][1], BlockConfig) == ["dim_in is missing"]


def test_fields_of_the_future_are_left_to_the_config() -> None:
    with pytest.raises(DialectError, match=r"\['telepathy'\] are no fields of MViTConfig"):
        stored_config({**through_json(tiny.image()), "telepathy": True})


def test_thousands_of_blocks() -> None:
    values = through_json(tiny.image())
    values["blocks"] = values["blocks"][:1] * 600
    with pytest.raises(DialectError, match="600 blocks, more than 512"):
        stored_config(values)


@pytest.mark.parametrize(
    "change", [{"dim_in": 0}, {"q_stride": (0, 0)}, {"kv_kernel": (-1, 3)}, {"table_rows": (0, 3)}]
)
def test_sizes_of_no_extent(change: dict[str, Any]) -> None:
    values = through_json(tiny.image())
    values["blocks"][0] |= change
    with pytest.raises(DialectError, match=r"makes no model: .*(must be 1 or more|is not|at least)"):
        stored_config(values)


def test_grids_of_no_extent() -> None:
    with pytest.raises(ValueError, match="the grid of block 0"):
        check_sizes(tiny.image(patch_kernel=(40, 40), patch_padding=(0, 0)))


def test_cards() -> None:
    assert stored_card({"classes": ["a"], "mine": 3, "provenance": None}) == {"classes": ["a"], "mine": 3}
    for wrong in ([], {"classes": "ab"}, {"classes": [1]}, {"preprocessing": [224]}, {"pyramid": "sum"}):
        with pytest.raises(DialectError, match="its card"):
            stored_card(wrong)


def test_kinds() -> None:
    kinds = {entry.name: entry.type for entry in fields(MViTConfig)}
    assert fits([1, 2], kinds["input_size"]) and not fits([1, 2.0], kinds["input_size"])
    assert fits(None, kinds["layer_scale"]) and fits(0.1, kinds["layer_scale"])
    assert not fits(True, kinds["num_classes"]) and not fits(1, kinds["class_token"])
    assert not fits(["conv"], kinds["pool_mode"]) and not fits(float("inf"), kinds["norm_eps"])
