"""The only globals a weights file may name, and what each stands for.

Nothing here imports or calls anything a file asks for. A builder gets the arguments found in the file, checks them and
returns a description; bytes become tensors only after their sizes were compared with what the file really holds.
"""

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from mvitv2.weights.records import ArrayRef, ElementType, Global, Refused, StorageRef, StorageType, TensorRef

MAX_DIMENSIONS = 64


def sizes(value: Any, what: str) -> tuple[int, ...]:
    """``value`` as a tuple of non-negative whole numbers."""
    if not isinstance(value, tuple | list) or len(value) > MAX_DIMENSIONS:
        raise Refused(f"a tensor's {what} is no list of at most {MAX_DIMENSIONS} numbers")
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in value):
        raise Refused(f"a tensor's {what} holds something else than whole numbers from 0 on")
    return tuple(value)


def tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> TensorRef:
    """A strided view, checked to lie inside its storage (``torch._utils._rebuild_tensor``, ``_v2``, ``_v3``)."""
    if not isinstance(storage, StorageRef):
        raise Refused(f"a tensor is built on a {type(storage).__name__}, expected a torch storage")
    # _v3 (types without a typed storage, such as float8): requires_grad, hooks, dtype
    dtype = rest[2] if len(rest) > 2 and isinstance(rest[2], torch.dtype) else storage.dtype
    (start,), shape, steps = sizes((offset,), "offset"), sizes(size, "size"), sizes(stride, "stride")
    if len(shape) != len(steps):
        raise Refused(f"a tensor of {len(shape)} axes has {len(steps)} strides")
    numel = math.prod(shape)
    last = start + sum((n - 1) * step for n, step in zip(shape, steps, strict=True)) if numel else start - 1
    room = storage.nbytes // dtype.itemsize
    # expanded views (stride 0) are refused as well: a few bytes of file must not become gigabytes of memory
    if last >= room or numel > room:
        raise Refused(f"a tensor of size {shape} reaches past the {room} elements of storage {storage.key!r}")
    return TensorRef(storage, dtype, start, shape, steps)


def _typed_tensor(function: Any, _cls: Any, arguments: Any, _state: Any) -> TensorRef:
    """A tensor with Python attributes (``torch._tensor._rebuild_from_type_v2``): the attributes are left behind."""
    if not isinstance(function, Global) or BUILDERS.get(function.name) is not tensor:
        raise Refused("a tensor subclass is rebuilt by an unknown function")
    return tensor(*arguments)


def _parameter(data: Any, *_: Any) -> Any:
    """An ``nn.Parameter`` is its tensor."""
    return data


def as_bytes(value: Any) -> bytes:
    """Raw bytes; Python 2 wrote them as text, which is read back as latin-1."""
    if isinstance(value, str):
        return value.encode("latin-1")
    if not isinstance(value, bytes | bytearray):
        raise Refused(f"raw data is a {type(value).__name__}, expected bytes")
    return bytes(value)


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes as protocols 0 to 2 of Python 3 write them (``_codecs.encode``)."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused("_codecs.encode is used for something else than bytes written as latin-1 text")
    return text.encode("latin-1")


def _element_type(kind: Any, *_: Any) -> ElementType:
    """A numpy dtype of numbers or text; structured and object types are refused."""
    if not isinstance(kind, str) or not re.fullmatch(r"[<>=|]?(?:[biufc](?:1|2|4|8|16)|[SU]\d{1,6})", kind):
        raise Refused(f"numpy dtype {str(kind)[:40]!r} is neither numbers nor text; such arrays hold no weights")
    return ElementType(np.dtype(kind))


def array(data: Any, element: Any, shape: Any, fortran: bool) -> ArrayRef:
    """An array whose bytes are exactly as many as its shape and type need."""
    if not isinstance(element, ElementType):
        raise Refused(f"a numpy array has a {type(element).__name__} where its dtype should be")
    raw, dims = as_bytes(data), sizes(shape, "shape")
    expected = math.prod(dims) * element.dtype.itemsize
    if len(raw) != expected:
        raise Refused(f"a numpy array of shape {dims} and type {element.dtype} needs {expected} bytes, has {len(raw)}")
    return ArrayRef(element.dtype, dims, bool(fortran), raw)


def _empty_array(cls: Any, *_: Any) -> ArrayRef:
    """``numpy._core.multiarray._reconstruct``; the state follows."""
    if cls != Global("numpy.ndarray"):
        raise Refused("a numpy array of a subclass")
    return ArrayRef()


def _buffer_array(data: Any, element: Any, shape: Any, order: Any = "C") -> ArrayRef:
    """``numpy._core.numeric._frombuffer``, protocol 5."""
    return array(data, element, shape, order == "F")


def _scalar(element: Any, data: Any = b"") -> Any:
    """A numpy scalar as the Python number or text it holds."""
    found = array(data, element, (), False)
    return np.frombuffer(found.data, found.dtype)[0].item()


