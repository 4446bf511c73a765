"""Weights files: every container in and out, every lie and every injury refused with one clear sentence."""

import argparse
import io
import json
import os
import pickle
import random
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from mvitv2.weights import files, own, writers
from mvitv2.weights.files import WeightsFileError, read, replacing, write, write_own

CHECKPOINTS = Path(__file__).parents[2].parent / "shared" / "parity" / "checkpoints"
NUMPY_TYPES = (
    torch.float32,
    torch.float16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.int8,
    torch.uint8,
    torch.bool,
)
TORCH_TYPES = (*NUMPY_TYPES, torch.bfloat16, torch.float8_e4m3fn, torch.uint16, torch.complex64)


def weights(dtypes=NUMPY_TYPES) -> dict[str, torch.Tensor]:
    """One tensor of each type, a scalar, an empty one, and names as models have them."""
    found = {f"blocks.{i}.w": (torch.rand(2, 3) * 4).to(dtype) for i, dtype in enumerate(dtypes)}
    return found | {"scalar": torch.tensor(3), "empty": torch.empty(0, 3), "file": torch.ones(1)}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Equal names in equal order, types, shapes and bytes."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
        as_bytes = [t.contiguous().reshape(-1).view(torch.uint8) for t in (found[name], value)]
        assert torch.equal(*as_bytes), name


def refused(path: Path, *parts: str, **options) -> None:
    """``read`` names the file and gives the reason in a sentence or two."""
    with pytest.raises(WeightsFileError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert str(path) in message
    for part in parts:
        assert part in message
    assert len(message) < 700


# --- every container ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", files.CONTAINERS)
def test_what_is_written_is_read_back(tmp_path, container):
    tensors = weights(NUMPY_TYPES if container in ("npz", "raw pickle") else TORCH_TYPES)
    write(tmp_path / "named.anyhow", tensors, container=container)
    stored = read(tmp_path / "named.anyhow")
    expected = dict(sorted(tensors.items())) if container == "safetensors" else tensors
    assert_same({name: stored.tensors[name] for name in expected}, expected)
    assert stored.tensors.keys() == tensors.keys()
    assert stored.container == container
    assert (stored.prefix, stored.left_out) == ("", ())


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_with_everything_a_trainer_puts_in(tmp_path, legacy):
    tensors = weights((*NUMPY_TYPES, torch.bfloat16))
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "model_state": {**tensors, "parameter": torch.nn.Parameter(torch.ones(2, 2))},
        "optimizer_state": optimizer.state_dict(),
        "cfg": "MVIT:\n  DEPTH: 10\n",
        "args": argparse.Namespace(lr=0.1, sizes=(224, 224)),
        "accuracy": np.float64(71.5),
        "dtype": torch.float16,
        "shape": torch.Size([1, 2]),
        "device": torch.device("cuda", 1),
    }
    torch.save(checkpoint, tmp_path / "a.pyth", _use_new_zipfile_serialization=not legacy)
    stored = read(tmp_path / "a.pyth")
    assert_same(stored.tensors, {**tensors, "parameter": torch.ones(2, 2)})
    assert stored.container == ("torch legacy" if legacy else "torch zip")
    assert (stored.wrapper, stored.left_out) == ("model_state", ("optimizer_state",))
    assert stored.metadata == {
        "epoch": 3,
        "cfg": "MVIT:\n  DEPTH: 10\n",
        "args": {"lr": 0.1, "sizes": (224, 224)},
        "accuracy": 71.5,
        "dtype": "torch.float16",
        "shape": (1, 2),
        "device": "cuda:1",
    }
    assert not any(tensor.requires_grad for tensor in stored.tensors.values())


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", TORCH_TYPES)
def test_every_type_of_torch_is_read_from_both_of_its_formats(tmp_path, dtype, legacy):
    tensors = {"w": torch.rand(3, 2).to(dtype)}
    torch.save(tensors, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    assert_same(read(tmp_path / "w.pt").tensors, tensors)


@pytest.mark.parametrize("legacy", [False, True])
def test_views_and_aliases_are_kept(tmp_path, legacy):
    base = torch.arange(12.0)
    tensors = {"whole": base, "column": base.view(3, 4)[:, 1], "transposed": base.view(3, 4).T, "again": base}
    torch.save(tensors, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    found = read(tmp_path / "w.pt").tensors
    assert_same(found, tensors)
    assert found["again"].data_ptr() == found["whole"].data_ptr()
    for container in files.CONTAINERS:
        write(tmp_path / "copy", found, container=container)
        copied = read(tmp_path / "copy").tensors
        assert_same({name: copied[name] for name in tensors}, tensors)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_arrays_of_any_protocol_and_byte_order(tmp_path, protocol):
    arrays = {"a": np.arange(6, dtype=">f8").reshape(2, 3), "b": np.asfortranarray(np.eye(2, 3, dtype="f4"))}
    content = {"model": {**arrays, "alias": arrays["a"]}, "__author__": "somebody", "matching_heuristics": True}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(content, protocol))
    stored = read(tmp_path / "model_final.pkl")
    expected = {name: torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) for name, array in arrays.items()}
    assert_same(stored.tensors, {**expected, "alias": expected["a"]})
    assert (stored.container, stored.wrapper) == ("raw pickle", "model")
    assert stored.metadata == {"__author__": "somebody", "matching_heuristics": True}
    stored.tensors["a"].add_(1)  # a copy in memory of its own, not a view of read-only bytes


