"""Pickles are read without being run: what is admitted arrives, the rest is refused by name, bombs stay small."""

import argparse
import builtins
import collections
import io
import os
import pickle
import struct
import time
import types

import numpy as np
import pytest
import torch

from mvitv2.weights import unpickle
from mvitv2.weights.admitted import BUILDERS, CONSTANTS
from mvitv2.weights.records import ArrayRef, Refused, StorageRef

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def loaded(data: bytes, **options):
    """The value of one pickle in memory."""
    return unpickle.load(io.BytesIO(data), len(data), **options)[0]


class Calls:
    """Pickles to a call of ``function``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_comes_back_as_it_was(protocol):
    value = {
        "epoch": 3,
        "big": 2**80,
        "negative": -5,
        "rate": 2.5e-4,
        "none": None,
        "flags": [True, False],
        "pair": (1, "zwei", b"\x00\xff\n"),
        "nested": {"a": [{}, [], (), [1] * 3]},
        "text": "Grün\n\\ \u2603",
        3: "number key",
        (0, 1): "tuple key",
    }
    assert unpickle.plain(loaded(pickle.dumps(value, protocol))) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_with_type_shape_and_order(protocol, order):
    array = np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)) if order == "F" else np.arange(6.0).reshape(3, 2)
    found = loaded(pickle.dumps(array, protocol))
    assert isinstance(found, ArrayRef)
    assert unpickle.plain(found) == array.tolist()
    assert found.dtype == array.dtype


def test_both_spellings_of_numpy_and_python_2_are_read():
    old = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n"
        b"(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nU\x08\x00\x00\x80?\x00\x00\x00\xc0tb."
    )
    assert unpickle.plain(loaded(old)) == [1.0, -2.0]
    assert unpickle.plain(loaded(old.replace(b"numpy.core", b"numpy._core"))) == [1.0, -2.0]
    assert loaded(b"c__builtin__\nset\n((lI1\naI2\natR.") == {1, 2}


def test_numpy_scalars_become_python_numbers():
    value = {"accuracy": np.float64(71.5), "epoch": np.int64(3), "best": np.bool_(True)}
    assert unpickle.plain(loaded(pickle.dumps(value))) == {"accuracy": 71.5, "epoch": 3, "best": True}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_of_the_standard_library_become_dicts(protocol):
    value = {
        "ordered": collections.OrderedDict(a=1),
        "milestones": collections.Counter({30: 1}),
        "default": collections.defaultdict(list, a=[1]),
        "args": argparse.Namespace(lr=0.1, model="mvitv2_t"),
        "simple": types.SimpleNamespace(a=1),
        "set": {1, 2},
    }
    assert unpickle.plain(loaded(pickle.dumps(value, protocol))) == {
        "ordered": {"a": 1},
        "milestones": {30: 1},
        "default": {"a": [1]},
        "args": {"lr": 0.1, "model": "mvitv2_t"},
        "simple": {"a": 1},
        "set": {1, 2},
    }


def test_a_yacs_configuration_is_its_items():
    data = b"\x80\x02cyacs.config\nCfgNode\n)\x81}(X\x05\x00\x00\x00DEPTHK\x10u}X\x0d\x00\x00\x00__immutable__\x89sb."
    data = data.replace(b")\x81}(", b")\x81(").replace(b"u}X", b"u}X")
    assert unpickle.plain(loaded(data)) == {"DEPTH": 16}


@pytest.mark.parametrize(
    "harmful",
    [
        Calls(os.system, "touch owned"),
        Calls(eval, "1+1"),
        Calls(builtins.__import__, "os"),
        Calls(getattr, "text", "upper"),
        Calls(io.open, "/etc/passwd"),
        Calls(np.load, "file", None, True),
        Calls(torch.load, "file"),
        Calls(torch.storage._load_from_bytes, b""),
        Calls(pickle.loads, b"N."),
        Calls(type, "name", (), {}),
    ],
    ids=lambda harmful: harmful.call[0].__name__,
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_calls_are_refused_by_name_wherever_they_hide(harmful, protocol):
    for value in (harmful, {"model": {"w": [harmful]}}, [argparse.Namespace(a=harmful)], (1, {"k": (harmful,)})):
        with pytest.raises(Refused, match=rf"run or build .*{harmful.call[0].__name__}"):
            loaded(pickle.dumps(value, protocol))


def test_all_refused_names_are_listed_at_once():
    data = pickle.dumps([Calls(os.system, "x"), Calls(eval, "x"), fractions()])
    with pytest.raises(Refused, match=r"builtins\.eval, fractions\.Fraction, \w+\.system"):
        loaded(data)


def fractions():
    """An object of a class that is not admitted."""
    from fractions import Fraction

    return Fraction(1, 3)


def test_a_class_named_inert_becomes_its_content_and_is_never_built():
    assert unpickle.plain(loaded(pickle.dumps({"share": fractions()}), inert=["fractions.Fraction"])) == {
        "share": [1, 3]
    }
    with pytest.raises(Refused, match="system"):
        loaded(pickle.dumps([fractions(), Calls(os.system, "x")]), inert=["fractions.Fraction"])


def test_a_lie_after_a_refused_name_still_names_it():
    with pytest.raises(Refused, match=r"run or build posix\.system"):
        loaded(b"cposix\nsystem\n(S'x'\ntRRRR.")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        b"\x80\x04]",
        b"0.",
        b"t.",
        b"\x81.",
        b"N(.",
        b"g9\n.",
        b"\x80\x04}\x8c\x01a(u.",
        b"]}\x86a0.",
        b"\x80\x04NQ.",
        b"\x82\x01.",
        b"\x97.",
        b"(lI1\nb.",
        b"}]Ns.",
        b"ccollections\nOrderedDict\n(I3\ntR.",
        b"cnumpy\ndtype\n(S'O8'\ntR.",
        b"cnumpy\ndtype\n(S'(99999999,)f4'\ntR.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        b"I1\n\xff.",
    ],
)
def test_damaged_pickles_are_refused(data):
    with pytest.raises(Refused):
        loaded(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x8e" + struct.pack("<Q", 2**62) + b"x.", id="BINBYTES8"),
        pytest.param(b"\x8d" + struct.pack("<Q", 2**40) + b"x.", id="BINUNICODE8"),
        pytest.param(b"\x96" + struct.pack("<Q", 2**40) + b"x.", id="BYTEARRAY8"),
        pytest.param(b"B" + struct.pack("<I", 2**32 - 1) + b"x.", id="BINBYTES"),
        pytest.param(b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x.", id="LONG4"),
        pytest.param(b"\x8b" + struct.pack("<i", -5) + b"x.", id="LONG4 negative"),
        pytest.param(b"T" + struct.pack("<i", 2**31 - 1) + b"x.", id="BINSTRING"),
        pytest.param(b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6 + b".", id="a number of a million bytes"),
        pytest.param(b"L" + b"9" * 10**5 + b"L\n.", id="a number of many digits"),
        pytest.param(b"cbuiltins\nbytearray\n(I9999999999\ntR.", id="bytearray(n)"),
    ],
)
def test_announced_lengths_cost_nothing(data):
    started = time.perf_counter()
    with pytest.raises(Refused):
        loaded(data)
    assert time.perf_counter() - started < 1


def test_a_huge_memo_index_takes_no_memory():
    assert loaded(b"Nr\xff\xff\xff\xff0j\xff\xff\xff\xff.") is None


def test_deep_nesting_is_read_and_only_its_use_as_metadata_fails():
    value = loaded(b"]" * 100_000 + b"a" * 99_999 + b".")
    with pytest.raises(unpickle.NotPlain, match="too deeply"):
        unpickle.plain(value)


def test_metadata_that_contains_itself_or_unfolds_without_end_is_not_plain():
    loop: list = []
    loop.append(loop)
    laughs: list = ["ha"] * 10
    for _ in range(12):
        laughs = [laughs] * 10
    for value in (loop, laughs):
        with pytest.raises(unpickle.NotPlain):
            unpickle.plain(loaded(pickle.dumps(value)))


def test_shared_metadata_is_plain_and_read_once():
    shared = {"a": [1, 2]}
    assert unpickle.plain(loaded(pickle.dumps([shared, shared]))) == [shared, shared]


def test_nested_tuples_are_no_keys_because_their_hash_may_take_forever():
    data = b"\x80\x04}(K\x01" + b"2\x86" * 60 + b"Nu."
    started = time.perf_counter()
    with pytest.raises(Refused, match="dict key"):
        loaded(data)
    assert time.perf_counter() - started < 1


def test_one_text_cannot_be_encoded_again_and_again():
    data = b"\x80\x04X" + struct.pack("<I", 10**5) + b"x" * 10**5 + b"q\x00"
    data += b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R" * 50 + b"."
    with pytest.raises(Refused, match="bomb"):
        loaded(data)


def test_more_instructions_than_any_checkpoint_has_are_refused(monkeypatch):
    monkeypatch.setattr(unpickle, "MAX_OPCODES", 1000)
    with pytest.raises(Refused, match="more than 1000 instructions"):
        loaded(b"N0" * 1000 + b"N.")


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (3, 3), (3, 1)),
        (1, (4, 2), (2, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (2**40,), (0,)),
        (0, (True,), (1,)),
        (0, (2.0,), (1,)),
        (0, (2**62, 2**62), (1, 1)),
        (9, (1,), (1,)),
        (0, (1,) * 65, (1,) * 65),
    ],
)
def test_tensors_must_lie_inside_their_storage(offset, size, stride):
    with pytest.raises(Refused):
        BUILDERS["torch._utils._rebuild_tensor_v2"](StorageRef("0", torch.float32, 8), offset, size, stride, False, {})


def test_tensors_inside_their_storage_are_kept_as_they_are():
    build = BUILDERS["torch._utils._rebuild_tensor_v2"]
    found = build(StorageRef("0", torch.float32, 8), 1, (2, 3), (1, 2), False, {})
    assert (found.offset, found.size, found.stride, found.dtype) == (1, (2, 3), (1, 2), torch.float32)
    assert build(StorageRef("0", torch.float32, 0), 0, (0, 3), (3, 1), False, {}).size == (0, 3)


def test_every_dtype_and_storage_of_the_tables_exists():
    assert CONSTANTS["torch.FloatStorage"].dtype is torch.float32
    assert {type(value).__name__ for value in CONSTANTS.values()} == {"StorageType", "dtype"}


def test_persistent_ids_mean_nothing_without_a_container():
    with pytest.raises(Refused, match="outside itself"):
        loaded(b"\x80\x02X\x01\x00\x00\x00aQ.")
