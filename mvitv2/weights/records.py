"""What a weights file is said to hold, before any of it is built: references to tensors, arrays and records."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


class Refused(ValueError):
    """Why a file is not read. The reader of the file adds its name (``WeightsFileError``)."""


@dataclass(frozen=True)
class Global:
    """A name a pickle refers to, ``module.attribute``; never imported."""

    name: str


@dataclass(frozen=True)
class StorageType:
    """The element type a torch storage is announced with."""

    dtype: torch.dtype


@dataclass(frozen=True)
class StorageRef:
    """A torch storage that lies elsewhere in the file: ``numel`` elements of ``dtype`` under ``key``."""

    key: str
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        """Bytes the file must hold for it."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class TensorRef:
    """A view of a :class:`StorageRef`; offset and strides count elements of ``dtype``."""

    storage: StorageRef
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Slice:
    """A tensor whose bytes lie in the file as they are, from byte ``start``."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int


@dataclass(eq=False)
class ElementType:
    """A numpy dtype while its pickle is being read: the byte order comes after the kind."""

    dtype: np.dtype[Any]


@dataclass(eq=False)
class ArrayRef:
    """A numpy array while its pickle is being read: empty until its state arrives."""

    dtype: np.dtype[Any] | None = None
    shape: tuple[int, ...] = ()
    fortran: bool = False
    data: bytes = b""

    @property
    def is_numeric(self) -> bool:
        """Whether torch has such numbers (text arrays are metadata)."""
        return self.dtype is not None and self.dtype.kind in "biufc"


@dataclass(eq=False)
class Record:
    """An object of a class we know by name only: what was stored in it, and nothing of its behaviour."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)
    items: dict[Any, Any] = field(default_factory=dict)

    @property
    def content(self) -> Any:
        """The plain container this object amounts to: its items, its elements, its attributes or its arguments."""
        if self.items or self.elements:
            return self.items or self.elements
        return self.state or list(self.arguments)