def test_a_pickle_for_detectron2_loads_with_any_numpy(tmp_path):
    tensors = weights()
    write(tmp_path / "m.pkl", tensors, container="raw pickle", extra={"iteration": 90_000, "names": ["a", ("b", None)]})
    data = (tmp_path / "m.pkl").read_bytes()
    assert b"numpy.core.multiarray\n_reconstruct" in data
    assert b"numpy._core" not in data
    code = (
        "import pickle, sys, warnings; warnings.simplefilter('ignore'); "
        "d = pickle.load(open(sys.argv[1], 'rb'), encoding='latin1'); "
        "print(d['__author__'], d['iteration'], d['names'], "
        "sum(float(v.astype('f8').real.sum()) for v in d['model'].values()))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "m.pkl"], capture_output=True, text=True, check=True)
    total = sum(float(tensor.double().sum()) for tensor in tensors.values())
    author, iteration, rest = done.stdout.split(maxsplit=2)
    assert (author, iteration) == ("mvitv2", "90000")
    assert rest.startswith("['a', ('b', None)]")
    assert float(rest.split()[-1]) == pytest.approx(total)
    assert "matching_heuristics" not in read(tmp_path / "m.pkl").metadata


def test_safetensors_and_npz_are_readable_for_their_own_libraries(tmp_path):
    tensors = weights()
    write(tmp_path / "a", tensors, container="safetensors", extra={"note": "x"})
    assert_same(dict(sorted(safetensors.torch.load_file(tmp_path / "a").items())), dict(sorted(tensors.items())))
    assert read(tmp_path / "a").metadata == {"format": "pt", "note": "x"}
    write(tmp_path / "b", tensors, container="npz")
    with np.load(tmp_path / "b") as arrays:
        assert {name: arrays[name].tolist() for name in arrays} == {name: t.tolist() for name, t in tensors.items()}
    np.savez_compressed(tmp_path / "c.npz", w=np.ones((100, 100)), text=np.array("a note"))
    stored = read(tmp_path / "c.npz")
    assert stored.tensors["w"].sum() == 10_000
    assert stored.metadata == {"text": "a note"}


def test_weights_only_loading_of_torch_accepts_what_is_written(tmp_path):
    tensors = weights(TORCH_TYPES)
    write(tmp_path / "a", tensors, container="torch zip", wrapper="model_state", extra={"epoch": 3, "cfg": "x: 1"})
    found = torch.load(tmp_path / "a", weights_only=True)
    assert_same(found.pop("model_state"), tensors)
    assert found == {"epoch": 3, "cfg": "x: 1"}


# --- which of its tensors ----------------------------------------------------------------------------------------


def saved(path: Path, content) -> Path:
    """``content`` in a torch file."""
    torch.save(content, path)
    return path


@pytest.mark.parametrize("wrapper", files.WRAPPERS)
def test_every_usual_wrapper_is_taken_off(tmp_path, wrapper):
    stored = read(saved(tmp_path / "a", {"epoch": 1, wrapper: {"w": torch.ones(1)}}))
    assert (stored.wrapper, list(stored.tensors), stored.metadata) == (wrapper, ["w"], {"epoch": 1})


def test_averaged_weights_are_taken_only_when_asked_for(tmp_path):
    path = saved(tmp_path / "a", {"state_dict": {"w": torch.ones(1)}, "state_dict_ema": {"w": torch.zeros(1)}})
    stored = read(path)
    assert (stored.wrapper, stored.left_out, stored.tensors["w"].item()) == ("state_dict", ("state_dict_ema",), 1)
    assert read(path, wrapper="state_dict_ema").tensors["w"].item() == 0
    refused(path, "no tensors under 'model'", "state_dict_ema", wrapper="model")


def test_an_unusual_wrapper_is_found_if_it_is_the_only_one(tmp_path):
    stored = read(saved(tmp_path / "a", {"backbone_weights": {"w": torch.ones(1)}, "epoch": 1}))
    assert stored.wrapper == "backbone_weights"
    two = saved(tmp_path / "b", {"teacher": {"w": torch.ones(1)}, "student": {"w": torch.ones(1)}})
    refused(two, "'teacher', 'student'", "wrapper=")
    assert read(two, wrapper="teacher").wrapper == "teacher"


def test_a_bare_state_dict_may_hold_other_things(tmp_path):
    stored = read(saved(tmp_path / "a", {"w": torch.ones(1), "epoch": 1, "extra": {"v": torch.ones(1)}}))
    assert (stored.wrapper, list(stored.tensors), stored.metadata) == ("", ["w"], {"epoch": 1})
    assert stored.left_out == ("extra",)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_a_prefix_goes_if_all_names_have_it(tmp_path, prefix):
    stored = read(saved(tmp_path / "a", {f"{prefix}w": torch.ones(1), f"{prefix}module.b": torch.ones(1)}))
    assert (stored.prefix, list(stored.tensors)) == (prefix, ["w", "module.b"])
    assert read(saved(tmp_path / "b", {"module.w": torch.ones(1), "b": torch.ones(1)})).prefix == ""


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.ones(1)], 3, None, {"model": {}}, {"model": {1: 2}}])
def test_files_without_a_dict_of_tensors(tmp_path, content):
    refused(saved(tmp_path / "a", content), "tensors")


