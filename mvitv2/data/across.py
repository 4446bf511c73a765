"""What is found between splits: pictures that are there twice, leaks, classes that differ, the normalisation."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mvitv2.data.duplicates import Copies, exact_copies, near_copies
from mvitv2.data.findings import KEPT, NOTE, WARNING, Finding, Limits, SplitFacts, plural, some
from mvitv2.data.labelled import Pictures
from mvitv2.data.looks import Looks
from mvitv2.preprocessing import IMAGENET_MEAN, IMAGENET_STD


class Classed(Protocol):
    """Data with classes that are counted."""

    @property
    def counts(self) -> dict[str, int]: ...

    @property
    def spoken_classes(self) -> tuple[str, ...]: ...


Place = tuple[str, int]
"""A split, and an index in it."""


def found_copies(datasets: Mapping[str, Pictures], seen: Mapping[str, Looks], limits: Limits) -> list[Finding]:
    """Pictures that are there more than once: in one split, under two classes, or in two splits."""
    found: list[Finding] = []
    for kind, groups in copies(seen, limits).items():
        what = "the same file" if kind == "same" else "nearly the same picture"
        sorted_groups: dict[tuple[str, ...], list[list[Place]]] = defaultdict(list)
        for group in groups:
            sorted_groups[tuple(dict.fromkeys(split for split, _ in group))].append(group)
        for splits, members in sorted_groups.items():
            contrary = [group for group in members if len(_names(datasets, group)) > 1]
            agreeing = [group for group in members if group not in contrary]
            for some_groups, aside in ((agreeing, ""), (contrary, "-contrary")):
                if some_groups:
                    found.append(_copies_finding(datasets, f"{kind}{aside}", what, splits, some_groups))
    return found


def copies(seen: Mapping[str, Looks], limits: Limits) -> dict[str, list[list[Place]]]:
    """Groups of places that hold ``"same"`` files, and of those that show ``"near"`` the same picture."""
    places = [(split, index) for split, looks in seen.items() for index in range(len(looks.hashes))]
    digests = np.concatenate([looks.digests for looks in seen.values()])
    readable = np.concatenate([looks.readable for looks in seen.values()])
    exact = exact_copies(digests, readable)
    once = readable.copy()
    for group in exact:
        once[list(group.places[1:])] = False
    near = near_copies(
        np.concatenate([looks.hashes for looks in seen.values()]),
        np.concatenate([looks.thumbs for looks in seen.values()]),
        once,
        similar=limits.similar,
    )
    return {"same": _spelled(exact, places), "near": _spelled(near, places)}


def _spelled(groups: Sequence[Copies], places: Sequence[Place]) -> list[list[Place]]:
    """Groups by split and index."""
    return [[places[place] for place in group.places] for group in groups]


def _names(datasets: Mapping[str, Pictures], group: Sequence[Place]) -> set[str]:
    """The classes that a group is under."""
    return {datasets[split].told(index) for split, index in group}


def _copies_finding(
    datasets: Mapping[str, Pictures], kind: str, what: str, splits: Sequence[str], groups: list[list[Place]]
) -> Finding:
    """A sentence on some groups of copies."""
    examples = tuple(" = ".join(str(datasets[split].path(i)) for split, i in group) for group in groups[:KEPT])
    contrary = kind.endswith("contrary")
    under = ", under different classes" if contrary else ""
    number = plural(len(groups), "group")
    if len(splits) > 1:
        leaked = plural(sum(split != splits[0] for group in groups for split, _ in group), "picture")
        text = f"{what} in {' and in '.join(splits)}{under}: {leaked} leaked, in {number}"
        return Finding(WARNING, f"leak-{kind}", text, "", len(groups), examples)
    severity = NOTE if kind == "near" and splits[0] == "train" else WARNING
    text = f"{what} more than once in {splits[0]}{under}, in {number}"
    return Finding(severity, kind, text, splits[0], len(groups), examples)


def found_classes(datasets: Mapping[str, Classed], limits: Limits, what: str = "picture") -> Iterator[Finding]:
    """Classes that differ between splits, have few of ``what`` is counted, or far fewer than others."""
    first, *others = datasets
    for split in others:
        yield from _differing(first, split, datasets[first], datasets[split], what)
    if first not in ("train", "all"):
        return
    counts = dict(zip(datasets[first].spoken_classes, datasets[first].counts.values(), strict=True))
    few = [name for name, count in counts.items() if count < limits.min_images]
    if few:
        told = f"{plural(len(few), 'class', 'classes')} of {first} with fewer than {limits.min_images} {what}s"
        text = f"{told}: {some(few)}"
        yield Finding(WARNING, "few", text, first, len(few), tuple(f"{name}: {counts[name]}" for name in few[:KEPT]))
    least, most = min(counts.items(), key=_second), max(counts.items(), key=_second)
    if most[1] > limits.max_imbalance * max(least[1], 1):
        text = (
            f"{first} is unbalanced: {most[0]} has {plural(most[1], what)}, {least[0]} has {least[1]}; "
            "class weights or balanced sampling help"
        )
        yield Finding(
            WARNING, "imbalance", text, first, len(counts), (f"{most[0]}: {most[1]}", f"{least[0]}: {least[1]}")
        )


def _second(item: tuple[str, int]) -> int:
    return item[1]


def _differing(first: str, split: str, mine: Classed, its: Classed, what: str) -> Iterator[Finding]:
    """Classes that one split has and the other has not."""
    article = "an" if what[0] in "aeiou" else "a"
    here, there = ({name for name, count in data.counts.items() if count} for data in (mine, its))
    for names, where, other in ((here - there, first, split), (there - here, split, first)):
        if names:
            listed = sorted(names)
            text = f"{plural(len(names), 'class', 'classes')} of {where} without {article} {what} in {other}"
            text = f"{text}: {some(listed)}"
            yield Finding(WARNING, "classes", text, other, len(names), tuple(listed[:KEPT]))


def normalisation(facts: SplitFacts, limits: Limits) -> tuple[dict[str, Any], list[Finding]]:
    """What to normalise by: ImageNet's figures, unless the pictures are far from them."""
    usual = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD), "source": "imagenet"}
    pairs = list(zip(facts.mean, facts.std, IMAGENET_MEAN, IMAGENET_STD, strict=True))
    ratios = [max(std, 1e-6) / theirs for _, std, _, theirs in pairs]
    far = any(abs(mean - theirs) > limits.mean_distance for mean, _, theirs, _ in pairs) or any(
        not 1 / limits.std_ratio <= ratio <= limits.std_ratio for ratio in ratios
    )
    if not far or facts.images == facts.unreadable:
        return usual, []
    mean, std = [round(value, 3) for value in facts.mean], [round(max(value, 0.01), 3) for value in facts.std]
    text = (
        f"pictures are far from ImageNet's: mean {_spoken(facts.mean)} and deviation {_spoken(facts.std)} instead of "
        f"{_spoken(IMAGENET_MEAN)} and {_spoken(IMAGENET_STD)}; training from scratch, normalise by their own"
    )
    return {"mean": mean, "std": std, "source": "measured"}, [Finding(NOTE, "normalisation", text)]


def _spoken(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)
