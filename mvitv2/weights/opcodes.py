"""The instructions of a pickle as steps of a small machine that builds descriptions and plain containers.

A global is looked up in the tables of ``admitted``; any other is noted by name and stands for itself. No step imports
or calls anything of the file's choosing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from mvitv2.weights.admitted import BUILDERS, CONSTANTS, NAMED_ONLY, array, canonical, checked_key
from mvitv2.weights.records import ArrayRef, ElementType, Global, Record, Refused, StorageRef

MAX_INTEGER_BITS = 4096
RECONSTRUCTORS = (Global("copyreg._reconstructor"), Global("copyreg.__newobj__"))
Persistent = Callable[[Any], StorageRef]


@dataclass
class Machine:
    """The state of one reading."""

    persistent: Persistent
    inert: frozenset[str]
    budget: int
    """Elements and bytes that calls may still produce; real content is in the file at least once."""
    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def pop(self) -> Any:
        """The top of the stack."""
        if not self.stack:
            raise Refused("its pickle takes values that it never made (damaged)")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        """Everything above the last mark."""
        if not self.marks:
            raise Refused("its pickle closes a group that it never opened (damaged)")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def top(self) -> Any:
        """The top of the stack, left there."""
        if not self.stack:
            raise Refused("its pickle fills a container that it never made (damaged)")
        return self.stack[-1]

    def find(self, module: Any, name: Any) -> Any:
        """What a global stands for; unknown ones are noted and stand for themselves."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("its pickle names a global by something else than text (damaged)")
        full = canonical(module, name)
        if full in CONSTANTS:
            return CONSTANTS[full]
        if full not in BUILDERS and full not in NAMED_ONLY and full not in self.inert:
            self.refused.add(f"{module}.{name}"[:200])
        return Global(full)

    def call(self, function: Any, arguments: Any) -> Any:
        """The description a builder gives, or a record of the call. Nothing of the file's choosing runs."""
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise Refused(f"its pickle calls a {type(function).__name__}")
        builder = BUILDERS.get(function.name)
        if builder is None:
            return Record(function.name, arguments)
        try:
            result = builder(*arguments)
        except (TypeError, OverflowError, UnicodeError) as error:
            raise Refused(f"its pickle calls {function.name} with arguments that do not fit: {error}") from error
        if isinstance(result, bytes | dict | list | tuple | set):
            self.budget -= len(result)
        if self.budget < 0:
            raise Refused("its pickle makes more out of its bytes than it has (a decompression bomb)")
        return result


def no_storages(_: Any) -> StorageRef:
    """Persistent ids mean nothing outside torch's own containers."""
    raise Refused("its pickle refers to data outside itself")


def _push(machine: Machine, argument: Any) -> None:
    if isinstance(argument, int) and argument.bit_length() > MAX_INTEGER_BITS:
        raise Refused(f"its pickle holds a whole number of {argument.bit_length()} bits")
    machine.stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)


def _mark(machine: Machine, _: Any) -> None:
    machine.marks.append(machine.stack)
    machine.stack = []


def _pop(machine: Machine, _: Any) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()


def _tuple_of(count: int) -> Callable[[Machine, Any], None]:
    def step(machine: Machine, _: Any) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.stack.append(tuple(reversed(items)))

    return step


def _from_mark(make: Callable[[list[Any]], Any]) -> Callable[[Machine, Any], None]:
    def step(machine: Machine, _: Any) -> None:
        made = make(machine.pop_mark())  # first: this brings the stack below the mark back
        machine.stack.append(made)

    return step


def _get(machine: Machine, index: Any) -> None:
    if index not in machine.memo:
        raise Refused(f"its pickle recalls entry {index}, which it never stored (damaged)")
    machine.stack.append(machine.memo[index])


def _put(machine: Machine, index: Any) -> None:
    machine.memo[len(machine.memo) if index is None else index] = machine.top()


def _extend(machine: Machine, items: list[Any]) -> None:
    target = machine.top()
    target = target.elements if isinstance(target, Record) else target
    if not isinstance(target, list):
        raise Refused(f"its pickle appends to a {type(target).__name__}")
    target.extend(items)


