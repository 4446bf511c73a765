"""The words of a command line, sorted by the field they are for: ``--batch-size 64``, ``-b 64``, ``batch=64`` alike."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from tyro.conf import Positional, arg

from mvitv2.cli.failures import UsageError, did_you_mean

T = TypeVar("T")
Maybe = Annotated[T | None, arg(help_behavior_hint="")]
"""A field that may be left out, without `(default: None)` in the help."""
Given = dict[str, list[str]]
"""The words for each field."""
OTHER_KEYS = {
    "imgsz": "img_size",
    "batch": "batch_size",
    "lr0": "lr",
    "source": "files",
    "topk": "top_k",
    "weights": "model",
    "opt": "optimizer",
    "sched": "schedule",
    "smoothing": "label_smoothing",
    "clip_grad": "clip_norm",
    "lr_base": "lr",
    "lr_base_size": "lr_batch",
    "grad_accum_steps": "accumulation",
    "initial_checkpoint": "weights",
    "model_ema_decay": "ema_decay",
    "mixup_prob": "mix_probability",
    "mixup_switch_prob": "mix_switch",
    "torchcompile": "compile",
    "opt_betas": "betas",
    "log_interval": "log_steps",
    "recovery_interval": "save_steps",
    "bce_target_thresh": "target_threshold",
    "aug_repeats": "repeats",
}
"""What timm and Ultralytics call a field, for commands that have the field."""
OTHER_WORDS = {
    "hflip": "augmentation.flip",
    "fliplr": "augmentation.flip",
    "vflip": "augmentation.vertical_flip",
    "flipud": "augmentation.vertical_flip",
    "color_jitter": "augmentation.color_jitter",
    "remode": "augmentation.erase_mode",
    "recount": "augmentation.erase_count",
    "erasing": "augmentation.erase_probability",
    "scale": "augmentation.scale",
    "ratio": "augmentation.ratio",
    "mean": "preprocessing.mean",
    "std": "preprocessing.std",
    "drop": "model_fields.head_dropout",
}
"""What timm and Ultralytics call an entry of a field, for commands that take ``a.b=value``."""
REST = "set"
"""The field that takes ``a.b=value``, for commands that have it."""
KEY = re.compile(r"([A-Za-z][\w.-]*)=(.*)", flags=re.DOTALL)
NUMBER = re.compile(r"-?\d*\.?\d+(e-?\d+)?")


@dataclass(frozen=True)
class Argument:
    """One field of a command's options, as it is written on the command line."""

    name: str
    flags: tuple[str, ...]
    takes: str
    """``"nothing"`` (a switch), ``"one"`` word, ``"numbers"`` or ``"words"`` as many as follow."""
    positional: bool
    default: Any
    """``dataclasses.MISSING`` where a value must be given."""

    @classmethod
    def of(cls, field: Field[Any], annotation: Any) -> "Argument":
        """The argument of a field with that annotation."""
        marks = annotation.__metadata__ if get_origin(annotation) is Annotated else ()
        kind = get_args(annotation)[0] if marks else annotation
        aliases = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
        return cls(field.name, (spelled(field.name), *aliases), _takes(kind), Positional in marks, field.default)


def _takes(kind: Any) -> str:
    """How many words a type takes."""
    if bool in (kind, *get_args(kind)):
        return "nothing"
    for member in (kind, *get_args(kind)):
        if get_origin(member) in (tuple, list):
            return "numbers" if get_args(member)[0] in (int, float) else "words"
    return "one"


def arguments_of(options: type) -> dict[str, Argument]:
    """Every argument of a command's options, by field."""
    hints = get_type_hints(options, include_extras=True)
    return {field.name: Argument.of(field, hints[field.name]) for field in fields(options)}


def spelled(name: str) -> str:
    """The flag of a field."""
    return f"--{name.replace('_', '-')}"


def field_named(key: str, arguments: dict[str, Argument]) -> str | None:
    """The field that a key means: its own name, or what other tools call it."""
    name = key.replace("-", "_")
    name = name if name in arguments else OTHER_KEYS.get(name, name)
    return name if name in arguments else None


