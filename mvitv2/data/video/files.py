"""Where labelled clips lie, in the forms of the peers: class folders, lists, Kinetics, Something-Something, raw frames.

A clip is a file or a folder of pictures. What a published list names and is not on the disk is left out with a note,
because videos vanish from where such lists point; what a list of one's own names stays in, to be found unreadable.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mvitv2.data.classes import numbered, unknown_message
from mvitv2.data.folder import ImageFolder
from mvitv2.data.labelled import DataError, Labelled, file_stamp
from mvitv2.data.listed import ListReading, open_list
from mvitv2.data.names import PackedNames, shown
from mvitv2.data.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from mvitv2.data.tables import read_rows

_FRAME_LIST = "original_vido_id"  # spelled so in SlowFast's own files
_KINETICS = ("youtube_id", "time_start", "time_end")
_COUNTED = re.compile(r"(.+?)\s+(\d+)")
_LABELS = re.compile(r"(?:something-something-v2-)?labels\.json")


Classes = Sequence[str] | None


class ClipFiles(Labelled):
    """Clips that are files, or folders of pictures.

    Attributes:
        root: Folder that their names start from.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        labels: Sequence[str] | np.ndarray,
        *,
        classes: Sequence[str] | None,
        class_names: Sequence[str] | None = None,
        notes: Sequence[str] = (),
        what: str = "",
    ) -> None:
        """Number the labels; no clip is opened.

        Args:
            root: Folder that names start from.
            names: Of files or folders.
            labels: Names or numbers of classes; an array holds numbers.
            classes: What they are of; ``None``: they are the names themselves.
            class_names: One name per class, for people.
            notes: About what was left out.
            what: What to call the set.

        Raises:
            DataError: There are no clips, or unknown labels.
        """
        super().__init__()
        self.root, self._what = root, what or str(root)
        if not len(names):
            raise DataError(f"{self._what}: holds no clips; expected CLASS/clip.mp4, or CLASS/clip/00001.jpg")
        if isinstance(labels, np.ndarray):
            self.labels = labels
            self.name_classes(classes or (), class_names)
        else:
            self.labels, known, unknown = numbered(labels, classes)
            if unknown:
                raise DataError(f"{self._what}: {unknown_message(unknown, known)}")
            self.name_classes(known, class_names)
        self._names = PackedNames(names)
        self.notes = tuple(notes)

    def __str__(self) -> str:
        return self._what

    def path(self, index: int) -> Path:
        """The file or the folder of a sample."""
        return self.root / self._names[index]

    def source(self, index: int) -> Path:
        """The file or the folder of a sample."""
        return self.path(index)

    def stamp(self, index: int) -> str:
        """Name, size and time of it."""
        return file_stamp(self.path(index))


def clip_folder(
    root: Path, classes: Sequence[str] | None = None, class_names: Sequence[str] | None = None
) -> ClipFiles:
    """The clips below ``root``, one class per folder in it: files, and folders of pictures.

    Raises:
        DataError: No such folder, no class folders, no clips, or other classes than ``classes``.
    """
    both = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    found = ImageFolder(root, classes=classes, class_names=class_names, suffixes=both, noun="clips")
    labels: dict[str, int] = {}
    stray = 0
    for index in range(len(found)):
        name = found.path(index).relative_to(root)
        if name.suffix.lower() not in VIDEO_SUFFIXES:
            if len(name.parts) == 2:  # CLASS/picture.jpg
                stray += 1
                continue
            name = name.parent
        labels.setdefault(str(name), int(found.labels[index]))
    notes = [f"{stray} pictures directly in class folders of {root} are left out; frames of a clip lie in a folder"]
    missing = sorted(set(range(len(found.classes))) - set(labels.values()))
    if missing:
        names = shown([found.classes[place] for place in missing])
        raise DataError(f"{root}: {len(missing)} class folders hold no clips: {names}; expected files such as clip.mp4")
    options = {"classes": found.classes, "class_names": found.class_names, "notes": notes[: bool(stray)]}
    return ClipFiles(root, list(labels), np.asarray(list(labels.values()), np.int64), **options)


