"""From what people type for their data to data sets: one function for every form.

========================================  =======================================================================
``digits``                                scikit-learn's handwritten digits
``photos``                                a folder: ``train/`` and ``val/`` of class folders, or of tar shards;
                                          lists ``train.csv`` and ``val.csv``; shards ``train-*.tar``, ``val-*.tar``;
                                          ImageNet as it comes (a flat ``val/`` and a file of its labels)
``all.csv``                               a list with a column ``split``; CSV, TSV, JSON lines, ``path label`` lines
``s-{000..146}.tar``, ``https://...tar``  tar shards in WebDataset's form, here or behind any URL
``hf:NAME``, ``hf:FOLDER``                a Hugging Face data set; ``hf:NAME:CONFIG``, ``hf:NAME@REVISION``
``A,B``                                   training and validation data (and test data), each in any of these forms;
                                          ``hf:NAME#SPLIT`` takes one split of a Hugging Face data set
========================================  =======================================================================

``wds/`` and ``hfds/`` of timm are understood as well.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mvitv2.data.classes import class_names as names_in_file
from mvitv2.data.folder import subfolders
from mvitv2.data.forms import DigitsForm, FlatForm, FolderForm, Form, HubForm, ListForm, Reading, ShardForm
from mvitv2.data.hub import hub_splits
from mvitv2.data.labelled import DataError, LabelledImages, Transform
from mvitv2.data.remote import is_url
from mvitv2.data.splits import SPLITS, WHOLE, Spec, find_splits, missing_message, parts_by_split, role_of
from mvitv2.data.tables import TABLE_SUFFIXES, is_table, listed_splits
from mvitv2.data.truth import names_near, truth_for

BUILT_IN = ("digits",)

_NESTED = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
"""Where Kaggle's archive of ImageNet has its splits."""


def open_splits(
    spec: Spec,
    transforms: Mapping[str, Transform | None],
    *,
    need: Sequence[str] = ("train", "val"),
    classes: Sequence[str] | None = None,
    class_names: Sequence[str] | str | os.PathLike[str] | None = None,
    **options: Any,
) -> dict[str, LabelledImages]:
    """Each split that ``transforms`` names and that is there; all have the classes of the first.

    Args:
        spec: See this module.
        transforms: Split -> transform.
        need: Splits without which it is an error.
        classes: The classes the data must have, in the order of their indices; ``None``: those of the first split.
        class_names: One name per class for people, or a file of them; ``None``: for WordNet ids, a file near the data.
        **options: Fields of :class:`mvitv2.data.forms.Reading`.

    Raises:
        DataError: A needed split is missing (what is there instead is said), or data cannot be used as it lies there.
        TypeError: An unknown option.
    """
    how = Reading(**options)
    found = forms_of(spec)
    missing = [split for split in need if split not in found]
    if missing:
        raise DataError(_missing(spec, missing, found))
    opened: dict[str, LabelledImages] = {}
    for split in (split for split in found if split in transforms):
        first = next(iter(opened.values()), None)
        if first is None:
            opened[split] = _named(found[split].open(transforms[split], classes, None, how), class_names, found[split])
        else:
            opened[split] = found[split].open(transforms[split], first.classes, first.class_names, how)
    return opened


def open_dataset(
    spec: Spec,
    transform: Transform | None = None,
    *,
    split: str = "val",
    classes: Sequence[str] | None = None,
    class_names: Sequence[str] | str | os.PathLike[str] | None = None,
    **options: Any,
) -> LabelledImages:
    """One split of some data, or all of data that is not split.

    Args:
        spec: See this module.
        transform: A picture to a tensor; without one, items hold the RGB picture itself.
        split: Which, where there are any.
        classes: The classes labels are of (those of a model); ``None``: those of the data.
        class_names: One name per class for people, or a file of them.
        **options: Fields of :class:`mvitv2.data.forms.Reading`.

    Raises:
        DataError: There is no such split, or it cannot be used.
    """
    found = forms_of(spec)
    if WHOLE in found:
        return _named(found[WHOLE].open(transform, classes, None, Reading(**options)), class_names, found[WHOLE])
    if split not in found:
        raise DataError(_missing(spec, [split], found))
    return _named(found[split].open(transform, classes, None, Reading(**options)), class_names, found[split])


def _named(dataset: LabelledImages, names: Sequence[str] | str | os.PathLike[str] | None, form: Form) -> LabelledImages:
    """A data set with the names that people know its classes by.

    Raises:
        DataError: A file of names lacks some.
    """
    if names is None and isinstance(form, FolderForm | FlatForm):
        names = names_near(form.folder, dataset.classes)
    if isinstance(names, str | os.PathLike):
        names = names_in_file(names, dataset.classes)
    if names is not None:
        dataset.name_classes(dataset.classes, names)
    return dataset


def forms_of(spec: Spec) -> dict[str, Form]:
    """Where every split is, in the order train, val, test; under :data:`WHOLE` what is not split.

    Nothing is opened but what tells the forms apart.

    Raises:
        DataError: There is no such data, or it is of no form known here.
    """
    parts = parts_by_split(spec)
    if WHOLE in parts:
        return _forms(parts[WHOLE])
    return {split: _one_split(text, split) for split, text in parts.items()}


def _one_split(text: str, split: str) -> Form:
    """The form of data that is to be one split: all of it, or that split of it."""
    found = _forms(text)
    if WHOLE in found or split in found:
        return found.get(WHOLE) or found[split]
    if len(found) == 1:
        return next(iter(found.values()))
    raise DataError(f"{text}: has no split {split}, it has {', '.join(found)}")