# --- our own format ----------------------------------------------------------------------------------------------

CONFIG = {"depths": [1, 2, 5, 2], "embed_dim": 96}
CARD = {"classes": ["cat", "Käse"], "preprocessing": {"mean": [0.45, 0.45, 0.45]}}


def test_our_own_format_keeps_config_and_card(tmp_path):
    tensors = weights(TORCH_TYPES)
    write_own(tmp_path / "a.safetensors", tensors, config={**CONFIG, "pair": (1, 2)}, card=CARD)
    stored = read(tmp_path / "a.safetensors")
    assert stored.tensors.keys() == tensors.keys()
    entry = stored.metadata["mvitv2"]
    assert entry["config"] == {**CONFIG, "pair": [1, 2]}
    assert entry["card"] == CARD
    assert (entry["format"], len(entry["sha256"])) == (1, 64)
    assert safetensors.torch.load_file(tmp_path / "a.safetensors").keys() == tensors.keys()


def test_our_own_format_is_the_same_bytes_each_time(tmp_path):
    tensors = weights()
    write_own(tmp_path / "a", tensors, config=CONFIG, card=CARD)
    write_own(tmp_path / "b", dict(reversed(tensors.items())), config=CONFIG, card=CARD)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("position", [-1, -5, -20])
def test_a_changed_byte_in_our_own_format_is_noticed(tmp_path, position):
    write_own(tmp_path / "a", {"w": torch.ones(10)}, config=CONFIG, card=CARD)
    data = bytearray((tmp_path / "a").read_bytes())
    data[position] ^= 1
    (tmp_path / "a").write_bytes(data)
    refused(tmp_path / "a", "sha256", "fetch it again")