def clip_list(
    path: Path, split: str | None, spellings: Sequence[str], classes: Sequence[str] | None,
    class_names: Sequence[str] | None, how: ListReading,
) -> Labelled:  # fmt: skip
    """The clips that a list names: ``path label`` lines, CSV, TSV and JSON lines, and three forms of the peers.

    SlowFast's lists of frames, mmaction2's ``folder frames label`` lines, and Kinetics' annotations are told by how
    they begin.

    Raises:
        DataError: The list cannot be used.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline().strip()
    root = Path(how.data_root) if how.data_root is not None else path.parent
    if first.startswith(_FRAME_LIST):
        names, labels = _frame_list(path)
        return ClipFiles(root, names, labels, classes=classes, class_names=class_names, what=str(path))
    if all(name in first for name in _KINETICS):
        return _kinetics(path, root, (split, *spellings) if split else (), classes, class_names)
    counted = _COUNTED.fullmatch(first.rsplit(None, 1)[0]) if len(first.split()) >= 3 and "," not in first else None
    if counted and (root / counted[1]).is_dir():
        rows = read_rows(path)
        names = [match[1] if (match := _COUNTED.fullmatch(name)) else name for name in rows.files]
        return ClipFiles(root, names, rows.labels, classes=classes, class_names=class_names, what=str(path))
    return open_list(path, split=split, spellings=spellings, classes=classes, class_names=class_names, reading=how)


def _frame_list(path: Path) -> tuple[list[str], list[str]]:
    """Folders and labels of SlowFast's ``original_vido_id video_id frame_id path labels``.

    Raises:
        DataError: Lines are incomplete, a clip's frames lie in several folders, or there are no labels.
    """
    folders: dict[str, set[str]] = {}
    labels: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines()[1:], 2):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != 5:
            raise DataError(f"{path}: line {number} has {len(cells)} columns, expected 5: {_FRAME_LIST} ... labels")
        folders.setdefault(cells[0], set()).add(str(Path(cells[3]).parent))
        labels.setdefault(cells[0], cells[4].strip('"').partition(",")[0])
    mixed = [name for name, places in folders.items() if len(places) > 1]
    bare = [name for name, label in labels.items() if not label]
    if mixed or bare:
        why = f"frames in several folders: {shown(mixed)}" if mixed else f"no label: {shown(bare)}"
        hint = "" if mixed else "; labels of Something-Something are in its .json files: give the folder of those"
        raise DataError(f"{path}: {len(mixed or bare)} clips have {why}{hint}")
    return [next(iter(places)) for places in folders.values()], [labels[name] for name in folders]


def _kinetics(
    path: Path, root: Path, splits: Sequence[str], classes: Sequence[str] | None, class_names: Sequence[str] | None
) -> ClipFiles:
    """Kinetics' annotations: ``label,youtube_id,time_start,time_end,split``, of the files that are there."""
    import csv

    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.DictReader(file) if not splits or not row.get("split") or row["split"] in splits]
    stems = [
        f"{row['youtube_id']}_{int(float(row['time_start'])):06d}_{int(float(row['time_end'])):06d}" for row in rows
    ]
    if rows and not rows[0].get("label"):
        raise DataError(f"{path}: lists clips without labels; the test lists of Kinetics come without")
    return _published(path, root, stems, [row["label"] for row in rows], classes, class_names)


def something(folder: Path) -> dict[str, Path]:
    """The lists of Something-Something v2 in a folder, by split; nothing where it has none."""
    found: dict[str, Path] = {}
    if not any(_LABELS.fullmatch(path.name) for path in folder.glob("*labels.json")):
        return found
    for split, words in (("train", ("train",)), ("val", ("validation", "val")), ("test", ("test",))):
        names = (f"{start}{word}.json" for word in words for start in ("something-something-v2-", ""))
        there = next((folder / name for name in names if (folder / name).is_file()), None)
        if there is not None:
            found[split] = there
    return found


def something_list(
    path: Path, root: Path, classes: Sequence[str] | None, class_names: Sequence[str] | None
) -> ClipFiles:
    """A list of Something-Something v2: ``id`` and ``template`` of each clip; classes in the order of its labels file.

    Raises:
        DataError: The files are something else.
    """
    file = next(place for place in sorted(path.parent.glob("*labels.json")) if _LABELS.fullmatch(place.name))
    try:
        numbers = {str(name): int(number) for name, number in json.loads(file.read_text(encoding="utf-8")).items()}
        entries = json.loads(path.read_text(encoding="utf-8"))
        plain = str.maketrans("", "", "[]")
        pairs = [(str(entry["id"]), str(entry["template"]).translate(plain)) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: is no list of Something-Something v2 ({error!r}); expected id and template"
        ) from error
    listed = sorted(numbers, key=lambda name: numbers[name])
    stems, labels = [stem for stem, _ in pairs], [label for _, label in pairs]
    return _published(path, root, stems, labels, classes or listed, class_names)


def _published(
    path: Path, root: Path, stems: Sequence[str], labels: Sequence[str],
    classes: Sequence[str] | None, class_names: Sequence[str] | None,
) -> ClipFiles:  # fmt: skip
    """The clips of a published list that are on the disk.

    Raises:
        DataError: None is.
    """
    places = _stems(root)
    there = [place for place, stem in enumerate(stems) if stem in places]
    if not there:
        example = stems[0] if stems else "?"
        raise DataError(
            f"{path}: none of its {len(stems)} clips is below {root}; looked for {example}.mp4 and the like"
        )
    gone = len(stems) - len(there)
    notes = [f"{gone} of {len(stems)} clips that {path.name} lists are not below {root}; they are left out"]
    if classes is None:
        classes = sorted(set(labels))
    names, kept = [places[stems[place]] for place in there], [labels[place] for place in there]
    return ClipFiles(
        root, names, kept, classes=classes, class_names=class_names, notes=notes[: bool(gone)], what=str(path)
    )


def _stems(root: Path) -> dict[str, str]:
    """Clips below a folder by their names without suffix: files, and folders of pictures."""
    found: dict[str, str] = {}
    for folder, _, files in os.walk(root, followlinks=True):
        suffixes = Counter(Path(name).suffix.lower() for name in files)
        if any(suffix in IMAGE_SUFFIXES for suffix in suffixes) and Path(folder) != root:
            found.setdefault(Path(folder).name, os.path.relpath(folder, root))
        for name in files:
            if Path(name).suffix.lower() in VIDEO_SUFFIXES:
                found[Path(name).stem] = os.path.relpath(Path(folder) / name, root)
    return found