def _pairs(*arguments: Any) -> dict[Any, Any]:
    """``OrderedDict()``, ``OrderedDict([[k, v], ...])``, ``Counter({...})`` as a dict."""
    if not arguments:
        return {}
    if isinstance(arguments[0], dict):
        return dict(arguments[0])
    if not isinstance(arguments[0], list | tuple):
        raise Refused(f"a dict is made of a {type(arguments[0]).__name__}")
    return {checked_key(key): value for key, value in arguments[0]}


def _default_dict(*_: Any) -> dict[Any, Any]:
    """``defaultdict(factory)``: its entries follow, the factory is never called."""
    return {}


def checked_key(key: Any) -> Any:
    """A dict key or set member whose hash is cheap: text, bytes, number, None, or a flat tuple of them."""
    if isinstance(key, tuple) and len(key) <= MAX_DIMENSIONS and not any(isinstance(part, tuple) for part in key):
        return tuple(map(checked_key, key))
    if not isinstance(key, str | bytes | int | float | complex | None):
        raise Refused(f"a {type(key).__name__} is used as a dict key or set member")
    return key


def _members(*arguments: Any) -> set[Any]:
    """``set([...])``, ``frozenset([...])``."""
    return {checked_key(member) for members in arguments[:1] for member in members}


def _bytes(*arguments: Any) -> bytes:
    """``bytes()``, ``bytearray(b"...")``, ``bytearray("...", "latin-1")``."""
    return as_bytes(arguments[0]) if arguments else b""


def _device(kind: Any, index: Any = None) -> str:
    """``torch.device`` as its text."""
    return str(kind) if index is None else f"{kind}:{index}"


BUILDERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor_v3": tensor,
        "torch._utils._rebuild_parameter": _parameter,
        "torch._utils._rebuild_parameter_with_state": _parameter,
        "torch._tensor._rebuild_from_type_v2": _typed_tensor,
        "torch.Size": lambda values=(): sizes(values, "size"),
        "torch.device": _device,
        "numpy._core.multiarray._reconstruct": _empty_array,
        "numpy._core.multiarray.scalar": _scalar,
        "numpy._core.numeric._frombuffer": _buffer_array,
        "numpy.dtype": _element_type,
        "collections.OrderedDict": _pairs,
        "collections.Counter": _pairs,
        "collections.defaultdict": _default_dict,
        "builtins.dict": _pairs,
        "builtins.list": lambda values=(): list(values),
        "builtins.tuple": lambda values=(): tuple(values),
        "builtins.set": _members,
        "builtins.frozenset": _members,
        "builtins.bytes": _bytes,
        "builtins.bytearray": _bytes,
        "builtins.complex": complex,
        "_codecs.encode": _encoded,
    }
)
"""Functions a file may call, by what they build."""

_STORAGES = "Double Float Half BFloat16 Long Int Short Char Byte Bool ComplexDouble ComplexFloat Untyped"
_STORED_AS = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex128 complex64 uint8"
_PLAIN_TYPES = "uint16 uint32 uint64 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu"

CONSTANTS: Mapping[str, Any] = MappingProxyType(
    {
        **{
            f"torch.{storage}Storage": StorageType(getattr(torch, dtype))
            for storage, dtype in zip(_STORAGES.split(), _STORED_AS.split(), strict=True)
        },
        **{f"torch.{dtype}": getattr(torch, dtype) for dtype in {*_STORED_AS.split(), *_PLAIN_TYPES.split()}},
    }
)
"""Storage and element types of torch."""

NAMED_ONLY = frozenset(
    {
        "numpy.ndarray",
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
        "builtins.int",
        "builtins.float",
        "builtins.str",
        "builtins.object",
        "copyreg._reconstructor",  # makes an object of its first argument, a class that is looked up here as well
        "copyreg.__newobj__",
    }
)
"""Classes that occur as arguments; naming them builds nothing."""

INERT = frozenset(
    {
        "argparse.Namespace",  # timm's training arguments
        "types.SimpleNamespace",
        "yacs.config.CfgNode",  # SlowFast's and the authors' configuration
        "fvcore.common.config.CfgNode",
        "detectron2.config.config.CfgNode",
        "addict.addict.Dict",
        "mmcv.utils.config.ConfigDict",
        "mmengine.config.config.ConfigDict",
        "mmengine.logging.history_buffer.HistoryBuffer",  # losses in a training checkpoint
    }
)
"""Classes that are plain containers; they become a :class:`Record`, then a dict or list."""


def canonical(module: str, name: str) -> str:
    """One spelling for the names that Python 2, numpy 1 and CUDA storages write differently."""
    for old, new in (("__builtin__", "builtins"), ("copy_reg", "copyreg"), ("torch.storage", "torch")):
        module = new if module == old else module
    if module == "torch.cuda" and name.endswith("Storage"):
        module = "torch"
    if module == "numpy.core" or module.startswith("numpy.core."):
        module = "numpy._core" + module.removeprefix("numpy.core")
    return f"{module}.{name}"
