"""A look at data before weeks are spent on it: what cannot be read, is there twice, leaks, or differs."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mvitv2.data.across import found_classes, found_copies, normalisation
from mvitv2.data.findings import PROBLEM, Finding, Limits, Report, ranked
from mvitv2.data.labelled import DataError, LabelledImages, Pictures
from mvitv2.data.looks import Looks, looks
from mvitv2.data.open import WHOLE, Spec, forms_of, open_dataset, open_splits
from mvitv2.data.within import facts_of, found_within

ALONE = "all"
"""What data is called that is not split."""

Told = Callable[[str, int, int], None]
"""Told a split, how many of its pictures are done, and of how many."""


Data = TypeVar("Data", bound=Pictures)


@dataclass(frozen=True)
class Examined(Generic[Data]):
    """The data sets, and a look at all their pictures."""

    data: str
    datasets: Mapping[str, Data]
    looks: Mapping[str, Looks]
    refused: str
    """Why training cannot open the data; empty if it can."""
    unit: str = "pictures"
    """What is counted, in the plural."""


def preflight(
    spec: Spec,
    *,
    need: Sequence[str] = ("train", "val"),
    limits: Limits | None = None,
    threads: int | None = None,
    cached: bool = True,
    on_progress: Told | None = None,
    **options: Any,
) -> Report:
    """Look at every picture of some data and report what is found.

    Args:
        spec: In any form of :mod:`mvitv2.data.open`.
        need: Splits without which training cannot start.
        limits: From where on something is told.
        threads: That read at a time; ``None``: one per core.
        cached: Use what was seen before of files that have not changed since.
        on_progress: Told what is being done.
        **options: Fields of :class:`mvitv2.data.forms.Reading`.

    Returns:
        The report; :meth:`Report.stop_if_needed` raises where training cannot start.

    Raises:
        DataError: Not one split can be opened.
    """
    examined = examine(spec, need=need, threads=threads, cached=cached, on_progress=on_progress, **options)
    return report_on(examined, limits or Limits())


def examine(
    spec: Spec,
    *,
    need: Sequence[str] = ("train", "val"),
    threads: int | None = None,
    cached: bool = True,
    on_progress: Told | None = None,
    **options: Any,
) -> Examined[LabelledImages]:
    """Open the data as training does, or else as much of it as can be opened, and look at it.

    Raises:
        DataError: Not one split can be opened.
    """
    datasets, refused = _opened(spec, need, {**options, "on_error": "skip"})
    seen: dict[str, Looks] = {}
    for split, dataset in datasets.items():

        def told(done: int, total: int, split: str = split) -> None:
            if on_progress is not None:
                on_progress(split, done, total)

        seen[split] = looks(dataset, threads=threads, cached=cached, on_progress=told)
    data = os.fspath(spec) if isinstance(spec, str | os.PathLike) else str(spec)
    return Examined(str(data), datasets, seen, refused)


def _opened(spec: Spec, need: Sequence[str], options: dict[str, Any]) -> tuple[dict[str, LabelledImages], str]:
    """The data sets, and why training would not open them.

    Raises:
        DataError: There are none.
    """
    forms = forms_of(spec)
    try:
        return open_splits(spec, dict.fromkeys(forms), need=need, **options), ""
    except DataError as error:
        refused = error
    datasets: dict[str, LabelledImages] = {}
    if WHOLE in forms:
        return {ALONE: open_dataset(spec, **options)}, str(refused)
    for split in forms:
        try:
            datasets[split] = open_dataset(spec, split=split, **options)
        except DataError:  # the first reason is kept; what can be opened is looked at
            continue
    if not datasets:
        raise refused
    return datasets, str(refused)


def report_on(examined: Examined[LabelledImages], limits: Limits) -> Report:
    """What a look at some data tells."""
    facts = {split: facts_of(data, examined.looks[split]) for split, data in examined.datasets.items()}
    findings: list[Finding] = []
    if examined.refused:
        findings.append(Finding(PROBLEM, "refused", f"training cannot open it: {examined.refused}"))
    for split, dataset in examined.datasets.items():
        findings += found_within(split, dataset, examined.looks[split], facts[split], limits)
    findings += found_classes(examined.datasets, limits)
    findings += found_copies(examined.datasets, examined.looks, limits)
    suggested, far = normalisation(facts.get("train") or next(iter(facts.values())), limits)
    return Report(examined.data, facts, ranked([*findings, *far]), suggested, limits)
