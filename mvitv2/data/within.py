"""What is found in one split: its figures, files that cannot be read, sizes, shapes and colours."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mvitv2.data.findings import KEPT, NOTE, PROBLEM, WARNING, Finding, Limits, SplitFacts, plural, some
from mvitv2.data.labelled import LabelledImages, Pictures
from mvitv2.data.looks import Looks


def found_within(split: str, dataset: LabelledImages, seen: Looks, facts: SplitFacts, limits: Limits) -> list[Finding]:
    """All findings of one split."""
    return [
        *(Finding(WARNING, "note", note, split) for note in dataset.notes),
        *found_in_pictures(split, dataset, seen, facts, limits),
        *_emptied(split, dataset, seen),
    ]


def found_in_pictures(split: str, dataset: Pictures, seen: Looks, facts: SplitFacts, limits: Limits) -> list[Finding]:
    """What there is to say about the pictures of a split, whatever is known of them."""
    return [
        *_reading(split, dataset, seen, limits),
        *_sizes(split, dataset, seen, limits),
        *_colours(split, dataset, seen, facts),
    ]


def facts_of(dataset: LabelledImages, seen: Looks) -> SplitFacts:
    """Figures of one split."""
    counts = dict(zip(dataset.spoken_classes, dataset.counts.values(), strict=True))
    return SplitFacts(counts=counts, **picture_facts(dataset, seen))


def picture_facts(dataset: Pictures, seen: Looks) -> dict[str, Any]:
    """Fields of :class:`SplitFacts`, but for the classes."""
    good = seen.readable
    number = int(good.sum())
    short = np.sort(seen.sizes[good].min(axis=1)) if number else np.zeros(1, int)
    mean, square = seen.moments[good].astype(np.float64).mean(axis=0) if number else np.zeros((2, 3))
    std = np.sqrt(np.maximum(square - mean**2, 0))
    kinds = Counter(seen.kinds[code] for code in seen.codes[good].tolist())
    return {
        "images": len(dataset),
        "unreadable": len(dataset) - number,
        "kinds": dict(kinds.most_common()),
        "sides": (int(short[0]), int(short[len(short) // 2]), int(short[-1])),
        "mean": tuple(round(float(value), 4) for value in mean),
        "std": tuple(round(float(value), 4) for value in std),
    }


def paths(dataset: Pictures, places: Sequence[int] | np.ndarray) -> tuple[str, ...]:
    """The files of some places."""
    return tuple(str(dataset.path(int(place))) for place in places[:KEPT])


def _reading(split: str, dataset: Pictures, seen: Looks, limits: Limits) -> Iterator[Finding]:
    """Files that are no readable picture."""
    if not seen.faults:
        return
    share = len(seen.faults) / len(dataset)
    severity = PROBLEM if share > limits.max_unreadable else WARNING
    examples = tuple(f"{dataset.path(place)}: {reason}" for place, reason in sorted(seen.faults.items())[:KEPT])
    count = len(seen.faults)
    text = f"{plural(count, 'picture')} of {split} cannot be read ({100 * share:.1f} %); they are left out and counted"
    yield Finding(severity, "unreadable", text, split, count, examples)


def _emptied(split: str, dataset: LabelledImages, seen: Looks) -> Iterator[Finding]:
    """Classes of which nothing can be read."""
    if not seen.faults:
        return
    left = np.bincount(dataset.labels[seen.readable], minlength=len(dataset.classes))
    there = np.bincount(dataset.labels, minlength=len(dataset.classes))
    gone = tuple(dataset.spoken_classes[place] for place in np.flatnonzero((left == 0) & (there > 0)))
    if gone:
        text = f"{plural(len(gone), 'class', 'classes')} of {split} without a readable picture: {some(gone)}"
        yield Finding(PROBLEM if split == "train" else WARNING, "empty", text, split, len(gone), gone[:KEPT])


def _sizes(split: str, dataset: Pictures, seen: Looks, limits: Limits) -> Iterator[Finding]:
    """Pictures that are tiny or of an odd shape."""
    good = seen.readable
    short, long = seen.sizes.min(axis=1), seen.sizes.max(axis=1)
    tiny = np.flatnonzero(good & (short < limits.min_side))
    odd = np.flatnonzero(good & (long > limits.max_aspect * short))
    for kind, places, what in (
        ("tiny", tiny, f"a side below {limits.min_side} pixels"),
        ("aspect", odd, f"a shape longer than {limits.max_aspect:g} to 1"),
    ):
        if len(places):
            names = tuple(f"{dataset.path(int(p))}: {seen.sizes[p][0]} x {seen.sizes[p][1]}" for p in places[:KEPT])
            text = f"{plural(len(places), 'picture')} of {split} with {what}"
            yield Finding(WARNING, kind, text, split, len(places), names)


def _colours(split: str, dataset: Pictures, seen: Looks, facts: SplitFacts) -> Iterator[Finding]:
    """Pictures whose colours are converted before the model sees them."""
    modes: Counter[str] = Counter()
    for kind, count in facts.kinds.items():
        modes[kind.partition(" ")[2]] += count
    gray = sum(count for mode, count in modes.items() if mode in ("L", "1"))
    total = facts.images - facts.unreadable
    if total and gray == total:
        yield Finding(
            NOTE, "gray", f"all pictures of {split} are gray; channels=gray trains on one channel", split, gray
        )
    elif gray:
        text = f"{gray} of {total} pictures of {split} are gray; their channels are made equal"
        yield Finding(NOTE, "gray", text, split, gray)
    other = {mode: count for mode, count in modes.items() if mode not in ("RGB", "L", "1")}
    if other:
        listed = ", ".join(f"{count} {mode}" for mode, count in other.items())
        text = f"{plural(sum(other.values()), 'picture')} of {split} in other colour modes ({listed}) are made RGB"
        alpha = ", transparent parts white" if any("A" in mode or "alpha" in mode for mode in other) else ""
        codes = [code for code, kind in enumerate(seen.kinds) if kind.partition(" ")[2] in other]
        places = np.flatnonzero(seen.readable & np.isin(seen.codes, codes))[:KEPT].tolist()
        examples = tuple(f"{dataset.path(place)}: {seen.kinds[seen.codes[place]]}" for place in places)
        yield Finding(WARNING, "colours", text + alpha, split, sum(other.values()), examples)
