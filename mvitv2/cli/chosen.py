"""From the words of ``mvitv2 train`` to the recipe and the settings of a run."""

import os
import warnings
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mvitv2.aliases import variant_name
from mvitv2.cli.failures import UsageError, one_line
from mvitv2.cli.train import Options
from mvitv2.train import trackers
from mvitv2.train.folder import read_run
from mvitv2.train.official import Understood, understood, with_overrides
from mvitv2.train.recipe import Recipe, overridden
from mvitv2.train.recipes import RECIPES, recipe
from mvitv2.train.settings import RESUME, Settings, default_workers
from mvitv2.variants import VARIANTS

if TYPE_CHECKING:
    import torch

SHORT = {
    "pretrained": ("weights", "pretrained"),
    "bce_loss": ("loss", "bce"),
    "no_aug": ("augmentation.kind", "none"),
    "amp": ("precision", "bf16"),
    "model_ema": ("ema_decay", 0.9998),
}
"""Switches, and the field of the recipe that they set."""
INSIDE = {
    "aa": "augmentation.policy",
    "reprob": "augmentation.erase_probability",
    "num_frames": "preprocessing.num_frames",
    "sampling_rate": "preprocessing.sampling_rate",
}
"""Options, and the entry of the recipe that they set."""


BY_HEART: dict[str, Any] = {
    "augmentation": {"kind": "none"},
    "mixup": 0.0,
    "cutmix": 0.0,
    "label_smoothing": 0.0,
    "drop_path": 0.0,
    "repeats": 1,
}
"""What else ``--overfit-batches`` sets, unless it is said: nothing that keeps a model from learning by heart."""
AS_MEASURED: dict[str, dict[str, Any]] = {
    "detect": {"kind": "resize"},
    "segment": {"kind": "resize"},
    "actions": {"kind": "published", "flip": 0.0},
}
"""The same where there are boxes, by task."""
SAME_FIELDS = {"published", "device"}
"""Kinds of augmentation whose fields mean the same: one is done by loading processes, the other where the model is."""


def chosen(options: Options) -> tuple[Options, Recipe]:
    """The options with the data that a file of theirs names, and the recipe that is meant.

    Raises:
        UsageError: There is no data, or two options contradict each other.
        ValueError: There is no such recipe, or the changes make none.
    """
    found = from_official(options.cfg) if options.cfg else None
    if found is not None:
        for one in found.left_out:
            warnings.warn(f"--cfg: {one} has no place here and is left out", stacklevel=2)
        options = replace(options, data=options.data or found.data)
    if not options.data:
        raise UsageError("train needs DATA (mvitv2 train --help)")
    return options, chosen_recipe(options, found.recipe if found is not None else None)


def chosen_recipe(options: Options, base: Recipe | None = None) -> Recipe:
    """The recipe that is meant, with what the command line changes.

    Args:
        options: What stands there.
        base: Where to start; the recipe that is named, or the one for what is to be done, if not given.

    Raises:
        UsageError: Two options contradict each other.
        ValueError: There is no such recipe, or the changes make none.
    """
    base, changes = base or base_recipe(options), changes_of(options)
    if changes.get("overfit_batches") is not None:
        said = {name.partition(".")[0] for name in changes}
        by_heart = {**BY_HEART, "augmentation": AS_MEASURED.get(base.task, BY_HEART["augmentation"])}
        changes |= {name: value for name, value in by_heart.items() if name not in said}
    if "augmentation.kind" in changes and not {changes["augmentation.kind"], base.augmentation["kind"]} <= SAME_FIELDS:
        # the fields of one kind are not those of another
        changes = {"augmentation": {"kind": base.augmentation["kind"]}, **changes}
    if {"model", "weights"} & set(changes):
        # a recipe's own architecture is for its own model
        changes = {"stages": {}, "model_fields": {}, **changes}
    made = overridden(base, with_warmup(changes, base))
    if made.weights is None and (made.adapters or "backbone" in made.freeze):
        raise UsageError(
            f"recipe {made.name} leaves the backbone as it is: start from weights, --pretrained or --weights FILE"
        )
    return made


def from_official(words: tuple[str, ...]) -> Understood:
    """A configuration file of the authors or of SlowFast, with ``KEY VALUE`` pairs.

    Raises:
        ValueError: It cannot be read, or is not of a model for images.
    """
    path, *pairs = words
    try:
        cfg = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--cfg {path} is no YAML: {one_line(str(error))}") from error
    if not isinstance(cfg, dict):
        raise ValueError(f"--cfg {path} holds a {type(cfg).__name__}, expected sections such as MVIT and SOLVER")
    return understood(with_overrides(cfg, pairs), name=Path(path).stem)


def is_automatic(options: Options) -> bool:
    """Whether the batch size is to be found (Ultralytics: -1)."""
    return options.batch_size in ("auto", -1)


