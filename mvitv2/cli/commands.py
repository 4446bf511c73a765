"""All commands, as a table; the file of a command is imported when it is called."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from mvitv2.cli.failures import UsageError, did_you_mean


@dataclass(frozen=True)
class Command:
    """One command. Its module holds ``Options`` (a frozen dataclass), ``EXAMPLES``, ``run(options) -> exit code``."""

    name: str
    module: str
    summary: str

    def call(self, words: Sequence[str]) -> int:
        """Parse the words after the command's name and run it."""
        # tyro is needed from here on only
        from mvitv2.cli.arguments import parsed
        from mvitv2.cli.ranges import check_ranges

        module: ModuleType = import_module(f"mvitv2.cli.{self.module}")
        options = parsed(module.Options, words, command=self.name, about=self.summary, examples=module.EXAMPLES)
        if options is None:
            return 0
        if self.name not in RECIPES_TELL:
            check_ranges(options)
        return module.run(options)


RECIPES_TELL = ("train", "demo")
"""Commands whose numbers are fields of a recipe, which checks them itself."""
COMMANDS = {
    name: Command(name, module, summary)
    for name, module, summary in (
        ("demo", "demo", "Train a small model on handwritten digits, measure it and write a report: two minutes."),
        (
            "train",
            "train",
            "Train a classifier of pictures or clips on class folders or digits, or a detector on boxes.",
        ),
        (
            "check",
            "check",
            "Look for what is wrong with data: unreadable, twice there, leaked, unbalanced, mislabelled.",
        ),
        ("eval", "eval", "Measure a model on class folders of pictures or clips, on boxes, or on the built-in digits."),
        ("predict", "predict", "Name what is on pictures and in clips, or find objects: files, folders, patterns."),
        ("features", "features", "Write what a model sees of pictures and clips as numbers: a vector each, or maps."),
        ("runs", "runs", "Compare training runs: figures, settings that differ, curves."),
        ("list", "list", "Name the models there are, with their task, size and aliases."),
        ("describe", "describe", "Show a model block by block: widths, grids, parameters, operations, conventions."),
        ("inspect", "inspect", "Say what a weights file is: whose, which variant, for what, what is missing."),
        (
            "convert",
            "convert",
            "Write weights for timm, torchvision, detectron2 and others, or read theirs into our own.",
        ),
        ("recipes", "recipes", "Name the recipes for training, with their sources; show one in full."),
        ("bench", "bench", "Measure how fast this package is on this machine, beside its peers."),
        ("doctor", "doctor", "Report versions, devices, threads, attention backends and optional libraries."),
    )
}

OVERVIEW = """\
usage: mvitv2 COMMAND [ARGUMENTS]

Multiscale Vision Transformers v2: train, run and ship them.

{commands}

mvitv2 COMMAND --help explains a command. Anywhere on the line, --debug shows the traceback of an error.
Options are written --batch-size 64 or batch-size=64.

Examples:
  mvitv2 demo
  mvitv2 train photos --pretrained --epochs 30        # photos/train/CLASS/*.jpg, photos/val/CLASS/*.jpg
  mvitv2 predict runs/photos holiday/
"""


def overview() -> str:
    """What ``mvitv2 --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return OVERVIEW.format(commands="\n".join(lines)).rstrip()


def command(name: str) -> Command:
    """The command of that name.

    Raises:
        UsageError: There is none; the nearest one is offered.
    """
    if name not in COMMANDS:
        kind = "option" if name.startswith("-") else "command"
        hint = did_you_mean(name, COMMANDS, otherwise="mvitv2 --help lists them")
        raise UsageError(f"mvitv2 has no {kind} {name!r}{hint}")
    return COMMANDS[name]