@pytest.mark.parametrize(
    ("old", "new"), [(b"96", b"97"), (b'\\"cat\\"', b'\\"dog\\"'), (b'"w"', b'"v"')], ids=["config", "card", "name"]
)
def test_a_changed_header_of_our_own_format_is_noticed(tmp_path, old, new):
    write_own(tmp_path / "a", {"w": torch.ones(10)}, config=CONFIG, card=CARD)
    data = (tmp_path / "a").read_bytes()
    assert old in data
    (tmp_path / "a").write_bytes(data.replace(old, new))
    refused(tmp_path / "a", "sha256")


def test_a_newer_format_asks_for_an_upgrade(tmp_path):
    header = own.header({"w": torch.ones(1)}, CONFIG, CARD)
    entry = json.loads(header["mvitv2"])
    for change, parts in (({"format": 2}, ("newer", "upgrade")), ({"config": 3}, ("lacks",)), ({"format": "x"}, ())):
        text = json.dumps({**entry, **change})
        write(tmp_path / "a", {"w": torch.ones(1)}, container="safetensors", extra={"mvitv2": text})
        refused(tmp_path / "a", *parts)
    write(tmp_path / "a", {"w": torch.ones(1)}, container="safetensors", extra={"mvitv2": "{"})
    refused(tmp_path / "a", "JSON")


@pytest.mark.parametrize("config", [{"a": object()}, {"a": float("nan")}, {"a": torch.ones(1)}])
def test_config_and_card_must_be_plain(tmp_path, config):
    with pytest.raises(ValueError, match="plain JSON"):
        write_own(tmp_path / "a", {"w": torch.ones(1)}, config=config, card={})
    assert list(tmp_path.iterdir()) == []


# --- writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensors", "options", "message"),
    [
        ({"w": torch.ones(1)}, {"container": "zip"}, "choose one of"),
        ({}, {"container": "npz"}, "no tensors"),
        ({"w": torch.ones(1, device="meta")}, {"container": "npz"}, "meta device"),
        ({"w": torch.ones(1).to_sparse()}, {"container": "safetensors"}, "sparse"),
        ({"w": torch.ones(1).bfloat16()}, {"container": "npz"}, "float32 first"),
        ({"w": torch.ones(1).bfloat16()}, {"container": "raw pickle"}, "float32 first"),
        ({"w": torch.ones(1)}, {"container": "npz", "extra": {"a": 1}}, "arrays only"),
        ({"w": torch.ones(1)}, {"container": "safetensors", "wrapper": "model"}, "tensors only"),
        ({"w": torch.ones(1)}, {"container": "safetensors", "extra": {"a": 1}}, "text only"),
        ({"w": torch.ones(1)}, {"container": "torch zip", "extra": {"a": 1}}, "needs a wrapper"),
        ({"w": torch.ones(1)}, {"container": "torch zip", "wrapper": "m", "extra": {"m": 1}}, "key of the tensors"),
        ({"w": torch.ones(1)}, {"container": "raw pickle", "extra": {"a": {"b": Path()}}}, "not plain"),
    ],
)
def test_what_a_container_cannot_hold_is_said_before_anything_is_written(tmp_path, tensors, options, message):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a", tensors, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_only_tensors_under_names_are_written(tmp_path):
    for tensors in ([("w", torch.ones(1))], {"w": [1.0]}, {1: torch.ones(1)}):
        with pytest.raises(TypeError, match="tensors"):
            write(tmp_path / "a", tensors, container="torch zip")  # type: ignore[arg-type]


def test_a_slice_does_not_drag_its_whole_storage_along(tmp_path):
    write(tmp_path / "a", {"row": torch.zeros(1000, 1000)[3]}, container="torch zip")
    assert (tmp_path / "a").stat().st_size < 10_000


@pytest.mark.parametrize("container", files.CONTAINERS)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, container):
    write(tmp_path / "a", {"w": torch.ones(1)}, container=container)
    before = (tmp_path / "a").read_bytes()

    def broken(path, *_):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(writers, "WRITERS", {container: broken})
    with pytest.raises(OSError, match="no space"):
        write(tmp_path / "a", {"w": torch.zeros(1)}, container=container)
    assert (tmp_path / "a").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_write_into_a_missing_folder_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write(tmp_path / "nowhere" / "a", {"w": torch.ones(1)}, container="npz")