class Reader:
    """Reads a command line word by word.

    Args:
        arguments: What the command takes.
        command: Its name, for messages.
    """

    def __init__(self, arguments: dict[str, Argument], command: str):
        self.arguments, self.command = arguments, command
        self.flags = {flag: a for a in arguments.values() if not a.positional for flag in a.flags}
        self.given: Given = {}
        self.loose: list[str] = []

    def read(self, words: Sequence[str]) -> Given:
        """What is given for each field; what is given again replaces it.

        Raises:
            UsageError: A word is for no field.
        """
        queue = list(words)
        while queue:
            word = queue.pop(0)
            if word == "--":
                self.loose += queue
                break
            if word.startswith("-") and word != "-":
                self.read_flag(word, queue)
            elif (match := KEY.fullmatch(word)) and not self.names_file(word):
                self.read_pair(match[1], match[2])
            else:
                self.loose.append(word)
        self.place_loose()
        return self.given

    def read_flag(self, word: str, queue: list[str]) -> None:
        """A flag, and from the queue the words that are its values."""
        flag, equals, value = word.partition("=")
        if "." in flag and REST in self.arguments:
            self.read_pair(flag.removeprefix("--"), value if equals else self.next_of(flag, queue))
            return
        argument, switched_off = self.argument_of(flag), False
        if argument is None and flag.startswith("--no-"):
            argument, switched_off = self.argument_of(f"--{flag.removeprefix('--no-')}"), True
        if argument is None or (switched_off and (argument.takes != "nothing" or equals)):
            if (entry := self.entry_named(flag.removeprefix("--"))) is not None:
                self.read_pair(entry, value if equals else ",".join(self.numbers_of(flag, queue)))
                return
            raise UsageError(f"{self.command} has no option {flag}{self.hint(flag, self.flags)}")
        if argument.takes == "nothing" and not equals:
            self.give(argument.name, ["false" if switched_off else "true"])
        else:
            self.give(argument.name, [value] if equals else list(self.values(argument, flag, queue)))

    def give(self, name: str, values: list[str]) -> None:
        """Note what is given for a field. It replaces what was given before, unless the field collects the rest."""
        self.given[name] = [*self.given.get(name, []), *values] if name == REST else values

    def argument_of(self, flag: str) -> Argument | None:
        """Whose flag it is; ``--batch_size`` and ``--batch-size`` are one."""
        name = field_named(flag.removeprefix("--"), self.arguments) if flag.startswith("--") else None
        return self.flags.get(spelled(name) if name else flag)

    def values(self, argument: Argument, flag: str, queue: list[str]) -> Iterator[str]:
        """The words after a flag that belong to it."""
        if argument.takes == "one":
            yield self.next_of(flag, queue)
            return
        fits: Callable[[str], Any] = NUMBER.fullmatch if argument.takes == "numbers" else lambda word: word[:1] != "-"
        while queue and fits(queue[0]):
            yield queue.pop(0)

    def entry_named(self, key: str) -> str | None:
        """The ``a.b`` that a key of timm or Ultralytics means, for commands that take such words."""
        return OTHER_WORDS.get(key.replace("-", "_")) if REST in self.arguments else None

    def numbers_of(self, flag: str, queue: list[str]) -> list[str]:
        """The word after a flag, and all that follow if they are numbers too."""
        found = [self.next_of(flag, queue)]
        while queue and NUMBER.fullmatch(found[0]) and NUMBER.fullmatch(queue[0]):
            found.append(queue.pop(0))
        return found

    def next_of(self, flag: str, queue: list[str]) -> str:
        """The word after a flag that needs one."""
        if not queue:
            raise UsageError(f"{flag} needs a value (mvitv2 {self.command} --help)")
        return queue.pop(0)

    def read_pair(self, key: str, value: str) -> None:
        """``key=value``; several values have commas between them."""
        if "." in key and REST in self.arguments:
            self.give(REST, [f"{key}={value}"])
            return
        name = field_named(key, self.arguments)
        if name is None and (entry := self.entry_named(key)) is not None:
            self.give(REST, [f"{entry}={value}"])
            return
        if name is None:
            names = [name.replace("_", "-") for name in self.arguments]
            raise UsageError(f"{self.command} has no option {key}{self.hint(key.replace('_', '-'), names)}")
        several = self.arguments[name].takes in ("numbers", "words")
        self.give(name, [part.strip() for part in value.strip("[]()").split(",")] if several else [value])

    def names_file(self, word: str) -> bool:
        """Whether a word with ``=`` in it is the name of a file, for a command that takes files."""
        takes_files = any(a.positional and a.takes == "words" for a in self.arguments.values())
        return takes_files and Path(word).exists()

    def place_loose(self) -> None:
        """Give the words that stand alone to the positional fields that have none yet, in order."""
        for argument in self.arguments.values():
            if argument.positional and argument.name not in self.given and self.loose:
                count = 1 if argument.takes == "one" else len(self.loose)
                self.given[argument.name], self.loose = self.loose[:count], self.loose[count:]
        if self.loose:
            superfluous = " ".join(map(repr, self.loose))
            raise UsageError(f"{self.command} has no place for {superfluous} (mvitv2 {self.command} --help)")

    def hint(self, word: str, known: Sequence[str] | dict[str, Argument]) -> str:
        """What was perhaps meant, or where to look."""
        return did_you_mean(word, known, otherwise=f"mvitv2 {self.command} --help lists them")
