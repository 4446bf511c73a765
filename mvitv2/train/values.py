"""Values of a record's fields: checked against their annotations, and read from the words of a command line."""

import ast
import types
import typing
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any


class Wrong(ValueError):
    """A value does not fit; the message says what would."""


@lru_cache(maxsize=8)
def type_hints(record: type) -> dict[str, Any]:
    """The annotation of every field of a dataclass, in order."""
    return typing.get_type_hints(record)


def fitted(value: Any, hint: Any) -> Any:
    """``value`` as the annotation has it: lists become tuples, whole floats integers, integers floats.

    Raises:
        Wrong: It cannot be that; the message says what is expected.
    """
    if hint is Any:
        return value
    choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and types.NoneType in choices:
        return None
    kinds = [choice for choice in choices if choice is not types.NoneType]
    for kind in kinds:
        if (result := _as_kind(value, kind)) is not None:
            return result
    raise Wrong(" or ".join([*map(_spoken, kinds), *(["none"] if types.NoneType in choices else [])]))


def _as_kind(value: Any, kind: Any) -> Any:
    """``value`` as ``kind``, or ``None`` where it is none."""
    origin = typing.get_origin(kind)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if origin is dict:
        return {str(k): _frozen(v) for k, v in value.items()} if isinstance(value, Mapping) else None
    if origin is tuple:
        return _as_tuple(value, typing.get_args(kind))
    if kind is int:
        return int(value) if number and value == int(value) else None
    if kind is float:
        return float(value) if number else None
    return value if isinstance(value, kind) else None


def _as_tuple(value: Any, inner: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """A list as a tuple of so many values, or of any number of one kind; whole numbers may stand for words."""
    if not isinstance(value, list | tuple):
        return None
    if inner[-1] is Ellipsis:
        words = [str(v) if inner[0] is str and isinstance(v, int) else v for v in value]
        return tuple(fitted(v, inner[0]) for v in words)
    return tuple(fitted(v, i) for v, i in zip(value, inner, strict=True)) if len(value) == len(inner) else None


def _frozen(value: Any) -> Any:
    """Lists as tuples, all the way down: what a configuration wants and JSON cannot keep."""
    if isinstance(value, list | tuple):
        return tuple(_frozen(v) for v in value)
    return {k: _frozen(v) for k, v in value.items()} if isinstance(value, dict) else value


def _spoken(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    origin = typing.get_origin(kind)
    if origin is tuple:
        inner = typing.get_args(kind)
        many = {str: "words", float: "numbers", int: "numbers"}
        return many.get(inner[0], "values") if inner[-1] is Ellipsis else f"{len(inner)} numbers"
    return "a mapping" if origin is dict else names.get(kind, str(kind))


def from_text(value: Any, hint: Any) -> Any:
    """What a word of the command line means for a field; anything that is not text is left as it is.

    ``none``, ``true`` and ``false`` in any case; numbers; ``1,1,2`` for several. For a text field, the word itself.
    """
    if not isinstance(value, str) or hint is str:
        return value
    word, choices = value.strip(), typing.get_args(hint)
    if typing.get_origin(hint) is tuple and choices[0] is str:
        return () if word.lower() in ("", "none") else tuple(part.strip() for part in word.split(","))
    if str in choices:
        return _text_or(word, choices)
    constants = {"none": None, "null": None, "true": True, "false": False}
    return constants[word.lower()] if word.lower() in constants else _literal(word)


def _text_or(word: str, choices: tuple[Any, ...]) -> Any:
    """A word for a field that is text, or something else that does not look like a word."""
    if types.NoneType in choices:
        return None if word.lower() in ("none", "null") else word
    return _literal(word) if "," in word else word


def _literal(word: str) -> Any:
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return word


def near(name: str, known: Iterable[str]) -> str:
    """`` (did you mean ...?)`` where a known name is near."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