@pytest.mark.skipif(os.name != "posix", reason="permissions and links of posix")
def test_permissions_and_links_survive_a_rewrite(tmp_path):
    (tmp_path / "fresh").touch()
    write(tmp_path / "a", {"w": torch.ones(1)}, container="npz")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "fresh").stat().st_mode)
    (tmp_path / "a").chmod(0o640)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    write(tmp_path / "link", {"w": torch.zeros(1)}, container="npz")
    assert (tmp_path / "link").is_symlink()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert read(tmp_path / "a").tensors["w"].item() == 0


def test_replacing_is_for_anybody(tmp_path):
    with replacing(tmp_path / "report.html") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "report.html").read_text() == "whole"
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "report.html") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "whole"


# --- what is no weights file -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\0", "download it again"),
        (b"garbage " * 100, "download it again"),
        (os.urandom(3) + b"\xfe" * 1000, "download it again"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"\n <html>", "web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page"),
        (b'{"error": "not found"}', "download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 96\n", "git lfs pull"),
        (b"\x1f\x8b\x08\x00" + b"\0" * 99, "gzip"),
        (b"\x28\xb5\x2f\xfd" + b"\0" * 99, "zstd"),
        (b"PK\x03\x04" + b"\0" * 99, "truncated or damaged"),
        (b"PK\x05\x06" + b"\0" * 18, "neither torch's nor numpy's"),
        (b"\0" * 257 + b"ustar" + b"\0" * 250, "tar"),
        (b"\x93NUMPY\x01\0", "numpy.savez"),
        (struct.pack("<Q", 2**31) + b"{}", "announces 2147483648 bytes"),
        (b"\x80\x04N.", "NoneType"),
        (b"\x80\x04}.trailing", "8 bytes follow"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, reason):
    (tmp_path / "weights.pth").write_bytes(content)
    refused(tmp_path / "weights.pth", reason)


def test_paths_that_are_no_files(tmp_path):
    refused(tmp_path, "folder")
    with pytest.raises(FileNotFoundError, match=r"missing\.pth"):
        read(tmp_path / "missing.pth")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "no regular file")


def test_a_limit_on_size_is_kept_before_reading(tmp_path):
    write(tmp_path / "a", {"w": torch.ones(1000)}, container="torch zip")
    refused(tmp_path / "a", "max_bytes=4000", max_bytes=4000)
    np.savez_compressed(tmp_path / "b.npz", w=np.zeros(10**6))
    assert (tmp_path / "b.npz").stat().st_size < 100_000
    refused(tmp_path / "b.npz", "unfolds to 8000128 bytes", max_bytes=10**6)


def test_sparse_giants_are_refused_before_memory_is_taken(tmp_path):
    with (tmp_path / "a.pkl").open("wb") as file:
        file.write(b"\x80\x04")
        file.truncate(1 << 40)
    refused(tmp_path / "a.pkl", "max_bytes")


# --- lies inside containers --------------------------------------------------------------------------------------


