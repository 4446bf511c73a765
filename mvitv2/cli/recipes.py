"""``mvitv2 recipes``: published and own ways to train."""

from dataclasses import dataclass

from tyro.conf import Positional

from mvitv2.cli.output import columns, print_json

EXAMPLES = """\
  mvitv2 recipes
  mvitv2 recipes fine_tune           # every number of it
  mvitv2 recipes imagenet_t --json > mine.json && mvitv2 train photos --recipe mine.json
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which recipe, and how to print it."""

    name: Positional[str] = ""
    """One recipe, to be shown with all its numbers."""
    json: bool = False
    """Print JSON, as `mvitv2 train --recipe FILE` reads it."""


def run(options: Options) -> int:
    """Print one line per recipe, or all of one."""
    from mvitv2.train.recipes import RECIPES, recipe

    chosen = [recipe(options.name)] if options.name else list(RECIPES.values())
    if options.json:
        print_json(chosen[0].to_dict() if options.name else [one.to_dict() for one in chosen])
    elif options.name:
        print(columns([(name, value) for name, value in chosen[0].to_dict().items()]))
    else:
        rows = [(one.name, one.model, one.epochs, one.img_size, one.source) for one in chosen]
        print(columns([("NAME", "MODEL", "EPOCHS", "PIXELS", "SOURCE"), *rows], right=(2, 3)))
    return 0
