"""Many strings in little memory, and a few of them in a message."""

import os
from collections.abc import Collection, Iterable

import numpy as np

from mvitv2.data.sources import natural_key

_SHOWN = 8  # names in one message


class PackedNames:
    """Many strings in two arrays: workers share their memory, where a list would be copied page by page on reading."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([0, *(len(name) for name in encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def lengths(self) -> np.ndarray:
        """``(N,)``: bytes of each."""
        return np.diff(self._ends)

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} files")
        index %= len(self)
        return os.fsdecode(self._bytes[self._ends[index] : self._ends[index + 1]].tobytes())


def shown(names: Collection[str]) -> str:
    """Some of ``names``, in a message."""
    some = ", ".join(sorted(names, key=natural_key)[:_SHOWN])
    return some + (f", ... ({len(names)} in all)" if len(names) > _SHOWN else "")
