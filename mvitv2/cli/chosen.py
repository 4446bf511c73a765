"""From the words of ``mvitv2 train`` to the recipe and the settings of a run."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from mvitv2.aliases import variant_name
from mvitv2.cli.failures import UsageError, one_line
from mvitv2.cli.train import Options
from mvitv2.train.recipe import Recipe, overridden
from mvitv2.train.recipes import RECIPES, recipe
from mvitv2.train.settings import Settings, default_workers

SHORT = {
    "pretrained": ("weights", "pretrained"),
    "amp": ("precision", "bf16"),
    "model_ema": ("ema_decay", 0.9998),
}
"""Switches, and the field of the recipe that they set."""
AUGMENTATION = {"aa": "augmentation.policy", "reprob": "augmentation.erase_probability"}


def chosen_recipe(options: Options) -> Recipe:
    """The recipe that is meant, with what the command line changes.

    Raises:
        UsageError: Two options contradict each other.
        ValueError: There is no such recipe, or the changes make none.
    """
    base, changes = base_recipe(options), changes_of(options)
    if {"model", "weights"} & set(changes):
        # a recipe's own architecture is for its own model
        changes = {"stages": {}, "model_fields": {}, **changes}
    return overridden(base, with_warmup(changes, base))


def with_warmup(changes: dict[str, Any], base: Recipe) -> dict[str, Any]:
    """For other epochs than the recipe's, a warm-up that keeps its part of them, unless it is said."""
    if "epochs" not in changes or "warmup_epochs" in changes:
        return changes
    return {**changes, "warmup_epochs": base.warmup_epochs * changes["epochs"] / base.epochs}


def base_recipe(options: Options) -> Recipe:
    """The recipe that is named, or the one for what is to be done."""
    if options.recipe is not None:
        return from_file(Path(options.recipe)) if Path(options.recipe).is_file() else recipe(options.recipe)
    if options.model is not None and Path(options.model).is_file():
        raise UsageError(f"--model {options.model} is a file; --weights starts from it, and it says what the model is")
    if options.data == "digits":
        return recipe("digits")
    if options.pretrained or options.weights is not None:
        return recipe("fine_tune")
    model = variant_name(options.model) if options.model is not None else None
    return next(
        (found for found in RECIPES.values() if found.model == model and not found.stages), recipe("imagenet_t")
    )


def from_file(path: Path) -> Recipe:
    """A recipe that a run has written, or a YAML file of the same fields.

    Raises:
        ValueError: It is no mapping, or not of a recipe's fields.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is neither JSON nor YAML: {one_line(str(error))}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, expected the fields of a recipe")
    return Recipe.from_dict(values)


def changes_of(options: Options) -> dict[str, Any]:
    """Fields of the recipe that the command line sets.

    Raises:
        UsageError: One is set twice, in different ways.
    """
    changes = {f.name: v for f in fields(Recipe) if (v := getattr(options, f.name, None)) is not None}
    extra = [(field, value) for name, (field, value) in SHORT.items() if getattr(options, name)]
    extra += [(field, v) for name, field in AUGMENTATION.items() if (v := getattr(options, name)) is not None]
    extra += in_words(options.set).items()
    for name, value in extra:
        if name in changes and changes[name] != value:
            raise UsageError(f"{name} is set twice, to {changes[name]!r} and to {value!r}")
        changes[name] = value
    return changes


def in_words(items: tuple[str, ...]) -> dict[str, str]:
    """``FIELD=VALUE`` by field; of several for one field, the last.

    Raises:
        UsageError: A word has no value.
    """
    if wrong := [item for item in items if "=" not in item]:
        raise UsageError(f"--set {' '.join(wrong)}: expected FIELD=VALUE, such as augmentation.flip=0")
    return {name: value for name, _, value in (item.partition("=") for item in items)}


def settings_of(options: Options) -> Settings:
    """Where and how the run is carried out."""
    workers = options.workers if options.workers is not None else 0 if options.data == "digits" else default_workers()
    return Settings(
        output=options.output or Path("runs") / Path(options.data).resolve().name,
        device=options.device,
        workers=workers,
        resume={"true": "must", "false": "never"}.get(options.resume, options.resume),
        save_minutes=options.save_minutes,
        log_steps=options.log_steps,
        deterministic={"auto": None, "yes": True, "no": False}[options.deterministic],
    )