def torch_zip(path: Path, pickled: bytes, storages: dict[str, bytes], compression=zipfile.ZIP_STORED) -> Path:
    """A torch file of our making."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def pickled_tensor(numel: int, size=(2,), stride=(1,), offset=0, kind=b"FloatStorage") -> bytes:
    """``{"w": tensor}`` as torch writes it, with sizes of our choosing."""
    buffer = io.BytesIO()
    buffer.write(b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage")
    buffer.write(b"ctorch\n" + kind + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu")
    buffer.write(pickle.dumps(numel, 2)[2:-1] + b"tQ")
    for part in (offset, size, stride):
        buffer.write(pickle.dumps(part, 2)[2:-1])
    buffer.write(b"\x89}tRs.")
    return buffer.getvalue()


def test_the_hand_made_torch_file_is_right(tmp_path):
    path = torch_zip(tmp_path / "a", pickled_tensor(2), {"0": struct.pack("<2f", 1, 2)})
    assert read(path).tensors["w"].tolist() == [1, 2]
    assert torch.load(path, weights_only=True)["w"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("pickled", "storages", "reason"),
    [
        (pickled_tensor(2**40, (2**40,)), {"0": b"12345678"}, "announced with"),
        (pickled_tensor(3), {"0": b"12345678"}, "announced with 12 bytes, its archive holds 8"),
        (pickled_tensor(2), {}, "holds no"),
        (pickled_tensor(2, (9,)), {"0": b"12345678"}, "reaches past"),
        (pickled_tensor(2, (2**33,), (0,)), {"0": b"12345678"}, "reaches past"),
        (pickled_tensor(2, kind=b"QInt8Storage"), {"0": b"12345678"}, "torch.QInt8Storage"),
        (pickle.dumps({"w": print}), {}, "builtins.print"),
        (b"", {}, "truncated"),
    ],
)
def test_torch_files_that_lie(tmp_path, pickled, storages, reason):
    refused(torch_zip(tmp_path / "a", pickled, storages), reason)


def test_other_zips(tmp_path):
    refused(torch_zip(tmp_path / "a", pickled_tensor(2), {"0": b"\0" * 8000}, zipfile.ZIP_DEFLATED), "compressed")
    with zipfile.ZipFile(tmp_path / "b", "w") as archive:
        archive.writestr("model.pth", "x")
    refused(tmp_path / "b", "model.pth", "Unpack")
    with zipfile.ZipFile(tmp_path / "c", "w") as archive:
        for name in ("m/data.pkl", "m/constants.pkl", "m/version"):
            archive.writestr(name, "x")
    refused(tmp_path / "c", "TorchScript")
    with zipfile.ZipFile(tmp_path / "d", "w") as archive:
        archive.writestr("m/data.pkl", "x")
        archive.writestr("m/byteorder", "big")
    refused(tmp_path / "d", "big-endian")


def npz(path: Path, header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> Path:
    """An npz of our making with one member."""
    text = header.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,)}", "announces 399999999996 bytes, has 0"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "announces"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': ()}", "neither numbers nor text"),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}", "neither numbers nor text"),
        ("{'descr': '<f4'}", "no readable npy header"),
        ("__import__('os').system('x')", "no readable npy header"),
    ],
)
def test_npz_files_that_lie(tmp_path, header, reason):
    refused(npz(tmp_path / "a.npz", header), reason)


def test_npz_of_another_version(tmp_path):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (0,)}"
    refused(npz(tmp_path / "a.npz", header, version=b"\x09\x00"), "npy")


def safetensors_file(path: Path, header: object, data: bytes = b"12345678") -> Path:
    """A safetensors file of our making."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


W = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def test_the_hand_made_safetensors_file_is_right(tmp_path):
    path = safetensors_file(tmp_path / "a", {"w": W, "none": {"dtype": "I8", "shape": [0], "data_offsets": [8, 8]}})
    assert read(path).tensors["w"].shape == (2,)
    assert safetensors.torch.load_file(path).keys() == {"w", "none"}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"w": {**W, "shape": [3]}}, "contradict"),
        ({"w": {**W, "shape": [2**62, 2**62]}}, "contradict"),
        ({"w": {**W, "shape": [-2]}}, "contradict"),
        ({"w": {**W, "shape": ["2"]}}, "contradict"),
        ({"w": {**W, "data_offsets": [8, 0]}}, "contradict"),
        ({"w": {**W, "data_offsets": [8, 16]}}, "hole"),
        ({"w": {**W, "data_offsets": [-8, 0]}}, "hole"),
        ({"w": {**W, "dtype": "F7"}}, "'F7'"),
        ({"w": W, "v": W}, "overlap"),
        ({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, "describes"),
        ({"w": None}, "contradict"),
        ({"__metadata__": {"a": 1}, "w": W}, "text metadata"),
        (b'{"w": {}, "w": {}}', "occurs twice"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "no JSON"),
        (b"{" + b"\xff" * 9, "no JSON"),
        ({}, "describes"),
    ],
)
def test_safetensors_files_that_lie(tmp_path, header, reason):
    refused(safetensors_file(tmp_path / "a", header), reason)