def with_batch_size(options: Options, recipe: Recipe, settings: Settings, device: "torch.device") -> Recipe:
    """The recipe with the batch size that the machine can do, where that is asked for; of a run that exists, its own.

    Raises:
        UsageError: Several processes train together: each might find another one.
    """
    if not is_automatic(options):
        return recipe
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--batch-size auto is for one process; find it with one (--dry-run tells), then give a number")
    if saved := read_run(settings.output)["recipe"]:
        return replace(recipe, batch_size=saved["batch_size"], accumulation=saved["accumulation"])
    from mvitv2.train.jobs import job_for
    from mvitv2.train.probing import automatic

    return automatic(job_for(options.data, recipe, settings), recipe, device, print)


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
    if options.task in ("detect", "segment"):
        return recipe("detect_small")
    if options.data == "digits":
        return recipe("digits")
    model = variant_name(options.model) if options.model is not None else None
    task = options.task or (task_of(model) if model is not None else "classify")
    if task in ("classify", "video") and (options.pretrained or options.weights is not None):
        return fine_tuning(model, options.weights)
    whole = (r for r in RECIPES.values() if not r.stages and r.weights is None)
    if (found := next((r for r in whole if (r.model, r.task) == (model, task)), None)) is not None:
        return found
    return recipe({"classify": "imagenet_t", "video": "k400_s", "maskfeat": "maskfeat_s", "actions": "ava"}[task])


def task_of(model: str) -> str:
    """What a model of that name is trained for, where nothing else is said."""
    return "video" if VARIANTS[model].rank == len("thw") else "classify"


def fine_tuning(model: str | None, weights: str | None) -> Recipe:
    """The recipe for going on from weights: of clips where the model, or else the file, is of clips."""
    if model is None and weights is not None and Path(weights).is_file():
        model = variant_in(weights)
    if model is None or task_of(model) == "classify":
        return recipe("fine_tune")
    return overridden(recipe("clips_fine_tune"), {"model": model})


def variant_in(weights: str) -> str | None:
    """The model of clips that a file's weights are of, or one that stands for it; ``None`` for pictures.

    A file of a small model of one's own brings its architecture itself.
    """
    from mvitv2.weights.card import variant_of
    from mvitv2.weights.opened import open_weights

    config = open_weights(weights).config
    return None if config.rank == len("hw") else variant_of(config) or "mvitv2_s_16x4"


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
    extra += [(field, v) for name, field in INSIDE.items() if (v := getattr(options, name)) is not None]
    extra += in_words(options.set).items()
    if is_automatic(options):
        changes.pop("batch_size", None)
    if options.progressive is not None:
        changes["progressive"] = by_epoch(options.progressive)
    for name, value in extra:
        if name in changes and changes[name] != value:
            raise UsageError(f"{name} is set twice, to {changes[name]!r} and to {value!r}")
        changes[name] = value
    return changes


def by_epoch(words: tuple[str, ...]) -> dict[str, int]:
    """``1:128 20:160`` as sizes by epoch.

    Raises:
        UsageError: A word is no EPOCH:SIZE.
    """
    parts = [word.split(":") for word in words]
    if not all(len(part) == 2 and all(one.isdecimal() for one in part) for part in parts):
        raise UsageError(f"--progressive {' '.join(words)}: expected EPOCH:SIZE, such as 1:128 20:160")
    return {epoch: int(size) for epoch, size in parts}


def in_words(items: tuple[str, ...]) -> dict[str, str]:
    """``FIELD=VALUE`` by field; of several for one field, the last.

    Raises:
        UsageError: A word has no value.
    """
    if wrong := [item for item in items if "=" not in item]:
        raise UsageError(f"--set {' '.join(wrong)}: expected FIELD=VALUE, such as augmentation.flip=0")
    return {name: value for name, _, value in (item.partition("=") for item in items)}


def settings_of(options: Options) -> Settings:
    """Where and how the run is carried out.

    Raises:
        ValueError: ``--log`` names no tracker.
        ImportError: Or one whose library is missing.
    """
    trackers.chosen(options.log)  # told now, before the data is read
    workers = options.workers if options.workers is not None else 0 if options.data == "digits" else default_workers()
    output, resume = resumed(options)
    return Settings(
        output=output,
        device=f"cuda:{options.device}" if options.device.isdecimal() else options.device,
        workers=workers,
        resume=resume,
        save_minutes=options.save_minutes,
        save_steps=options.save_steps,
        log_steps=options.log_steps,
        deterministic={"auto": None, "yes": True, "no": False}[options.deterministic],
        parallel=options.parallel,
        timeout_minutes=options.timeout_minutes,
        mirror=options.mirror,
    )


def resumed(options: Options) -> tuple[Path, str]:
    """Folder of the run, and whether to go on with what is in it; a checkpoint's path says both.

    Raises:
        UsageError: The path and ``--output`` are two folders.
    """
    folder = options.output or Path("runs") / Path(options.data).resolve().name
    known = {"true": "must", "false": "never"}
    if options.resume in (*RESUME, *known):
        return folder, known.get(options.resume, options.resume)
    path = Path(options.resume)
    there = path if path.is_dir() else path.parent
    if not path.exists():
        raise UsageError(f"--resume {path}: expected auto, must, never, or the checkpoint of a run")
    if options.output is not None and there.resolve() != options.output.resolve():
        raise UsageError(f"--resume {path} is not in --output {options.output}; a run goes on in its own folder")
    return there, "must"
