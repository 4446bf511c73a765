"""Pictures that are there more than once: the same bytes, or the same picture in another size or compression.

Near copies are looked for among pictures whose difference hashes are near, and known by their thumbnails. Of copies
made of photographs (JPEG quality 20 and 50, half size, brighter) this finds 96 % and more, of crops hardly any;
different photographs of one scene stay below the threshold.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SIMILAR = 0.99
"""Correlation of two thumbnails from which on they are of one picture; distinct photographs reach 0.988."""
MAX_DISTANCE = 8
"""Bits of 64 in which the hashes of near copies differ at most."""

_ALL_PAIRS = 2048
"""Up to so many pictures, each is compared with every other."""
_TURNS, _NEIGHBOURS = 8, 32
"""Of more, each is compared with the nearest in so many orders, so that time grows with pictures and not with pairs."""
_PAIRS = 1 << 16  # thumbnails compared at a time
_DETAIL = 2.0
"""Standard deviation of a thumbnail's points (of 255) below which it shows nothing to know a picture by."""


@dataclass(frozen=True)
class Copies:
    """Pictures that are copies of each other, by their places."""

    places: tuple[int, ...]
    exact: bool
    """The same bytes; else the same picture."""


def exact_copies(digests: np.ndarray, readable: np.ndarray) -> list[Copies]:
    """Groups of places with one content.

    Args:
        digests: ``(N, 16)`` uint8.
        readable: ``(N,)`` bool: others are left out.
    """
    places = np.flatnonzero(readable)
    if not len(places):
        return []
    keys = np.ascontiguousarray(digests[places]).view(np.dtype((np.void, digests.shape[1]))).ravel()
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.r_[True, keys[order][1:] != keys[order][:-1]])
    groups = np.split(places[order], starts[1:])
    return [Copies(tuple(sorted(group.tolist())), exact=True) for group in groups if len(group) > 1]


def near_copies(
    hashes: np.ndarray, thumbs: np.ndarray, readable: np.ndarray, *, similar: float = SIMILAR
) -> list[Copies]:
    """Groups of places that show one picture.

    Args:
        hashes: ``(N,)`` uint64.
        thumbs: ``(N, 192)`` uint8.
        readable: ``(N,)`` bool: others are left out. So is all but one of exact copies, which are told of elsewhere.
        similar: Correlation from which on thumbnails show one picture.
    """
    places = np.flatnonzero(readable)
    known = hashes[places]
    parent = np.arange(len(places))
    for first, second in _candidates(known):
        same = _similar(thumbs[places[first]], thumbs[places[second]]) >= similar
        for a, b in zip(first[same].tolist(), second[same].tolist(), strict=True):
            _join(parent, a, b)
    roots = np.asarray([_root(parent, place) for place in range(len(places))], np.int64)
    order = np.argsort(roots, kind="stable")
    starts = np.flatnonzero(np.r_[True, roots[order][1:] != roots[order][:-1]]) if len(order) else []
    groups = np.split(places[order], starts[1:])
    return [Copies(tuple(sorted(group.tolist())), exact=False) for group in groups if len(group) > 1]


def _candidates(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of places whose hashes are at most :data:`MAX_DISTANCE` bits apart."""
    orders = [np.arange(len(hashes))]
    if len(hashes) > _ALL_PAIRS:
        orders = [np.argsort(_turned(hashes, turn * 64 // _TURNS), kind="stable") for turn in range(_TURNS)]
    reach = len(hashes) - 1 if len(orders) == 1 else _NEIGHBOURS
    for order in orders:
        known = hashes[order]
        for distance in range(1, reach + 1):
            near = np.flatnonzero(_bits(known[:-distance] ^ known[distance:]) <= MAX_DISTANCE)
            for start in range(0, len(near), _PAIRS):
                part = near[start : start + _PAIRS]
                yield order[part], order[part + distance]


def _turned(hashes: np.ndarray, bits: int) -> np.ndarray:
    """Hashes with their first bits at their end: another order of nearly equal ones."""
    if bits == 0:
        return hashes
    return (hashes << np.uint64(bits)) | (hashes >> np.uint64(64 - bits))


def _bits(values: np.ndarray) -> np.ndarray:
    """How many bits of each 64-bit number are set, four 16-bit words at a time."""
    return _SET_BITS[np.ascontiguousarray(values).view(np.uint16)].reshape(-1, 4).sum(axis=1)


_SET_BITS = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(
    axis=1, dtype=np.uint8
)


def _similar(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation of thumbnails ``(K, 192)``; 0 for those that show nothing."""
    shows = (_detail(first) >= _DETAIL) & (_detail(second) >= _DETAIL)
    a, b = (values.astype(np.float32) - values.mean(axis=1, keepdims=True) for values in (first, second))
    spread = np.sqrt((a * a).mean(axis=1) * (b * b).mean(axis=1))
    return np.where(shows, (a * b).mean(axis=1) / np.maximum(spread, 1e-6), 0.0)


def _detail(thumbs: np.ndarray) -> np.ndarray:
    """How much the points of thumbnails differ within each channel."""
    return thumbs.reshape(-1, 64, 3).astype(np.float32).std(axis=1).max(axis=1)


def _root(parent: np.ndarray, place: int) -> int:
    """The place that stands for the group of another."""
    while parent[place] != place:
        parent[place] = parent[parent[place]]
        place = int(parent[place])
    return place


def _join(parent: np.ndarray, first: int, second: int) -> None:
    """Make one group of two."""
    a, b = _root(parent, first), _root(parent, second)
    parent[max(a, b)] = min(a, b)
