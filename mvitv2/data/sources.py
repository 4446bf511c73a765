"""What people type (files, folders, globs, ``-``) as a stream of paths, in the order people count: img2 before img10.

Memory is bounded by one folder at a time, never by the whole tree, and nothing is left out without a word: what was
named but is not there, and folders that hold nothing, come as :class:`Problem`.
"""

import difflib
import fnmatch
import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".avif", ".avifs", ".bmp", ".dib"}
    | {".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".ico", ".jp2", ".j2k", ".jpx", ".psd", ".sgi", ".pcx"}
    | {".qoi"}
)
"""Names that are taken for images in a folder; a file that is named itself is always taken."""

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv", ".3gp"}
    | {".ogv", ".vob", ".asf", ".mxf", ".y4m"}
)
"""The same of clips."""

_MAGIC = re.compile(r"[*?\[]")
_KEPT_PROBLEMS = 100


@dataclass(frozen=True)
class Problem:
    """Something that was asked for and gives nothing: what, and why."""

    source: str
    reason: str


class PathStream:
    """The image files that ``sources`` name, one after another; count and problems grow while it is read.

    - a file: itself, whatever its name ends with;
    - a folder: every image below it, hidden files and folders left out, links followed but never in circles;
    - a pattern (``*``, ``?``, ``[...]``, ``**``): what it matches, folders opened up;
    - ``-``: one source a line from standard input.

    Attributes:
        found: How many paths came out so far.
        num_problems: How many sources gave nothing so far.
        problems: The first hundred of them.
        ignored: How many files in folders were left out, by suffix (``""``: none).
    """

    def __init__(
        self,
        sources: Iterable[str | os.PathLike[str]],
        *,
        suffixes: Collection[str] | None = IMAGE_SUFFIXES,
        stdin: BinaryIO | None = None,
    ) -> None:
        self._sources = sources
        self._suffixes = suffixes
        self._stdin = stdin
        self.found = 0
        self.num_problems = 0
        self.problems: list[Problem] = []
        self.ignored: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Path]:
        """Each path as it is found; problems are kept on the way."""
        for source in self._sources:
            name = os.fspath(source)
            for line in self._lines() if name == "-" else (name,):
                for item in expand(line, suffixes=self._suffixes, ignored=self.ignored):
                    if isinstance(item, Path):
                        self.found += 1
                        yield item
                        continue
                    self.num_problems += 1
                    if len(self.problems) < _KEPT_PROBLEMS:
                        self.problems.append(item)

    def _lines(self) -> Iterator[str]:
        """The sources that standard input lists; names are bytes, so that any file can be named."""
        for line in self._stdin or sys.stdin.buffer:
            name = os.fsdecode(line.removesuffix(b"\n").removesuffix(b"\r"))
            if name.strip():
                yield name


def expand(
    source: str, *, suffixes: Collection[str] | None = IMAGE_SUFFIXES, ignored: Counter[str] | None = None
) -> Iterator[Path | Problem]:
    """The files that one source stands for, or the problem with it.

    Args:
        source: A file, a folder or a pattern; a name that exists is never taken for a pattern.
        suffixes: What counts as an image in folders, lower case with the dot; ``None``: every file.
        ignored: Counts what was left out.
    """
    path = Path(source)
    if _exists(path) or not _MAGIC.search(source):
        yield from _opened(path, source, suffixes, ignored)
        return
    deep = "**" in Path(source).parts
    number = 0
    pairs = zip(path.parts, ("", *path.parts[:-1]), strict=True)
    parts = [part for part, before in pairs if not part == before == "**"]
    base, rest = (Path(parts[0]), parts[1:]) if path.is_absolute() else (Path(), parts)
    for match in _matches(base, rest):
        number += 1
        if deep and match.is_dir():  # what is in it is matched by itself
            continue
        yield from _opened(match, str(match), suffixes, ignored)
    if not number:
        yield Problem(source, "matches nothing")


