"""Pickles read without being run.

``pickle.load`` imports and calls whatever a file names. Here a small machine (``opcodes``) builds descriptions and
plain containers, and a file that names anything else is refused with the list of it. Every length is compared with
what is left of the file before anything of that length is made, so a small file cannot ask for much memory or time.
"""

import pickletools
from collections.abc import Collection
from typing import Any, BinaryIO

import numpy as np

from mvitv2.weights.admitted import INERT, canonical
from mvitv2.weights.opcodes import OPCODES, Machine, Persistent, no_storages
from mvitv2.weights.records import ArrayRef, ElementType, Global, Record, Refused, StorageRef, TensorRef

MAX_OPCODES = 4_000_000
"""The largest published checkpoint, with its optimiser, has about 200 000."""
MAX_NESTING = 64
MAX_NODES = 1_000_000


class NotPlain(Refused):
    """Metadata that holds tensors, or nests too deeply to be plain data."""


class Bounded:
    """A file seen from its current position to ``end``: reads past it fail before memory is taken for them."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self.file, self.end, self.position = file, end, file.tell()

    def tell(self) -> int:
        """Position in the file, bytes."""
        return self.position

    def read(self, count: int) -> bytes:
        """``count`` bytes."""
        if count > self.end - self.position:
            raise Refused("it announces more bytes than it holds (truncated or damaged)")
        self.position += count
        return self.file.read(count)

    def readline(self) -> bytes:
        """Up to the next line end; only protocol 0 has lines, and they are short but for numpy's data."""
        line = self.file.readline(self.end - self.position)
        self.position += len(line)
        return line


def load(
    file: BinaryIO, end: int, *, persistent: Persistent | None = None, inert: Collection[str] = ()
) -> tuple[Any, Machine]:
    """Read one pickle from the position of ``file``, which is left just behind it.

    Args:
        file: Anything with ``read``, ``readline``, ``tell``.
        end: Position in bytes behind which the pickle cannot reach.
        persistent: What a persistent id (a torch storage) stands for; without it they are refused.
        inert: Names of further classes to keep as inert records instead of refusing them.

    Returns:
        Plain containers with :class:`TensorRef`, :class:`ArrayRef`, :class:`Record` among them, and the machine.

    Raises:
        Refused: The pickle names a global that is not admitted (all are listed), is damaged, or is a bomb.
    """
    named = {canonical(module, name) for module, _, name in (full.rpartition(".") for full in inert)}
    machine = Machine(persistent or no_storages, INERT | named, budget=end - file.tell())
    try:
        value = _run(machine, Bounded(file, end))
    except (ValueError, Warning) as error:  # pickletools for malformed bytes (invalid escapes warn), ours for the rest
        if machine.refused:
            raise _not_admitted(machine.refused) from error
        if isinstance(error, Refused):
            raise
        raise Refused(f"its pickle is damaged: {str(error)[:200]}") from error
    if machine.refused:
        raise _not_admitted(machine.refused)
    return value, machine


def _run(machine: Machine, source: Bounded) -> Any:
    """Feed the opcodes to the machine until STOP."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(source)):  # type: ignore[arg-type]
        if opcode.name == "STOP":
            return machine.pop()
        if count >= MAX_OPCODES:
            raise Refused(f"its pickle has more than {MAX_OPCODES} instructions; no checkpoint needs them")
        step = OPCODES.get(opcode.name)
        if step is None:
            raise Refused(f"its pickle uses the instruction {opcode.name}, which no checkpoint needs")
        step(machine, argument)
    raise Refused("its pickle ends without STOP (truncated)")


def _not_admitted(names: Collection[str]) -> Refused:
    """The error that lists every global which is not admitted."""
    return Refused(
        f"it wants to run or build {', '.join(sorted(names))}; only tensors, numpy arrays and plain containers are "
        "read. Save its state_dict alone where you trust it, or name the classes in inert=(...) to skip over them"
    )


def plain(value: Any) -> Any:
    """``value`` with records as dicts or lists and small arrays as lists: what JSON holds, and bytes, tuples, sets.

    Raises:
        NotPlain: It holds tensors, nests more than ``MAX_NESTING`` deep, contains itself, or unfolds to more than
            ``MAX_NODES`` values (a list of ten lists of ten lists ...).
    """
    return _plain(value, 0, {})[0]


def _plain(value: Any, depth: int, done: dict[int, tuple[Any, int] | None]) -> tuple[Any, int]:
    """The plain value, and how many values it unfolds to."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return value, 1
    known = done.get(id(value), ())
    if known is None or depth > MAX_NESTING:
        raise NotPlain("it nests too deeply, or contains itself")
    if known:
        return known
    done[id(value)] = None
    result, count = _plain_container(value, depth + 1, done)
    if count > MAX_NODES:
        raise NotPlain(f"it unfolds to more than {MAX_NODES} values")
    done[id(value)] = result, count
    return result, count


def _plain_container(value: Any, depth: int, done: dict[int, tuple[Any, int] | None]) -> tuple[Any, int]:
    """As :func:`_plain`, for anything that is not a single value."""
    match value:
        case Record():
            return _plain(value.content, depth, done)
        case ArrayRef(dtype=np.dtype(), data=data, shape=shape) if len(data) <= MAX_NODES:
            numbers = np.frombuffer(data, value.dtype).reshape(shape, order="F" if value.fortran else "C")
            return numbers.tolist(), numbers.size
        case dict():
            parts = {key: _plain(item, depth, done) for key, item in value.items()}
            return {key: part for key, (part, _) in parts.items()}, 1 + sum(count for _, count in parts.values())
        case list() | tuple() | set():
            items = [_plain(item, depth, done) for item in value]
            return type(value)(part for part, _ in items), 1 + sum(count for _, count in items)
        case ElementType() | Global() | TensorRef() | StorageRef() | ArrayRef():
            raise NotPlain(f"it holds a {type(value).__name__}")
    return str(value), 1  # a torch dtype
