"""Tar shards in WebDataset's form as a data set: local files, and URLs fetched as they are needed.

Nothing is extracted and nothing is streamed past: with the index of every shard, sample ``i`` is a known stretch of a
known file. So any order can be taken up again at any step, and each sample is counted exactly once however many
processes and workers share the work. :meth:`TarShards.order` gives an order that reads few shards at a time.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from mvitv2.data.classes import class_file_in, class_list, numbered, unknown_message
from mvitv2.data.images import ImageError
from mvitv2.data.labelled import SHUFFLE, DataError, LabelledImages, Transform, file_stamp
from mvitv2.data.names import PackedNames
from mvitv2.data.remote import Expected, ShardCache, default_cache, fetched, is_url, sibling, small
from mvitv2.data.samples import sample_seed
from mvitv2.data.tar import SIDECAR, TarIndex, loaded, tar_index

INDEX = "index.json"
"""Beside the shards: their names, sizes and checksums, and the classes."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAX_SHARDS = 1_000_000
_FETCHING = 16  # small files asked for at a time
_ATTEMPTS = 3


def expanded(pattern: str) -> list[str]:
    """The names that braces stand for: ``a-{000..011}.tar`` (as many digits as written), ``{x,y}.tar``; ``::`` joins.

    Raises:
        DataError: It stands for absurdly many, or a range runs backwards.
    """
    names: list[str] = []
    for part in pattern.split("::") if "::" in pattern else [pattern]:
        pieces = _BRACES.split(part)
        choices = [_choices(piece) if place % 2 else [piece] for place, piece in enumerate(pieces)]
        if np.prod([float(len(choice)) for choice in choices]) > _MAX_SHARDS:
            raise DataError(f"{pattern}: stands for more than {_MAX_SHARDS} shards; check its braces")
        names.extend("".join(words) for words in product(*choices))
    return names


def _choices(inside: str) -> Sequence[str]:
    """What one pair of braces stands for."""
    match = _RANGE.fullmatch(inside)
    if match is None:
        return inside.split(",") if "," in inside else [f"{{{inside}}}"]
    first, last, width = int(match[1]), int(match[2]), len(match[1])
    if last < first or last - first > _MAX_SHARDS:
        raise DataError(f"{{{inside}}}: a range of shards runs upwards, and over {_MAX_SHARDS} at most")
    return [f"{number:0{width}}" for number in range(first, last + 1)]


@dataclass
class ShardList:
    """What ``index.json`` says; everything is empty without one."""

    classes: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    shards: dict[str, Expected] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)


