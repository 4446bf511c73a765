"""Recipes are data: checked, overridable from words, the same after a trip through JSON."""

import json

import pytest

from mvitv2.tasks.detect.variants import DETECTORS
from mvitv2.train.recipe import Recipe, differences, overridden
from mvitv2.train.recipes import RECIPES, recipe
from mvitv2.variants import VARIANTS


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name: str) -> None:
    one = recipe(name)
    assert one.name == name
    assert one.source
    assert Recipe.from_dict(json.loads(json.dumps(one.to_dict()))) == one


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_of_a_model_that_there_is_and_says_whose_it_is(name: str) -> None:
    one = recipe(name)
    assert one.model in {**VARIANTS, **DETECTORS}
    assert one.source.startswith(("ours", "facebookresearch/", "SlowFast", "detectron2 ", "no file was published"))


def test_the_authors_numbers() -> None:
    one = recipe("imagenet_b")
    assert (one.model, one.epochs, one.warmup_epochs, one.lr, one.lr_batch) == ("mvitv2_b", 300, 70, 2.5e-4, 256)
    assert (one.weight_decay, one.clip_norm, one.mixup, one.cutmix, one.label_smoothing) == (0.05, 1.0, 0.8, 1.0, 0.1)


def test_words_of_a_command_line_become_values() -> None:
    words = {"lr": "1e-3", "clip_norm": "none", "compile": "True", "stages.depths": "1,1,2", "epochs": "100"}
    one = overridden(recipe("imagenet_t"), {**words, "betas": "0.9,0.95", "augmentation.policy": "none"})
    assert (one.lr, one.clip_norm, one.compile, one.epochs, one.betas) == (1e-3, None, True, 100, (0.9, 0.95))
    assert one.stages == {"depths": (1, 1, 2)}
    assert one.augmentation == {"kind": "published", "policy": None}


def test_a_name_that_looks_like_a_number_stays_text() -> None:
    one = overridden(Recipe(), {"weights": "1e5", "name": "7"})
    assert (one.weights, one.name) == ("1e5", "7")
    assert overridden(one, {"weights": "none"}).weights is None


def test_unknown_fields_are_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'learning_rat', 'epoch' \(did you mean 'epochs'\?\); there are name"):
        overridden(Recipe(), {"learning_rat": 1, "epoch": 2})
    with pytest.raises(ValueError, match="lr is one value, not a mapping"):
        overridden(Recipe(), {"lr.peak": 1})
    with pytest.raises(ValueError, match=r"no recipe 'digit' \(did you mean 'digits'\?\)"):
        recipe("digit")


def test_all_offences_are_told_at_once() -> None:
    with pytest.raises(
        ValueError, match=r"lr=-1\.0 must be 0 or more; label_smoothing=1\.0 must be at least 0 and below"
    ):
        overridden(Recipe(), {"lr": -1, "label_smoothing": 1})
    with pytest.raises(ValueError, match=r"epochs=1\.5 must be a whole number; seed='x' must be a whole number"):
        overridden(Recipe(), {"epochs": 1.5, "seed": "x"})
    with pytest.raises(ValueError, match="warmup_epochs=70 is longer than epochs=3"):
        overridden(Recipe(), {"epochs": 3})
    with pytest.raises(ValueError, match="exclude each other"):
        overridden(Recipe(), {"clip_value": 1.0})
    with pytest.raises(ValueError, match="optimizer='adam' is none of 'adamw', 'sgd'"):
        overridden(Recipe(), {"optimizer": "adam"})
    with pytest.raises(ValueError, match=r"augmentation\.kind='timm' is none of"):
        overridden(Recipe(), {"augmentation.kind": "timm"})


def test_differences_leave_out_labels() -> None:
    one = recipe("imagenet_t")
    other = overridden(one, {"name": "mine", "source": "me", "lr": 1.0})
    assert differences(one.to_dict(), other.to_dict()) == ["lr: 0.00025 -> 1.0"]
