"""A folder of pictures without class folders, and a file that says what each is: ImageNet's validation set as it comes.

Read are the forms it is handed around in: ``val.txt`` (``name index`` or ``name wnid``), Kaggle's
``LOC_val_solution.csv``, Tiny ImageNet's ``val_annotations.txt``, one WordNet id a line in the order of the files, and
the development kit's ground truth, whose numbers are an order of their own that ``meta.mat`` explains.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mvitv2.data.labelled import DataError, Transform
from mvitv2.data.listed import ImageList
from mvitv2.data.names import shown
from mvitv2.data.sources import walk
from mvitv2.data.tables import Rows
from mvitv2.extras import required

WNID = re.compile(r"n\d{8}")
NAME_FILES = (
    "LOC_synset_mapping.txt", "synset_words.txt", "imagenet_class_index.json", "imagenet1k_classes.tsv", "words.txt",
)  # fmt: skip
"""Files that give WordNet ids their names."""
_KITS = ("devkit/data", "ILSVRC2012_devkit_t12/data")
"""Where the development kit lies beside the splits."""
_PATTERNS = (
    "{split}.txt", "{split}_labels.txt", "{split}_annotations.txt", "LOC_{split}_solution.csv", "*_synset_labels.txt",
    "*_ground_truth.txt", "ground_truth.txt",
)  # fmt: skip


def truth_for(folder: Path, split: str) -> Path | None:
    """The file that says what the pictures directly in ``folder`` are, in it or near it."""
    above = _above(folder)
    spots = [*above, *(spot / kit for spot in above for kit in _KITS)]
    found = (
        path
        for spot in spots
        if spot.is_dir()
        for pattern in _PATTERNS
        for path in sorted(spot.glob(pattern.format(split=split)))
    )
    return next((path for path in found if path.is_file()), None)


def names_near(folder: Path, classes: Sequence[str]) -> Path | None:
    """The file that gives WordNet ids their names, in ``folder`` or above it; ``None`` for classes of other names."""
    if not all(WNID.fullmatch(name) for name in classes):
        return None
    return next((spot / name for spot in _above(folder) for name in NAME_FILES if (spot / name).is_file()), None)


def _above(folder: Path) -> list[Path]:
    """A folder and the one it is in; in Kaggle's archive all up to its root."""
    folder = folder.absolute()
    return [folder, *folder.parents][: 5 if folder.parent.name == "CLS-LOC" else 2]


def open_flat(
    folder: Path,
    truth: Path,
    transform: Transform | None = None,
    *,
    classes: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    **options: Any,
) -> ImageList:
    """The pictures below a folder, with the labels of a file.

    Args:
        folder: Holds pictures, not sorted into classes.
        truth: Of :func:`truth_for`.
        transform: A picture to a tensor.
        classes: Of the training split, sorted; numbers in the file count them.
        class_names: One name per class, for people.
        **options: ``on_error`` and ``max_pixels``.

    Raises:
        DataError: Pictures without a label (they are listed), other numbers of labels than pictures, or numbers in the
            order of the development kit without its ``meta.mat``.
    """
    files = [str(path.relative_to(folder)) for path in walk(folder) if isinstance(path, Path)]
    lines = [(n, line.split()) for n, line in enumerate(_text(truth).replace(",", " ").splitlines(), 1) if line.strip()]
    if all(len(words) == 1 for _, words in lines):
        rows = _in_order(truth, sorted(files), lines, folder)
    else:
        rows = _by_name(truth, files, lines, folder)
    return ImageList(rows, transform, roots=[folder], classes=classes, class_names=class_names, **options)


def _text(truth: Path) -> str:
    try:
        return truth.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{truth}: labels cannot be read ({error})") from error


def _in_order(truth: Path, files: list[str], lines: list[tuple[int, list[str]]], folder: Path) -> Rows:
    """The label of every file from the line of its place.

    Raises:
        DataError: There are more files than lines, or fewer.
    """
    labels = [words[0] for _, words in lines]
    if len(files) != len(labels):
        raise DataError(
            f"{truth} has {len(labels)} labels, in the order of the files, but {folder} has {len(files)} pictures; "
            "complete it, or write the name of the file before each label"
        )
    if all(label.isdecimal() for label in labels) and min(map(int, labels)) > 0:
        explained = _devkit_ids(truth)
        unknown = {label for label in labels if int(label) not in explained}
        if unknown:
            raise DataError(f"{truth}: meta.mat beside it does not explain {shown(unknown)}")
        labels = [explained[int(label)] for label in labels]
    return Rows(truth, files, labels, lines=[number for number, _ in lines])


def _by_name(truth: Path, files: list[str], lines: list[tuple[int, list[str]]], folder: Path) -> Rows:
    """The label of every file from the line that names it, with or without its suffix.

    Raises:
        DataError: Some are not named.
    """
    said = {Path(words[0]).name: (number, words[1]) for number, words in lines if len(words) > 1}
    found = [(name, said.get(Path(name).name) or said.get(Path(name).stem)) for name in files]
    unlabelled = [name for name, line in found if line is None]
    if unlabelled:
        raise DataError(
            f"{truth} has no label for {len(unlabelled)} of {len(files)} pictures of {folder}: {shown(unlabelled)}"
        )
    numbers, labels = zip(*(line for _, line in found if line is not None), strict=True)
    return Rows(truth, files, list(labels), lines=list(numbers))


def _devkit_ids(truth: Path) -> dict[int, str]:
    """WordNet ids by the development kit's numbers.

    Raises:
        DataError: ``meta.mat`` is not there, or is something else.
    """
    spots = [truth.parent, *(spot / kit for spot in (truth.parent, truth.parent.parent) for kit in ("data", *_KITS))]
    meta = next((spot / "meta.mat" for spot in spots if (spot / "meta.mat").is_file()), None)
    if meta is None:
        raise DataError(
            f"{truth}: its numbers begin with 1, which is the order of the development kit and not that of the "
            "classes; put meta.mat of the same kit beside it, or use a list of WordNet ids"
        )
    reader = required("scipy.io", extra="train")
    try:
        table = reader.loadmat(meta, squeeze_me=True)["synsets"]
        leaves = [(int(row["ILSVRC2012_ID"]), str(row["WNID"])) for row in table if int(row["num_children"]) == 0]
    except (ValueError, KeyError, TypeError, IndexError, OSError, reader.matlab.MatReadError) as error:
        raise DataError(f"{meta}: is not the development kit's table of classes ({error})") from error
    return dict(leaves)
