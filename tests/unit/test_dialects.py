"""Names of every codebase: told apart by content, and tables that read both ways."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mvitv2.core.stages import stages
from mvitv2.weights import dialects
from mvitv2.weights.convert import State, depths_of, to_ours, to_theirs
from mvitv2.weights.dialects import DIALECTS, Dialect, detect
from mvitv2.weights.rename import DialectError, Numbering, matcher, renamed, reversed_rules
from tests import tiny

SHARED = {("slowfast", "image"): "official"}
"""SlowFast's image models have the names and, but for one axis of length 1, the shapes of facebookresearch/mvit."""
FORMS = {
    "image": tiny.image(),
    "image_cls": tiny.image(class_token=True, readout="class_token"),
    "image_in_mlp": tiny.image(blocks=stages(depths=(1, 2, 1), embed_dim=8, expand_in="mlp")),
    "clip": tiny.clip(),
    "clip_v1": tiny.clip(abs_pos="separable", rel_pos_spatial=False, rel_pos_temporal=False),
    "detector": tiny.detector(),
    "reversible": tiny.reversible(),
}
SPEAKS = {
    "official": ("image", "image_cls", "image_in_mlp"),
    "slowfast": ("image", "image_cls", "image_in_mlp", "clip", "clip_v1", "reversible"),
    "timm": ("image", "image_cls", "image_in_mlp"),
    "torchvision": ("clip", "clip_v1"),
    "detectron2": ("detector",),
    "mmpretrain": ("image",),
    "mmaction2": ("clip",),
    "pytorchvideo": ("clip_v1",),
}
PAIRS = [(dialect, form) for dialect, forms in SPEAKS.items() for form in forms]


def kind(dialect: str, form: str) -> Dialect:
    """timm names the shortcut after the place where channels double."""
    return dialects.TIMM_MLP if (dialect, form) == ("timm", "image_in_mlp") else DIALECTS[dialect]


def state_of(form: str) -> State:
    return {name: value.clone() for name, value in tiny.model(FORMS[form]).state_dict().items()}


@pytest.mark.parametrize("dialect, form", PAIRS)
def test_names_there_and_back(dialect: str, form: str) -> None:
    ours, config = state_of(form), FORMS[form]
    theirs = to_theirs(ours, kind(dialect, form), config)
    back = to_ours(theirs, kind(dialect, form), depths_of(config)).state
    back = {name.removeprefix("bottom_up."): value for name, value in back.items()}
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], value) for name, value in ours.items())


@pytest.mark.parametrize("dialect, form", PAIRS)
def test_told_by_content(dialect: str, form: str) -> None:
    expected = SHARED.get((dialect, form.partition("_")[0]), dialect)
    for prefix in kind(dialect, form).prefixes:
        theirs = to_theirs(state_of(form), kind(dialect, form), FORMS[form], prefix=prefix)
        assert detect(theirs).name == expected


def test_nobodys_names() -> None:
    with pytest.raises(DialectError, match=r"none of 2 names is an MViT's.*torchvision.*conv1\.weight"):
        detect({"conv1.weight": torch.zeros(1), "layer1.0.bn1.bias": torch.zeros(1)})
    with pytest.raises(DialectError, match="none of 0 names"):
        detect({})


def every_rule() -> list[tuple[Dialect, str, str]]:
    kinds = {id(d): d for d in (*DIALECTS.values(), dialects.TIMM_MLP)}
    return [(d, theirs, ours) for d in kinds.values() for theirs, ours in d.rules]


def test_rules_lose_nothing() -> None:
    """Both sides of a rule have the same fields, or fields that follow from each other."""
    follow = {"block", "stage", "place", "scale", "level", "last"}
    for dialect, theirs, ours in every_rule():
        left, right = (set(re.findall(r"\{(\w+)\}", side)) - follow for side in (theirs, ours))
        assert left == right, (dialect.name, theirs, ours)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_blocks_are_counted_both_ways(depths: list[int]) -> None:
    numbering = Numbering(tuple(depths))
    for block in range(sum(depths)):
        stage, place = numbering.stage_and_place(block)
        assert 0 <= place < depths[stage]
        assert numbering.block(stage, place) == block


def test_strangers_are_all_named() -> None:
    tensors = {name: torch.zeros(1) for name in ("norm.weight", "foo", "bar.baz")}
    with pytest.raises(DialectError, match=r"2 names are no timm MViT names: foo, bar\.baz"):
        renamed(tensors, dialects.TIMM.rules, Numbering((1,)), what="timm")


def test_two_names_for_one_parameter() -> None:
    rules = (("a.{x}", "c.{x}"), ("b.{x}", "c.{x}"))
    with pytest.raises(DialectError, match=r"become 'c\.weight'; the second is 'b\.weight'"):
        renamed({"a.weight": torch.zeros(1), "b.weight": torch.zeros(1)}, rules, Numbering(()), what="their")


def test_a_field_twice_must_be_the_same_twice() -> None:
    assert matcher("{block}.{x}.{block}").fullmatch("3.weight.3")
    assert not matcher("{block}.{x}.{block}").fullmatch("3.weight.4")
    assert not matcher("{q}.{x}").fullmatch("w.weight")


def test_reversed_rules_are_reversed() -> None:
    rules = dialects.TORCHVISION.rules
    assert reversed_rules(reversed_rules(rules)) == rules


def test_the_last_norm_of_openmmlab_is_the_models() -> None:
    state = {"norm1.weight": torch.zeros(1), "norm2.weight": torch.ones(1)}
    ours = to_ours(state, dialects.MMPRETRAIN, (1, 2, 1)).state
    assert set(ours) == {"output_norms.1.weight", "norm.weight"}
    assert ours["norm.weight"].item() == 1


def test_levels_of_detectron2() -> None:
    state = {f"backbone.bottom_up.scale{level}_norm.weight": torch.zeros(1) for level in (2, 5)}
    ours = to_ours(state, dialects.DETECTRON2, ()).state
    assert set(ours) == {"bottom_up.output_norms.0.weight", "bottom_up.output_norms.3.weight"}