def walk(
    folder: Path, *, suffixes: Collection[str] | None = IMAGE_SUFFIXES, ignored: Counter[str] | None = None
) -> Iterator[Path | Problem]:
    """Every image below ``folder`` in natural order; folders that may not be listed come as problems."""
    above: list[tuple[int, int]] = []
    stack: list[Iterator[os.DirEntry[str]]] = []

    def problem_entering(path: Path) -> Problem | None:
        try:
            stack.append(iter(_listed(path)))
        except OSError as error:
            return Problem(str(path), f"cannot be listed ({error.strerror})")
        above.append(_identity(path))
        return None

    if problem := problem_entering(folder):
        yield problem
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            above.pop()
        elif _is_folder(entry):
            into = Path(entry.path)
            if _identity(into) not in above and (problem := problem_entering(into)):  # else a link to where we are
                yield problem
        elif suffixes is None or Path(entry.name).suffix.lower() in suffixes:
            yield Path(entry.path)
        elif ignored is not None:
            ignored[Path(entry.name).suffix.lower()] += 1


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Sorts names as people count: ``img2`` before ``img10``, upper and lower case together."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), name


def suffix_counts(ignored: Counter[str], *, most: int = 4) -> str:
    """``ignored`` in words: ``12 other files (10 .txt, 2 without suffix)``."""
    if not ignored:
        return "no files"
    named = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in ignored.most_common(most))
    more = ", ..." if len(ignored) > most else ""
    return f"{ignored.total()} other file{'s' * (ignored.total() > 1)} ({named}{more})"


def close_names(name: str, others: Iterable[str]) -> str:
    """`` (did you mean ...?)`` with the names nearest to ``name``, or nothing."""
    near = difflib.get_close_matches(name, list(itertools.islice(others, 10_000)), n=3)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def _opened(
    path: Path, source: str, suffixes: Collection[str] | None, ignored: Counter[str] | None
) -> Iterator[Path | Problem]:
    """A file as it is, a folder opened up, anything else as a problem."""
    if not _exists(path):
        siblings = _names(path.parent)
        yield Problem(source, f"does not exist{close_names(path.name, siblings)}")
    elif not path.is_dir():
        yield path
    else:
        empty = True
        left_out: Counter[str] = Counter()
        for item in walk(path, suffixes=suffixes, ignored=left_out):
            empty = False
            yield item
        if ignored is not None:
            ignored.update(left_out)
        if empty:
            yield Problem(source, f"is a folder without images: {suffix_counts(left_out)} in it")


def _matches(base: Path, parts: list[str]) -> Iterator[Path]:
    """Paths below ``base`` that fit the pattern ``parts``, in natural order; hidden names only where asked for."""
    if not parts:
        yield base
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        if rest:
            yield from _matches(base, rest)
        for entry in _entries(base):
            if _is_folder(entry) and not entry.is_symlink():
                yield from _matches(base / entry.name, parts)
            elif not rest:
                yield base / entry.name
    elif _MAGIC.search(part):
        for entry in _entries(base, hidden=part.startswith(".")):
            if fnmatch.fnmatchcase(entry.name, part) and (not rest or _is_folder(entry)):
                yield from _matches(base / entry.name, rest)
    elif _exists(base / part):
        yield from _matches(base / part, rest)


def _entries(folder: Path, *, hidden: bool = False) -> list[os.DirEntry[str]]:
    """What is in ``folder``; nothing where it may not be listed, as in any shell."""
    try:
        return _listed(folder, hidden=hidden)
    except OSError:
        return []


def _listed(folder: Path, *, hidden: bool = False) -> list[os.DirEntry[str]]:
    """What is in ``folder``, in natural order; names with a leading dot only where asked for."""
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if hidden or not entry.name.startswith(".")]
    return sorted(shown, key=lambda entry: natural_key(entry.name))


def _names(folder: Path) -> list[str]:
    """The names in ``folder``, none where there is no such folder."""
    return [entry.name for entry in _entries(folder)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether ``entry`` is a folder or a link to one; what cannot be asked is taken for a file and reported as one."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _exists(path: Path) -> bool:
    """Whether there is something of this name, be it a link that leads nowhere (which its reader reports)."""
    try:
        return os.path.lexists(path)
    except ValueError:  # a zero byte in the name
        return False


def _identity(folder: Path) -> tuple[int, int]:
    """What makes a folder the same under two names; nothing in particular where it is gone."""
    try:
        status = folder.stat()
    except OSError:
        return (-1, -1)
    return status.st_dev, status.st_ino
