"""Words on the command line to a frozen dataclass: tyro's flags, ``key=value``, and a YAML file of defaults.

The words are sorted by field first, whatever their form, so that one rule holds for all: what stands on the command
line wins over the file, later words win over earlier ones. tyro converts them and explains the options.
"""

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import MISSING
from itertools import dropwhile, takewhile
from typing import TypeVar

import tyro

from mvitv2.cli.failures import UsageError, one_line
from mvitv2.cli.words import REST, Argument, Reader, arguments_of

T = TypeVar("T")
SWITCH = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
CONFIG = (tyro.conf.PositionalMetavarFromFieldName, tyro.conf.DisallowNone)
REWORDED = (
    (
        r"Error parsing (\S+): no type matching (\S+) could be instantiated from \['(.*)'\]",
        r"\1: expected \2, got '\3'",
    ),
    (r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)", r"\1: expected INT, got \2"),
    (r"Error parsing (\S+): could not convert string to float: (.*)", r"\1: expected FLOAT, got \2"),
    (r"invalid choice (.*) for argument '(.*)'. Expected one of \((.*)\)", r"\2: expected one of \3, got \1"),
)
"""tyro's words for a value that does not fit, and ours."""


def parsed(options: type[T], words: Sequence[str], *, command: str, about: str, examples: str) -> T | None:
    """The options that the words say; ``None`` after printing the help they asked for.

    Args:
        options: A frozen dataclass; a field ``config`` names a YAML file of defaults.
        words: What follows the command's name.
        command: Its name.
        about: What it does, for the help.
        examples: Lines of the help.

    Raises:
        UsageError: Words that are for no field, or that are no value of it.
    """
    flags = words[: words.index("--")] if "--" in words else words
    canonical = ["--help"] if {"-h", "--help"} & set(flags) else rewritten(options, words, command=command)
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(options, prog=f"mvitv2 {command}", description=about, args=canonical, config=CONFIG)
    except SystemExit as error:
        if error.code:
            raise UsageError(f"{flattened(said.getvalue())} (mvitv2 {command} --help)") from None
    print(f"\nExamples:\n{examples.rstrip()}")
    return None


def flattened(box: str) -> str:
    """The first paragraph in one of tyro's boxes, on one line and in our words."""
    lines = [line.strip("│| \n") for line in box.splitlines()[1:]]
    lines = ["" if set(line) <= set("╰╯─-+") else line for line in lines]  # rulers
    first = list(takewhile(bool, dropwhile(lambda line: not line, lines)))
    cause = one_line(" ".join(first)).removesuffix(".").rstrip() or one_line(box)
    for theirs, ours in REWORDED:
        cause = re.sub(f"^{theirs}$", ours, cause)
    return cause


def rewritten(options: type, words: Sequence[str], *, command: str) -> list[str]:
    """The same words as flags first, then the positional ones: what tyro reads, whatever form they came in.

    Raises:
        UsageError: A word or a key of the file is for no field, or a field that must be given is not.
    """
    arguments = arguments_of(options)
    given = Reader(arguments, command).read(words)
    for path in given.pop("config", []):
        # only who gives a file waits for the YAML reader
        from mvitv2.cli.defaults import from_file

        below = from_file(path, arguments)
        given = {**below, **given, **({REST: [*below[REST], *given.get(REST, [])]} if REST in below else {})}
    if missing := [name.upper() for name, a in arguments.items() if a.default is MISSING and name not in given]:
        raise UsageError(f"{command} needs {' and '.join(missing)} (mvitv2 {command} --help)")
    flags = [word for name, values in given.items() for word in as_flag(arguments[name], values)]
    positional = [word for name, argument in arguments.items() if argument.positional for word in given.get(name, [])]
    return [*flags, "--", *positional]


def as_flag(argument: Argument, values: list[str]) -> list[str]:
    """What is given for a field, as tyro reads it; nothing for a positional field.

    Raises:
        UsageError: A switch is neither on nor off.
    """
    flag = argument.flags[0]
    if argument.positional:
        return []
    if argument.takes == "nothing":
        if (on := SWITCH.get(values[-1].lower())) is None:
            raise UsageError(f"{flag}={values[-1]}: expected true or false")
        return [flag if on else f"--no-{flag[2:]}"]
    return [f"{flag}={values[-1]}"] if argument.takes == "one" else [flag, *values]
