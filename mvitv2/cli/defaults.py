"""A YAML file as the defaults of a command."""

from pathlib import Path
from typing import Any

import yaml

from mvitv2.cli.failures import UsageError, did_you_mean, one_line
from mvitv2.cli.words import REST, Argument, Given, field_named


def from_file(path: str, arguments: dict[str, Argument]) -> Given:
    """The words that a YAML file gives for a command's fields; what it leaves empty keeps its default.

    Raises:
        UsageError: The file is no flat mapping of known keys to plain values; all offending keys are named.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"config {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"config {path} is no YAML: {one_line(str(error))}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"config {path} holds a {type(values).__name__}, expected a mapping such as `epochs: 30`")
    values, rest = flat({str(key): value for key, value in values.items()}, arguments)
    names = {key: field_named(key, arguments) for key in values}
    known = [name for name in arguments if name != "config"]
    unknown = [f"{key}{nearest(key, known)}" for key, name in names.items() if name in (None, "config")]
    if unknown:
        raise UsageError(f"config {path} has unknown keys: {', '.join(unknown)}")
    given = {name: value for key, value in values.items() if (name := names[key]) and value is not None}
    found = {name: words(path, arguments[name], value) for name, value in given.items()}
    return {**found, REST: [*found.get(REST, []), *rest]} if rest else found


def flat(values: dict[str, Any], arguments: dict[str, Argument]) -> tuple[dict[str, Any], list[str]]:
    """Mappings in mappings as ``a.b=value``, for commands that take such words; the rest as it is."""
    if REST not in arguments:
        return values, []
    inner = [
        (f"{key}.{name}", v) for key, value in values.items() if isinstance(value, dict) for name, v in value.items()
    ]
    inner += [(key, value) for key, value in values.items() if "." in key]
    plain = {key: value for key, value in values.items() if not isinstance(value, dict) and "." not in key}
    return plain, [f"{key}={','.join(map(str, v)) if isinstance(v, list) else v}" for key, v in inner]


def nearest(key: str, known: list[str]) -> str:
    """`` (did you mean ...?)`` where a known key is near."""
    hint = did_you_mean(key, known)
    return f" ({hint.removeprefix('; ')})" if hint else ""


def words(path: str, argument: Argument, value: Any) -> list[str]:
    """A value of the file as it would be written on the command line.

    Raises:
        UsageError: It is a mapping, or a list where one value is wanted.
    """
    many = isinstance(value, list)
    parts = value if many else [value]
    if any(isinstance(part, list | dict) for part in parts) or (many and argument.takes in ("nothing", "one")):
        raise UsageError(f"config {path}: {argument.name} is {value!r}, expected one plain value")
    return [str(part) for part in parts]
