"""The scores of every view of every clip in a file that grows batch by batch, and is whole wherever it was cut off.

``views.json`` says what the scores are of; ``views.bin`` holds a record per batch: lengths and a checksum, JSON with
the places of its clips, then ``(clips, views, classes)`` float32. A last record that is not whole is cut off.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvitv2.data.samples import Unreadable

HEAD = struct.Struct("<4sIQI")
"""Mark, bytes of JSON, bytes of scores, checksum of both."""
MARK = b"VIEW"
Record = tuple[list[int], tuple[Unreadable, ...], Tensor]
"""Places of clips in the data set, those that could not be read, ``(clips, views, classes)``."""


class ViewScores:
    """Scores in a folder.

    Args:
        folder: Made where it is not there.
        about: What the scores are of, as plain values.

    Raises:
        ValueError: The folder holds scores of something else.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]):
        self.path, self.about = folder / "views.bin", folder / "views.json"
        folder.mkdir(parents=True, exist_ok=True)
        wanted = json.loads(json.dumps(about))
        if self.about.exists():
            there = json.loads(self.about.read_text(encoding="utf-8"))
            other = [f"{k}: {there.get(k)!r}, not {v!r}" for k, v in wanted.items() if there.get(k) != v]
            if other:
                raise ValueError(f"{folder} holds scores of something else ({'; '.join(other)}); use another folder")
        else:
            temporary = self.about.with_suffix(".tmp")
            temporary.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
            temporary.replace(self.about)
        self.shape = (-1, *self._inner(wanted))
        self.file = self.path.open("r+b" if self.path.exists() else "w+b")

    @staticmethod
    def _inner(about: Mapping[str, Any]) -> tuple[int, int]:
        """Views and classes."""
        clips, _, crops = str(about["views"]).partition("x")
        return int(clips) * int(crops), int(about["classes"])

    def records(self) -> Iterator[Record]:
        """What is there, in order; the file is cut after the last whole record, where :meth:`append` goes on."""
        self.file.seek(0)
        end = 0
        while (record := self._next()) is not None:
            end = self.file.tell()
            yield record
        self.file.seek(end)
        self.file.truncate()

    def _next(self) -> Record | None:
        head = self.file.read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        mark, text_size, size, checksum = HEAD.unpack(head)
        if mark != MARK:
            return None
        text, payload = self.file.read(text_size), self.file.read(size)
        if len(payload) < size or zlib.crc32(payload, zlib.crc32(text)) != checksum:
            return None
        said = json.loads(text)
        scores = torch.from_numpy(np.frombuffer(payload, dtype="<f4").reshape(self.shape).copy())
        return said["clips"], tuple(Unreadable(*item) for item in said["unreadable"]), scores

    def append(self, clips: Sequence[int], unreadable: Sequence[Unreadable], scores: Tensor) -> None:
        """One batch more; handed to the system before this returns."""
        said = {"clips": list(clips), "unreadable": [[u.index, u.path, u.reason] for u in unreadable]}
        text = json.dumps(said).encode()
        payload = scores.float().numpy().astype("<f4").tobytes()
        checksum = zlib.crc32(payload, zlib.crc32(text))
        self.file.write(HEAD.pack(MARK, len(text), len(payload), checksum) + text + payload)
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def read_view_scores(folder: Path) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """All that a finished or stopped evaluation has kept.

    Returns:
        What the scores are of; places of clips in the data set ``(N,)``; scores ``(N, views, classes)``.
    """
    about = json.loads((folder / "views.json").read_text(encoding="utf-8"))
    store = ViewScores(folder, about)
    try:
        records = list(store.records())
    finally:
        store.close()
    places = np.array([place for clips, _, _ in records for place in clips], dtype=np.int64)
    scores = (
        np.concatenate([scores.numpy() for _, _, scores in records]) if records else np.empty((0, *store.shape[1:]))
    )
    return about, places, scores