def _update(machine: Machine, items: list[Any]) -> None:
    target = machine.top()
    target = target.items if isinstance(target, Record) else target
    if not isinstance(target, dict) or len(items) % 2:
        raise Refused(f"its pickle sets {len(items)} keys and values in a {type(target).__name__}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[checked_key(key)] = value


def _append(machine: Machine, _: Any) -> None:
    item = machine.pop()
    _extend(machine, [item])


def _set_item(machine: Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    _update(machine, [key, value])


def _make_dict(machine: Machine, _: Any) -> None:
    items = machine.pop_mark()
    machine.stack.append({})
    _update(machine, items)


def _add_items(machine: Machine, _: Any) -> None:
    members, target = machine.pop_mark(), machine.top()
    if not isinstance(target, set):
        raise Refused(f"its pickle adds members to a {type(target).__name__}")
    target.update(map(checked_key, members))


def _global(machine: Machine, argument: Any) -> None:
    module, _, name = argument.partition(" ")
    machine.stack.append(machine.find(module, name))


def _stack_global(machine: Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.stack.append(machine.find(module, name))


def _reduce(machine: Machine, _: Any) -> None:
    arguments, function = machine.pop(), machine.pop()
    if function in RECONSTRUCTORS and isinstance(arguments, tuple):  # protocols 0 and 1: (class, base, state)
        function, arguments = arguments[0] if arguments else None, ()
    machine.stack.append(machine.call(function, arguments))


def _new_object(machine: Machine, _: Any) -> None:
    arguments, cls = machine.pop(), machine.pop()
    machine.stack.append(machine.call(cls, arguments))


def _new_object_with_keywords(machine: Machine, _: Any) -> None:
    machine.pop()
    _new_object(machine, _)


def _old_instance(machine: Machine, argument: Any) -> None:
    items = machine.pop_mark()
    module, _, name = argument.partition(" ")
    machine.stack.append(machine.call(machine.find(module, name), tuple(items)))


def _persistent(machine: Machine, _: Any) -> None:
    machine.stack.append(machine.persistent(machine.pop()))


def _build(machine: Machine, _: Any) -> None:
    state, target = machine.pop(), machine.top()
    match target, state:
        case ArrayRef(), (_version, shape, ElementType() as element, fortran, data):
            found = array(data, element, shape, bool(fortran))
            target.dtype, target.shape, target.fortran, target.data = (
                found.dtype,
                found.shape,
                found.fortran,
                found.data,
            )
        case ElementType(), (_version, order, None, None, None, *_rest) if order in ("<", ">", "|", "="):
            target.dtype = target.dtype.newbyteorder(order)
        case Record(), _:
            for part in state if isinstance(state, tuple) else (state,):  # (attributes, slots)
                target.state.update(part if isinstance(part, dict) else {})
        case dict(), dict():  # an OrderedDict's attributes, such as a state dict's _metadata
            pass
        case _:
            raise Refused(f"its pickle gives a {type(target).__name__} a state that does not fit")


def _ignore(_machine: Machine, _argument: Any) -> None:
    pass


OPCODES: Mapping[str, Callable[[Machine, Any], object]] = MappingProxyType(
    {
        **dict.fromkeys(("PROTO", "FRAME"), _ignore),
        **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"), _push),
        **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE"), _push),
        **dict.fromkeys(("BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _push),
        "NONE": lambda machine, _: machine.stack.append(None),
        "NEWTRUE": lambda machine, _: machine.stack.append(True),
        "NEWFALSE": lambda machine, _: machine.stack.append(False),
        "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
        "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
        "EMPTY_SET": lambda machine, _: machine.stack.append(set()),
        "EMPTY_TUPLE": _tuple_of(0),
        "TUPLE1": _tuple_of(1),
        "TUPLE2": _tuple_of(2),
        "TUPLE3": _tuple_of(3),
        "TUPLE": _from_mark(tuple),
        "LIST": _from_mark(list),
        "FROZENSET": _from_mark(lambda members: set(map(checked_key, members))),
        "DICT": _make_dict,
        "MARK": _mark,
        "POP": _pop,
        "POP_MARK": lambda machine, _: machine.pop_mark(),
        "DUP": lambda machine, _: machine.stack.append(machine.top()),
        **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
        **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _put),
        "APPEND": _append,
        "APPENDS": lambda machine, _: _extend(machine, machine.pop_mark()),
        "SETITEM": _set_item,
        "SETITEMS": lambda machine, _: _update(machine, machine.pop_mark()),
        "ADDITEMS": _add_items,
        "GLOBAL": _global,
        "STACK_GLOBAL": _stack_global,
        "REDUCE": _reduce,
        "NEWOBJ": _new_object,
        "NEWOBJ_EX": _new_object_with_keywords,
        "INST": _old_instance,
        "BUILD": _build,
        "BINPERSID": _persistent,
    }
)
"""What each instruction does; extension codes and out-of-band buffers are not among them."""
