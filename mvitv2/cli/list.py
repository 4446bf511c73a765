"""``mvitv2 list``: the models there are."""

from dataclasses import asdict, dataclass
from typing import Literal

from tyro.conf import Positional

from mvitv2.cli.failures import did_you_mean
from mvitv2.cli.output import columns, millions, print_json, sizes

EXAMPLES = """\
  mvitv2 list
  mvitv2 list video                  # by task
  mvitv2 list mvit_v2_s              # by the name another codebase gives it
  mvitv2 list --json > models.json
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which models, and how to print them."""

    pattern: Positional[str] = "*"
    """A name, part of a name or of a task, or a pattern as in a shell; other codebases' names too."""
    task: Literal["any", "image", "video", "detection"] = "any"
    """Models of one task only."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Entry:
    """One variant, as listed."""

    name: str
    task: str
    parameters: int
    input: tuple[int, ...]
    """``(H, W)`` or ``(T, H, W)``."""
    classes: int
    aliases: list[str]


def run(options: Options) -> int:
    """Print one line per model."""
    entries = matching(options.pattern, None if options.task == "any" else options.task)
    if options.json:
        print_json([asdict(entry) for entry in entries])
        return 0
    header = ("NAME", "TASK", "PARAMS", "INPUT", "CLASSES", "ALSO KNOWN AS")
    print(columns([header, *map(row, entries)], right=(2, 3, 4)))
    return 0


def row(entry: Entry) -> tuple[object, ...]:
    """One line of the table."""
    size, classes = sizes(entry.input), entry.classes or "-"
    return entry.name, entry.task, millions(entry.parameters), size, classes, " ".join(entry.aliases)


def matching(pattern: str, task: str | None) -> list[Entry]:
    """The variants that a pattern means, by their own or by other names.

    Raises:
        ValueError: There is none.
    """
    from mvitv2.aliases import ALIASES, variant_name
    from mvitv2.catalogue import model_info
    from mvitv2.models import list_models
    from mvitv2.variants import VARIANTS

    names = list_models(pattern, aliases=True, task=task) or list_models(f"*{pattern}*", aliases=True, task=task)
    found = dict.fromkeys(map(variant_name, names))
    if not found:
        of_task = f" for {task}" if task else ""
        hint = did_you_mean(pattern, [*VARIANTS, *ALIASES], otherwise="mvitv2 list names them all")
        raise ValueError(f"no model{of_task} matches {pattern!r}{hint}")
    known = map(model_info, found)
    return [
        Entry(
            name=info.name,
            task=info.task,
            parameters=info.parameters,
            input=info.input_size,
            classes=info.num_classes,
            aliases=list(info.aliases),
        )
        for info in known
    ]