def test_arrays_that_share_their_bytes_cannot_unfold_beyond_the_file(tmp_path):
    def arrays(count: int) -> bytes:
        """Arrays of 8000 bytes, all made of the same bytes, which are stored as entry 200."""
        kind = pickle.dumps(np.dtype("f8"), 2)[2:-1]
        data = b"\x80\x04B" + struct.pack("<I", 8000) + b"\0" * 8000 + b"q\xc80}("
        for i in range(count):
            data += pickle.dumps(f"w{i}", 3)[2:-1] + b"cnumpy._core.numeric\n_frombuffer\n(h\xc8" + kind
            data += pickle.dumps((1000,), 2)[2:-1] + pickle.dumps("C", 2)[2:-1] + b"tR"
        return data + b"u."

    (tmp_path / "a").write_bytes(arrays(1))
    assert read(tmp_path / "a").tensors["w0"].shape == (1000,)
    (tmp_path / "a").write_bytes(arrays(5))
    refused(tmp_path / "a", "share their bytes")


# --- injuries ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> dict[str, bytes]:
    """One small file of each container, as bytes."""
    folder = tmp_path_factory.mktemp("healthy")
    tensors = {f"blocks.{i}.w": torch.rand(2, 3) for i in range(3)}
    found = {}
    for container in files.CONTAINERS:
        write(folder / "a", tensors, container=container)
        found[container] = (folder / "a").read_bytes()
    torch.save({"model_state": tensors, "cfg": "x"}, folder / "a", _use_new_zipfile_serialization=False)
    found["torch legacy"] = (folder / "a").read_bytes()
    write_own(folder / "a", tensors, config=CONFIG, card=CARD)
    return {**found, "own": (folder / "a").read_bytes()}


@pytest.mark.parametrize("kind", [*files.CONTAINERS, "torch legacy", "own"])
def test_every_truncation_is_refused(tmp_path, healthy, kind):
    data = healthy[kind]
    for end in sorted({*range(0, len(data), max(1, len(data) // 150)), len(data) - 1}):
        (tmp_path / "a").write_bytes(data[:end])
        refused(tmp_path / "a")


@pytest.mark.parametrize("kind", [*files.CONTAINERS, "torch legacy", "own"])
def test_every_flipped_byte_is_refused_or_harmless(tmp_path, healthy, kind):
    dice = random.Random(0)
    for _ in range(300):
        data = bytearray(healthy[kind])
        for _ in range(dice.choice((1, 1, 3))):
            data[dice.randrange(len(data))] = dice.randrange(256)
        (tmp_path / "a").write_bytes(data)
        try:
            stored = read(tmp_path / "a")
        except WeightsFileError:
            continue
        assert all(isinstance(tensor, torch.Tensor) for tensor in stored.tensors.values())


@pytest.mark.parametrize("container", ["safetensors", "torch zip"])
def test_a_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch, container):
    write(tmp_path / "a", {"w": torch.zeros(100_000)}, container=container)
    whole = files._contents

    def shrinking(*arguments):
        contents = whole(*arguments)
        os.truncate(tmp_path / "a", 100_000)
        return contents

    monkeypatch.setattr(files, "_contents", shrinking)
    refused(tmp_path / "a", "truncated")


# --- the peers' own files ----------------------------------------------------------------------------------------


def peers_files() -> list[dict]:
    """The list of real files, or nothing where they are not at hand."""
    index = CHECKPOINTS / "index.json"
    return json.loads(index.read_text())["files"] if index.is_file() else []


@pytest.mark.skipif(not peers_files(), reason="the peers' checkpoint files are not beside the repository")
@pytest.mark.parametrize("entry", peers_files(), ids=lambda entry: entry["file"])
def test_files_of_the_peers_are_read_as_their_libraries_read_them(entry):
    path = CHECKPOINTS / entry["file"]
    stored = read(path)
    if path.suffix == ".safetensors":
        expected = safetensors.torch.load_file(path)
    elif path.suffix == ".pkl":
        expected = {n: torch.from_numpy(a) for n, a in trusted_pickle(path)["model"].items()}
    else:
        whole = torch.load(path, weights_only=False)  # made here, trusted
        expected = whole[stored.wrapper] if stored.wrapper else whole
    assert_same({stored.prefix + name: tensor for name, tensor in stored.tensors.items()}, dict(expected))


@pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")
def trusted_pickle(path: Path) -> dict:
    """``pickle.load`` of a file made by us."""
    import warnings

    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy.core was renamed
        return pickle.load(file, encoding="latin1")
