"""From a recipe to a detector and its job: published recipes make published detectors, rates fall where they did."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mvitv2.tasks.detect.variants import DETECTORS
from mvitv2.train.detection import detector_config, detector_preprocessing_for, train_transform
from mvitv2.train.detection_recipes import PUBLISHED
from mvitv2.train.recipe import Recipe, overridden
from mvitv2.train.recipes import RECIPES
from mvitv2.train.schedule import Schedule

SCHEDULE = Path(__file__).parents[2] / "../shared/parity/detectors/schedule.json"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_makes_the_published_detector(name):
    recipe = RECIPES[name]
    config = DETECTORS[recipe.model]
    assert detector_config(recipe, config.num_classes) == config
    assert recipe.batch_size * recipe.accumulation == 64 and "projects/" in recipe.source
    kind = "multi_scale" if recipe.model.endswith(("mvitv2_t", "mvitv2_s")) else recipe.augmentation["kind"]
    assert recipe.augmentation["kind"] == kind and callable(train_transform(recipe, {}))
    assert detector_preprocessing_for(recipe).resize == (1024 if recipe.model.startswith("vitdet") else 800)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("name", PUBLISHED)
def test_rates_fall_where_they_did(name):
    if not SCHEDULE.is_file():
        pytest.skip(f"needs {SCHEDULE.name} of the shared parity data")
    recipe = RECIPES[name]
    known = json.loads(SCHEDULE.read_text())["schedules"]
    plan = known.get(recipe.model)
    if plan is None:
        pytest.skip(f"{SCHEDULE.name} has no {recipe.model}")
    steps, per_epoch = plan["max_iter"], plan["max_iter"] / recipe.epochs
    warmup = recipe.warmup_epochs * {True: 99388 // 64, False: 117266 // 64}[recipe.sampling == "rare"]
    ours = Schedule(steps, round(warmup), recipe.warmup_lr, recipe.lr, 0.0, "steps", recipe.milestones)
    assert recipe.lr == plan["base_lr"] and per_epoch == pytest.approx(117266 / 64, rel=0.2)
    for iteration, multiplier in zip(plan["iterations"], plan["multiplier"], strict=True):
        # half a warm-up iteration is rounded away in one of the recipes
        assert ours(iteration) == pytest.approx(multiplier * recipe.lr, rel=1e-9 if warmup == 250 else 0.01)


def test_a_small_detector():
    config = detector_config(RECIPES["detect_small"], 3)
    assert config.num_classes == 3 and config.masks and config.backbone.num_stages == 4 and config.head_norm == "LN"
    assert not detector_config(overridden(RECIPES["detect_small"], {"task": "detect"}), 3).masks
    named = overridden(RECIPES["detect_small"], {"model": "cascade_mask_rcnn_mvitv2_t_3x"})
    assert detector_config(named, 3) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "mvitv2_t"}, "there is no detector 'mvitv2_t'"),
        ({"detector": {"pyramid": 3}}, "detector=.*pyramid"),
        ({"model_fields": {"depth": 3}}, "depth"),
        ({"stages": {"depths": (1, 1)}}, "needs one size for each of 3 levels"),
    ],
)
def test_what_makes_no_detector(changes, message):
    with pytest.raises(ValueError, match=message):
        detector_config(replace(RECIPES["detect_small"], **changes), 3)


def test_augmentation_of_another_task():
    with pytest.raises(ValueError, match=r"augmentation.kind='shift' is none of 'multi_scale'"):
        overridden(RECIPES["detect_small"], {"augmentation": {"kind": "shift"}})
    with pytest.raises(ValueError, match="has no such field"):
        train_transform(overridden(RECIPES["detect_small"], {"augmentation": {"kind": "resize", "x": 1}}), {})
    assert train_transform(
        overridden(RECIPES["detect_small"], {"augmentation": {"kind": "resize"}}), {"side": 160, "longest": 320}
    )
    with pytest.raises(ValueError, match="milestones"):
        overridden(RECIPES["detect_small"], {"milestones": (0.9, 0.5)})