def _forms(text: str) -> dict[str, Form]:
    """The splits of one piece of data."""
    if text in BUILT_IN:  # a folder of that name is ./digits
        return {split: DigitsForm(split) for split in SPLITS}
    for prefix in ("hf:", "hfds/"):
        if text.startswith(prefix) and not text.startswith("hf://") and not Path(text).exists():
            return _hub_forms(text.removeprefix(prefix))
    if text.startswith("wds/") and not Path(text).exists():
        text = text.removeprefix("wds/")
    path = Path(text)
    if is_url(text) or text.lower().endswith(".tar") or ("{" in text and not path.exists()):
        return {WHOLE: ShardForm((text,))}
    if path.is_file():
        return _list_forms(path)
    return _folder_forms(path)


def _hub_forms(name: str) -> dict[str, Form]:
    """The splits of a Hugging Face data set by our names; ``NAME#SPLIT`` is one alone."""
    name, _, wanted = name.partition("#")
    if wanted:
        return {WHOLE: HubForm(name, wanted)}
    there = list(hub_splits(name))
    found: dict[str, Form] = {}
    for split, known in SPLITS.items():
        theirs = next((own for own in there if own.lower() in known), None)
        if theirs is not None:
            found[split] = HubForm(name, theirs)
    if found:
        return found
    if len(there) == 1:
        return {WHOLE: HubForm(name, there[0])}
    raise DataError(f"hf:{name}: none of its splits {', '.join(there)} is a known one; choose with hf:{name}#SPLIT")


def _list_forms(path: Path) -> dict[str, Form]:
    """The splits in a list, by its column of them."""
    if path.suffix.lower() not in TABLE_SUFFIXES:
        kinds = ", ".join(TABLE_SUFFIXES)
        raise DataError(
            f"{path}: is a file of no form known here; expected a folder, a list ({kinds}) or shards (.tar)"
        )
    splits = listed_splits(path)
    if not splits:
        return {WHOLE: ListForm(path)}
    found: dict[str, Form] = {s: ListForm(path, s, known) for s, known in SPLITS.items() if splits & {s, *known}}
    if not found:
        raise DataError(f"{path}: its column of splits says {', '.join(sorted(splits))}; expected train, val, test")
    return found


def _folder_forms(folder: Path) -> dict[str, Form]:
    """The splits in a folder.

    Raises:
        DataError: It cannot be listed.
    """
    folder = next((folder / nested for nested in _NESTED if (folder / nested).is_dir()), folder)
    if (folder / "dataset_dict.json").is_file():
        return _hub_forms(str(folder))
    inside = subfolders(folder)
    classed = find_splits(folder)
    files = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    found: dict[str, Form] = {}
    for split, known in SPLITS.items():
        plain = [folder / name for name in inside if name.lower() in known]
        form = _split_form(folder, files, classed.get(split) or next(iter(plain), None), split)
        if form is not None:
            found[split] = form
    if found:
        return found
    tables = [name for name in files if Path(name).suffix.lower() in TABLE_SUFFIXES[:4]]
    if not inside and len(tables) == 1:
        return _list_forms(folder / tables[0])
    tars = tuple(str(folder / name) for name in files if name.endswith(".tar"))
    return {WHOLE: ShardForm(tars) if tars else FolderForm(folder)}


def _split_form(folder: Path, files: Sequence[str], own: Path | None, split: str) -> Form | None:
    """How one split lies in a folder: in a folder of its own, in a list, or in shards called so; or not at all."""
    classes = [] if own is None else subfolders(own)
    if own is not None and classes not in ([], ["images"]):
        return FolderForm(own)
    known = SPLITS[split]
    if own is not None and (tars := tuple(str(path) for path in sorted(own.glob("*.tar")))):
        return ShardForm(tars)
    lists = [n for n in files if Path(n).stem.lower() in known and Path(n).suffix.lower() in TABLE_SUFFIXES]
    if len(lists) > 1:
        raise DataError(f"{folder} has {' and '.join(lists)}, both of which list the {split} split; keep one")
    if lists and is_table(folder / lists[0]):
        return ListForm(folder / lists[0], split, known)
    truth = None if own is None else truth_for(own, split)
    if own is not None and truth is not None:
        return FlatForm(own, truth)
    if own is not None and classes:
        return FolderForm(own)
    tars = tuple(str(folder / name) for name in files if name.endswith(".tar") and role_of(name) == split)
    return ShardForm(tars) if tars else None


def _missing(spec: Spec, missing: Sequence[str], found: Mapping[str, Form]) -> str:
    """What is there instead of the missing splits, and what to do."""
    wanted = " and ".join(missing)
    if isinstance(spec, str | os.PathLike) and Path(spec).is_dir():
        forms = found.values()
        if all(isinstance(form, FolderForm) for form in forms):
            folders = {split: form.folder for split, form in found.items() if isinstance(form, FolderForm) and split}
            return missing_message(Path(spec), missing, folders)
    if WHOLE in found:
        column = ", or add a column 'split' to the list" if isinstance(found[WHOLE], ListForm) else ""
        return f"{spec}: is one piece of data, without {wanted}; give a part for each split, as in TRAIN,VAL{column}"
    there = ", ".join(found)
    return f"{spec}: has {there}, but no {wanted}; give a part for each split, as in TRAIN,VAL"
