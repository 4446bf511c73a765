"""From what people type for their clips to data sets: the forms of :mod:`mvitv2.data.open`, and those of the peers.

========================================  =======================================================================
``clips``                                 a folder: ``train/`` and ``val/`` of class folders of files, or of folders of
                                          pictures; lists ``train.csv`` and ``val.csv``; shards; Something-Something
                                          v2 with its ``.json`` files
``all.csv``                               a list: ``path label`` lines as SlowFast's, CSV, TSV, JSON lines, Kinetics'
                                          annotations, SlowFast's lists of frames, mmaction2's ``folder frames label``
``s-{000..146}.tar``, ``https://...tar``  tar shards in WebDataset's form, of ``.mp4`` and ``.cls``
``A,B``                                   training and validation data, each in any of these forms
========================================  =======================================================================
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvitv2.data.classes import class_file_in, class_list
from mvitv2.data.classes import class_names as names_in_file
from mvitv2.data.forms import FolderForm, Form, ListForm, Reading, ShardForm
from mvitv2.data.labelled import DataError, Labelled
from mvitv2.data.open import WHOLE, Spec, forms_of
from mvitv2.data.shards import TarShards
from mvitv2.data.video.clips import LabelledClips
from mvitv2.data.video.files import clip_folder, clip_list, something, something_list

Maker = Callable[[Labelled], LabelledClips]
"""Such as ``functools.partial(TrainingClips, sampling=..., transform=...)``."""


@dataclass(frozen=True)
class SomethingForm:
    """A list of Something-Something v2."""

    path: Path


ClipForm = Form | SomethingForm


def open_clips(
    spec: Spec,
    makers: Mapping[str, Maker],
    *,
    need: Sequence[str] = ("train", "val"),
    classes: Sequence[str] | None = None,
    class_names: Sequence[str] | str | os.PathLike[str] | None = None,
    **options: object,
) -> dict[str, LabelledClips]:
    """Each split that ``makers`` names and that is there; all have the classes of the first.

    Args:
        spec: See this module.
        makers: Split -> what makes the data set of it.
        need: Splits without which it is an error.
        classes: The classes the data must have; ``None``: those of the first split.
        class_names: One name per class for people, or a file of them.
        **options: Fields of :class:`mvitv2.data.forms.Reading`.

    Raises:
        DataError: A needed split is missing, or data cannot be used as it lies there.
    """
    found = clip_forms(spec)
    missing = [split for split in need if split not in found]
    if missing:
        there = "one piece, not split" if WHOLE in found else ", ".join(found)
        wanted = " and ".join(missing)
        raise DataError(f"{spec}: looked for {wanted}; there is {there}; give a part for each split, as in TRAIN,VAL")
    how = Reading(**options)  # type: ignore[arg-type]
    opened: dict[str, LabelledClips] = {}
    names: Sequence[str] | None = None
    for split in (split for split in found if split in makers):
        files = files_of(found[split], classes, names, how)
        if classes is None or names is None:
            names = _spoken(class_names, files)
            files.name_classes(files.classes, names)
            classes = files.classes
        opened[split] = makers[split](files)
    return opened


def _spoken(given: Sequence[str] | str | os.PathLike[str] | None, files: Labelled) -> Sequence[str]:
    """The names that people know the classes by."""
    if isinstance(given, str | os.PathLike):
        return names_in_file(given, files.classes)
    return files.class_names if given is None else given


def open_clip_files(
    spec: Spec, *, split: str = "val", classes: Sequence[str] | None = None, **options: object
) -> Labelled:
    """Where the clips of one split lie, or all of data that is not split.

    Raises:
        DataError: There is no such split, or it cannot be used.
    """
    found = clip_forms(spec)
    form = found.get(WHOLE) or found.get(split)
    if form is None:
        raise DataError(f"{spec}: has no split {split}, it has {', '.join(found)}")
    return files_of(form, classes, None, Reading(**options))  # type: ignore[arg-type]


def clip_forms(spec: Spec) -> dict[str, ClipForm]:
    """Where every split is, in the order train, val, test; under :data:`WHOLE` what is not split.

    Raises:
        DataError: There is no such data, or it is of no form known here.
    """
    if isinstance(spec, str | os.PathLike) and Path(spec).is_dir():
        for folder in (Path(spec), Path(spec) / "labels"):
            if lists := something(folder):
                return {split: SomethingForm(path) for split, path in lists.items()}
    return dict(forms_of(spec))


def files_of(form: ClipForm, classes: Sequence[str] | None, names: Sequence[str] | None, how: Reading) -> Labelled:
    """Where the clips of one split lie.

    Raises:
        DataError: The form holds no clips, or it cannot be used.
    """
    if isinstance(form, FolderForm):
        return clip_folder(form.folder, classes, names)
    if isinstance(form, SomethingForm):
        folder = form.path.parent
        root = folder.parent if folder.name == "labels" else folder
        return something_list(form.path, Path(how.data_root) if how.data_root else root, classes, names)
    if isinstance(form, ListForm):
        file = Path(how.classes_file) if how.classes_file is not None else class_file_in(form.path.parent)
        if classes is None and file is not None:
            classes, listed = class_list(file)
            names = listed if names is None else names
        return clip_list(form.path, form.split, form.spellings, classes, names, how)
    if isinstance(form, ShardForm):
        return TarShards(form.shards, classes=classes, class_names=names, cache=how.cache)
    raise DataError(f"{form}: holds no clips; they lie in class folders, lists, shards or Something-Something's form")