def shard_list(text: bytes | str, where: str) -> ShardList:
    """``index.json``, checked: the names in it are plain ones, so that it can point nowhere else.

    Raises:
        DataError: It is something else.
    """
    try:
        given = json.loads(text)
        rows = [
            (str(row["name"]), int(row["bytes"]), str(row["sha256"]), int(row["samples"])) for row in given["shards"]
        ]
        classes, names = (tuple(map(str, given[key])) for key in ("classes", "class_names"))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: is no index of shards ({error!r}); pack writes one, or delete it") from error
    wrong = [name for name, *_ in rows if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*\.tar", name)]
    if wrong:
        raise DataError(f"{where}: names {wrong[0]!r}, which is no plain name of a .tar beside it")
    expected = {name: Expected(size, digest) for name, size, digest, _ in rows}
    return ShardList(classes, names, expected, {name: count for name, *_, count in rows})


class TarShards(LabelledImages):
    """The samples of tar shards, in the order of the shards and of their members.

    Attributes:
        shards: Paths or URLs.
        lengths: Samples of each shard.
    """

    def __init__(
        self,
        shards: Sequence[str | os.PathLike[str]],
        transform: Transform | None = None,
        *,
        classes: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        cache: ShardCache | None = None,
        **options: Any,
    ) -> None:
        """Index the shards; no image is opened. A URL without an index beside it is fetched for that.

        Args:
            shards: Paths, URLs or patterns with braces; one folder or place, where they share an ``index.json``.
            transform: A picture to a tensor; without one, items hold the RGB picture itself.
            classes: What labels number or name (those of the training split); ``None``: those of ``index.json`` or
                ``classes.txt`` beside the shards, else the labels as they are.
            class_names: One name per class, for people.
            cache: Where fetched shards are kept, and how many.
            **options: ``on_error`` and ``max_pixels`` of :class:`LabelledImages`.

        Raises:
            DataError: A shard is missing, cut off or compressed, holds no samples, or has unknown labels.
        """
        super().__init__(transform, **options)
        self.shards = tuple(name for shard in shards for name in expanded(os.fspath(shard)))
        if not self.shards:
            raise DataError("no shards are given; expected paths or URLs of .tar files")
        self._cache = cache or default_cache()
        listed = self._listed()
        self._expected = tuple(listed.shards.get(_plain(shard)) for shard in self.shards)
        with ThreadPoolExecutor(_FETCHING) as pool:
            indexes = list(pool.map(self._index, range(len(self.shards))))
        self._arrange(indexes)
        self._number(indexes, classes, class_names, listed)
        self._note(indexes)

    def __str__(self) -> str:
        return self.shards[0] if len(self.shards) == 1 else f"{self.shards[0]} and {len(self.shards) - 1} more"

    def _arrange(self, indexes: Sequence[TarIndex]) -> None:
        """Where every sample is, in a few arrays that workers share."""
        self.lengths = tuple(map(len, indexes))
        self._ends = np.cumsum(self.lengths, dtype=np.int64)
        self._offsets = np.concatenate([index.offsets for index in indexes])
        self._sizes = np.concatenate([index.sizes for index in indexes])
        self._names = PackedNames(name for index in indexes for name in index.names)
        self._stamps = tuple(
            f"{shard}\0{index.bytes}" if is_url(shard) else file_stamp(Path(shard))
            for shard, index in zip(self.shards, indexes, strict=True)
        )

    def _number(
        self,
        indexes: Sequence[TarIndex],
        classes: Sequence[str] | None,
        class_names: Sequence[str] | None,
        listed: ShardList,
    ) -> None:
        """Labels as indices.

        Raises:
            DataError: Some are unknown.
        """
        own, names = listed.classes, listed.class_names
        beside = None if is_url(self.shards[0]) else class_file_in(Path(self.shards[0]).parent)
        if own is None and beside is not None:
            own, names = class_list(beside)
        kinds = sorted({kind for index in indexes for kind in index.kinds})
        places, known, unknown = numbered(kinds, classes if own is None else own, indices=True)
        if own is not None and not unknown and classes is not None:  # the same classes in another order, maybe
            places, known, unknown = numbered([own[place] for place in places], classes)
        if unknown:
            raise DataError(f"{self}: {unknown_message(unknown, known)}")
        place = dict(zip(kinds, places.tolist(), strict=True))
        parts = [np.asarray([place[kind] for kind in index.kinds], np.int64)[index.codes] for index in indexes]
        self.labels = np.concatenate(parts)
        self.name_classes(known, class_names or (names if known == own else None))

    def _note(self, indexes: Sequence[TarIndex]) -> None:
        """What made no sample."""
        ignored: Counter[str] = Counter()
        for index in indexes:
            ignored.update(index.ignored)
        self.notes = tuple(f"{count} members of the shards are left out: {why}" for why, count in ignored.items())

    def _listed(self) -> ShardList:
        """What ``index.json`` beside the first shard says."""
        first = self.shards[0]
        if is_url(first):
            place = sibling(first, INDEX)
            text = small(place) if place else None
            return shard_list(text, str(place)) if text else ShardList()
        path = Path(first).parent / INDEX
        return shard_list(path.read_bytes(), str(path)) if path.is_file() else ShardList()

    def _index(self, number: int) -> TarIndex:
        """The index of one shard."""
        shard, expected = self.shards[number], self._expected[number]
        if not is_url(shard):
            index = tar_index(Path(shard))
            if expected is not None and index.bytes != expected.bytes:
                raise DataError(f"{shard}: has {index.bytes} bytes, its {INDEX} says {expected.bytes}; copy it again")
            return index
        place = sibling(shard, _plain(shard) + SIDECAR)
        if expected is not None and place and (data := small(place)):
            index = loaded(place, data)
            if index.bytes == expected.bytes:
                return index
        return tar_index(fetched(shard, self._cache, expected))

    def _place(self, index: int) -> tuple[int, int]:
        """The number of the shard of a sample, and the index from 0 up."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} samples")
        index %= len(self)
        return int(np.searchsorted(self._ends, index, side="right")), index

    def path(self, index: int) -> Path:
        """The shard, and the name of the picture in it."""
        shard, place = self._place(index)
        return Path(self.shards[shard]) / self._names[place]

    def stamp(self, index: int) -> str:
        """Name, size and time of the shard, and the place in it."""
        shard, place = self._place(index)
        return f"{self._stamps[shard]}\0{self._offsets[place]}"

    def source(self, index: int) -> bytes:
        """The bytes of the picture's file.

        Raises:
            ImageError: The shard is gone or shorter than it was.
            DataError: It cannot be fetched again.
        """
        shard, place = self._place(index)
        offset, size = int(self._offsets[place]), int(self._sizes[place])
        name = self.shards[shard]
        for _ in range(_ATTEMPTS):
            local = fetched(name, self._cache, self._expected[shard]) if is_url(name) else Path(name)
            try:
                with local.open("rb", buffering=0) as file:
                    file.seek(offset)
                    data = file.read(size)
            except FileNotFoundError as error:
                if is_url(name):  # another process made room in the cache
                    continue
                raise ImageError("its shard is gone", str(self.path(index))) from error
            except OSError as error:
                raise ImageError(f"its shard cannot be read ({error.strerror})", str(self.path(index))) from error
            if len(data) < size:
                raise ImageError(f"is cut off: its shard ends {size - len(data)} bytes early", str(self.path(index)))
            return data
        raise ImageError("its shard is removed as fast as it is fetched; allow the cache more", str(self.path(index)))

    def order(self, *, seed: int, epoch: int, window: int = 8) -> list[int]:
        """Every index once, shuffled so that few shards are read at a time.

        Shards come in a random order, and the samples of ``window`` shards are mixed: a pure function of seed and
        epoch, so any part of it can be given to any process, and taken up anywhere.

        Args:
            seed: Of the run.
            epoch: From 0.
            window: Shards that are open together.
        """
        chance = np.random.default_rng(sample_seed(seed, epoch, SHUFFLE))
        shards = chance.permutation(len(self.lengths))
        starts = self._ends - np.asarray(self.lengths)
        parts = []
        for first in range(0, len(shards), window):
            together = [np.arange(int(starts[s]), int(self._ends[s])) for s in shards[first : first + window]]
            parts.append(chance.permutation(np.concatenate(together)))
        return np.concatenate(parts).tolist()


def _plain(shard: str) -> str:
    """The name of a shard without its folder."""
    return re.split(r"[/\\]", shard)[-1]
