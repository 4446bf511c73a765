"""The classes of a data set: as a file lists them, as labels name or number them, and as people call them."""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mvitv2.data.labelled import DataError
from mvitv2.data.names import shown
from mvitv2.data.sources import close_names

CLASS_FILES = ("classes.txt", "classes.json", "classes.csv", "classes.tsv")
"""Read where one lies beside a list or shards."""

_INDEX = re.compile(r"[0-9]+(?:\.0)?")  # pandas writes 3.0 where a column has gaps


def numbered(
    labels: Sequence[str], classes: Sequence[str] | None, *, indices: bool = False
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Labels as indices into classes.

    A label that is the name of a class is that class; a whole number that is no name is an index, from 0. Without
    ``classes``, the labels are the names of the classes: numbers in their order, words sorted.

    Args:
        labels: As written.
        classes: In the order of their indices.
        indices: Whole numbers are indices, whatever the classes are called.

    Returns:
        ``(N,)`` int64, with -1 for unknown ones; the classes; the unknown labels.

    Raises:
        DataError: A class is listed twice.
    """
    kinds = sorted(set(labels))
    numbers = {kind: int(float(kind)) for kind in kinds if _INDEX.fullmatch(kind)}
    if classes is None:
        classes = kinds
        if len(numbers) == len(kinds):
            every = range(max(numbers.values(), default=-1) + 1) if indices else sorted(set(numbers.values()))
            classes = [str(number) for number in every]
    places = {name: place for place, name in enumerate(classes)}
    if len(places) < len(classes):
        twice = {name for name, count in Counter(classes).items() if count > 1}
        raise DataError(f"{len(twice)} classes are listed twice: {shown(twice)}")
    known = {kind: _place(kind, numbers.get(kind), places, indices) for kind in kinds}
    found = np.fromiter((known[label] for label in labels), dtype=np.int64, count=len(labels))
    return found, tuple(classes), [kind for kind, place in known.items() if place < 0]


def _place(kind: str, number: int | None, places: Mapping[str, int], indices: bool) -> int:
    """The class of one label, -1 if there is none."""
    name = kind if number is None else str(number)
    if kind in places and not (indices and number is not None):
        return places[kind]
    if name in places and not indices:
        return places[name]
    return number if number is not None and number < len(places) else -1


def unknown_message(unknown: Sequence[str], classes: Sequence[str]) -> str:
    """What to say about labels that are neither names nor indices of ``classes``."""
    near = close_names(unknown[0], classes)
    few = shown(classes) if len(classes) <= 8 else f"{classes[0]}, {classes[1]}, ..."
    return (
        f"{len(unknown)} unknown label{'s' * (len(unknown) > 1)}: {shown(unknown)}{near}; expected one of the "
        f"{len(classes)} classes ({few}) or its number from 0 to {len(classes) - 1}"
    )


def class_list(path: str | os.PathLike[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes that a file lists, in the order of their indices, and what people call them.

    Read are lines of one class each, JSON lists, JSON objects from index to name (Keras' ``[id, name]`` too) or from
    name to index, and tables with columns ``index`` and ``name`` or ``class`` (``wnid`` is the class then).

    Raises:
        DataError: The file is in none of these forms, or indices are missing or double.
    """
    file = Path(path)
    text = class_text(file)
    if text.lstrip().startswith(("{", "[")):
        pairs = _json_classes(file, text)
    elif file.suffix.lower() in (".csv", ".tsv"):
        pairs = _table_classes(file, text)
    else:
        pairs = [(line.strip(), line.strip()) for line in text.splitlines() if line.strip()]
    if not pairs:
        raise DataError(f"{file}: lists no classes")
    return tuple(name for name, _ in pairs), tuple(name for _, name in pairs)


def class_text(file: Path) -> str:
    """The text of a file of classes.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: class names cannot be read ({error})") from error


def _json_classes(file: Path, text: str) -> list[tuple[str, str]]:
    """Id and name of every class, by index."""
    entries = class_json(file, text)
    if isinstance(entries, list) and all(isinstance(entry, str) for entry in entries):
        return [(entry, entry) for entry in entries]
    if isinstance(entries, dict) and all(isinstance(value, int) for value in entries.values()):
        return _by_index(file, {index: (name, name) for name, index in entries.items()}, len(entries))
    if isinstance(entries, dict) and all(re.fullmatch("[0-9]+", key) for key in entries):
        pairs = {int(key): (value, value) if isinstance(value, str) else value for key, value in entries.items()}
        if all(len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in pairs.values()):
            return _by_index(file, pairs, len(entries))
    raise DataError(f'{file}: expected ["name", ...], {{"0": "name"}}, {{"0": ["id", "name"]}} or {{"name": 0}}')


def class_json(file: Path, text: str) -> Any:
    """JSON of a file of classes.

    Raises:
        DataError: It is none.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{file}: not valid JSON ({error})") from error


def _table_classes(file: Path, text: str) -> list[tuple[str, str]]:
    """Id and name of every class of a table with a header."""
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t" if file.suffix.lower() == ".tsv" else ","))
    names = set(rows[0]) if rows else set()
    name = next((column for column in ("name", "class", "label", "wnid") if column in names), None)
    index = next((column for column in ("index", "id", "class_id", "label_id") if column in names), None)
    if name is None or index is None or not all((row[index] or "").strip().isdecimal() for row in rows):
        raise DataError(f"{file}: expected a header with 'index' and 'name', and whole numbers; it has {shown(names)}")
    key = "wnid" if "wnid" in names else name
    return _by_index(file, {int(row[index]): (row[key], row[name]) for row in rows}, len(rows))


def _by_index(file: Path, pairs: dict[int, Any], count: int) -> list[tuple[str, str]]:
    """``pairs`` in the order of their keys, which must be all of ``0 .. count - 1``.

    Raises:
        DataError: They are not.
    """
    if sorted(pairs) != list(range(count)):
        raise DataError(f"{file}: its {count} classes are not numbered 0 to {count - 1}")
    return [tuple(pairs[index]) for index in range(count)]


def class_names(path: str | os.PathLike[str], classes: Sequence[str]) -> tuple[str, ...]:
    """What people call ``classes`` (WordNet ids, say), in their order, from a file that lists names.

    Read are Keras' ``imagenet_class_index.json`` (``{"0": [id, name]}``), a JSON object of id to name, tables with
    columns ``wnid`` and ``name`` (CSV or TSV), and lines of an id, a space or tab and a name (``synset_words.txt``,
    ``LOC_synset_mapping.txt``).

    Raises:
        DataError: The file is in none of these forms, or lacks some of the classes (they are listed).
    """
    file = Path(path)
    text = class_text(file)
    names = _json_names(file, text) if text.lstrip().startswith(("{", "[")) else _table_names(text)
    missing = [name for name in classes if name not in names]
    if missing:
        raise DataError(f"{file} names {len(names)} classes but lacks {len(missing)} of these: {shown(missing)}")
    return tuple(names[name] for name in classes)


def _json_names(file: Path, text: str) -> dict[str, str]:
    """Id to name from either JSON form."""
    entries = class_json(file, text)
    if isinstance(entries, dict) and all(isinstance(value, str) for value in entries.values()):
        return entries
    pairs = list(entries.values()) if isinstance(entries, dict) else entries
    if not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in pairs
    ):
        raise DataError(f'{file}: expected {{"id": "name"}} or {{"0": ["id", "name"]}}')
    return {key: value for key, value in pairs}


def _table_names(text: str) -> dict[str, str]:
    """Id to name from lines: a table whose header says ``wnid`` and ``name``, or an id and the rest of the line."""
    lines = text.splitlines()
    header = lines[0] if lines else ""
    delimiter = "\t" if "\t" in header else ","
    columns = header.split(delimiter)
    if {"wnid", "name"} <= set(columns):
        return {row["wnid"]: row["name"] for row in csv.DictReader(lines, delimiter=delimiter)}
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {pair[0]: pair[-1].strip() for pair in pairs}


def class_file_in(folder: Path) -> Path | None:
    """The file of classes in a folder, if there is one."""
    return next((folder / name for name in CLASS_FILES if (folder / name).is_file()), None)
