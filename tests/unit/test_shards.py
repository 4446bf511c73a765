"""Tar shards: indexed, read in place, every sample once, the same after a restart, here and behind a URL."""

import gc
import hashlib
import http.server
import io
import itertools
import json
import pickle
import shutil
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mvitv2.data.folder import ImageFolder
from mvitv2.data.images import ImageError
from mvitv2.data.labelled import DataError
from mvitv2.data.open import open_dataset, open_splits
from mvitv2.data.pack import damaged, pack
from mvitv2.data.remote import ShardCache, fetched, is_url
from mvitv2.data.samples import SampleKey, collate
from mvitv2.data.shards import TarShards, expanded
from mvitv2.data.tar import loaded, scanned, tar_index
from mvitv2.train.order import Order
from mvitv2.train.sampler import MicroBatches


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache of its own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MVITV2_CACHE", str(folder))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> ImageFolder:
    """Twelve pictures of three classes, each of another colour."""
    for place in range(12):
        path = tmp_path / "photos" / ("cat", "dog", "emu")[place % 3] / f"{place}.v1 x.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (place, 0, 0)).save(path)
    return ImageFolder(tmp_path / "photos")


@pytest.fixture
def packed(photos, tmp_path) -> Path:
    """Those in shards of four."""
    pack(photos, tmp_path / "packed", 4 * 2048, seed=None)
    return tmp_path / "packed"


def colour(item) -> int:
    """What tells a sample apart."""
    return item[0].getpixel((0, 0))[0]


def red(image: Image.Image) -> torch.Tensor:
    """A transform that keeps what tells a sample apart."""
    return torch.tensor([float(np.asarray(image)[0, 0, 0])])


def tar(path: Path, members: dict[str, bytes]) -> Path:
    """A tar of small files."""
    with tarfile.open(path, "w:") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def png(red: int = 0) -> bytes:
    Image.new("RGB", (4, 4), (red, 0, 0)).save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


# packing


def test_packed_data_is_the_same_data(photos, packed):
    shards = open_dataset(packed)
    assert isinstance(shards, TarShards) and len(shards.shards) == 3 and shards.lengths == (4, 4, 4)
    assert shards.classes == photos.classes and shards.labels.tolist() == photos.labels.tolist()
    assert [colour(shards[i]) for i in range(12)] == [colour(photos[i]) for i in range(12)]
    assert [shards.source(i) == photos.path(i).read_bytes() for i in range(12)] == [True] * 12


def test_index_json_tells_sizes_and_checksums(packed):
    entries = json.loads((packed / "index.json").read_text())
    assert entries["samples"] == 12 and entries["classes"] == ["cat", "dog", "emu"]
    for shard in entries["shards"]:
        data = (packed / shard["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["bytes"], shard["sha256"])
    assert damaged(packed) == []


def test_packing_is_repeatable_and_mixes(photos, tmp_path):
    for name in ("a", "b"):
        pack(photos, tmp_path / name, 4096)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir())
    tars = [name for name in files if name.endswith(".tar")]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in tars)
    labels = open_dataset(tmp_path / "a").labels.tolist()
    assert labels != sorted(labels) and sorted(labels) == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_plain_reader_of_webdataset_takes_them(packed):
    webdataset = pytest.importorskip("webdataset", reason="comes with the extra `train`")
    stream = webdataset.WebDataset([str(path) for path in sorted(packed.glob("*.tar"))], shardshuffle=False)
    samples = list(stream.decode("rgb8").to_tuple("png", "cls"))
    assert [int(image[0, 0, 0]) for image, _ in samples] == [colour(open_dataset(packed)[i]) for i in range(12)]
    assert [label for _, label in samples] == [0] * 4 + [1] * 4 + [2] * 4
    gc.collect()  # that reader leaves its files open


def test_files_that_cannot_be_opened_while_packing(photos, tmp_path):
    photos.path(3).unlink()
    with pytest.raises(ImageError, match="does not exist"):
        pack(photos, tmp_path / "a")
    shutil.rmtree(tmp_path / "a", ignore_errors=True)
    photos.on_error = "skip"
    progress = []
    pack(photos, tmp_path / "b", on_progress=lambda done, total: progress.append((done, total)))
    entries = json.loads((tmp_path / "b" / "index.json").read_text())
    assert entries["samples"] == 11 and [Path(item["path"]) for item in entries["skipped"]] == [photos.path(3)]
    assert progress == [(i, 12) for i in range(1, 13)]


def test_shards_are_not_packed_over_others(photos, packed):
    with pytest.raises(DataError, match="holds shards already"):
        pack(photos, packed)


def test_damage_is_told(packed):
    first, second, _ = sorted(packed.glob("*.tar"))
    first.unlink()
    data = bytearray(second.read_bytes())
    data[600] ^= 1
    second.write_bytes(data)
    faults = damaged(packed)
    assert faults[0] == "shards-000000.tar is missing" and faults[1].startswith("shards-000001.tar has")


# reading


def test_shards_of_others(tmp_path):
    members = {
        "n1/0001.jpg": png(1), "n1/0001.json": b'{"label": 1, "text": "x"}', "0002.png": png(2), "0002.cls": b"0\n",
        "notes.txt": b"x", "0003.png": png(3), "0004.cls": b"1", "0005.seg.png": png(5), "0005.cls": b"2",
    }  # fmt: skip
    shards = TarShards([tar(tmp_path / "a.tar", members)])
    assert shards.classes == ("0", "1", "2") and shards.labels.tolist() == [1, 0, 2]
    assert [colour(shards[i]) for i in range(3)] == [1, 2, 5]
    assert shards.path(0) == tmp_path / "a.tar" / "n1/0001.jpg"
    assert "1 members of the shards are left out: without a label" in shards.notes


def test_names_as_labels_and_a_file_of_classes(tmp_path):
    path = tar(tmp_path / "a.tar", {"0.png": png(), "0.cls": b"dog", "1.png": png(), "1.cls": b"cat"})
    assert TarShards([path]).classes == ("cat", "dog")
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    assert TarShards([path]).labels.tolist() == [0, 1]
    assert TarShards([path], classes=["cat", "bat", "dog"]).labels.tolist() == [2, 0]
    with pytest.raises(DataError, match="1 unknown label: dog"):
        TarShards([path], classes=["cat", "bat"])


def test_classes_of_a_model_in_another_order(packed):
    assert open_dataset(packed, classes=["emu", "dog", "cat"]).labels.tolist() == [2] * 4 + [1] * 4 + [0] * 4
    with pytest.raises(DataError, match="unknown labels"):
        open_dataset(packed, classes=["emu", "horse", "cow"])


def test_splits_of_shards(packed, tmp_path):
    (tmp_path / "both" / "train").mkdir(parents=True)
    for path in packed.iterdir():
        shutil.copy(path, tmp_path / "both" / "train")
    shutil.copytree(packed, tmp_path / "both" / "validation")
    splits = open_splits(tmp_path / "both", {"train": None, "val": None})
    assert {split: len(data) for split, data in splits.items()} == {"train": 12, "val": 12}
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "classes.txt").write_text("cat\ndog\nemu\n")
    for number, (path, split) in enumerate(zip(sorted(packed.glob("*.tar")), ("train", "train", "val"), strict=True)):
        shutil.copy(path, flat / f"set-{split}-{number}.tar")
    assert [len(data) for data in open_splits(flat, {"train": None, "val": None}).values()] == [8, 4]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a-{008..010}.tar", ["a-008.tar", "a-009.tar", "a-010.tar"]),
        ("{x,y}-{0..1}.tar", ["x-0.tar", "x-1.tar", "y-0.tar", "y-1.tar"]),
        ("a.tar::b-{0..1}.tar", ["a.tar", "b-0.tar", "b-1.tar"]),
        ("a{b}.tar", ["a{b}.tar"]),
    ],
)
def test_braces(pattern, names):
    assert expanded(pattern) == names


@pytest.mark.parametrize("pattern", ["a-{9..1}.tar", "a-{0..99999999}.tar", "{0..9999}{0..9999}.tar"])
def test_braces_that_make_no_sense(pattern):
    with pytest.raises(DataError):
        expanded(pattern)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x1f\x8b\x08\x00abc", r"is compressed \(gzip\); unpack it to a plain \.tar"),
        (b"something else entirely" * 100, "is no whole tar file"),
        (b"", "is no whole tar file"),
    ],
)
def test_files_that_are_no_shards(tmp_path, data, expected):
    (path := tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(DataError, match=expected):
        TarShards([path])


def test_shards_without_samples_or_missing_or_cut_off(tmp_path, packed):
    with pytest.raises(
        DataError, match=r"holds no samples; expected NAME\.jpg and NAME\.cls .*2 other files \(2 \.png\)"
    ):
        TarShards([tar(tmp_path / "a.tar", {"0.png": png(), "1.png": png()})])
    with pytest.raises(DataError, match=r"none\.tar: the shard cannot be read"):
        TarShards([tmp_path / "none.tar"])
    path = packed / "shards-000001.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="is no whole tar file"):
        open_dataset(packed)


@pytest.mark.parametrize("text", [b"", b"a\nb", b"\xff", b"x" * (1 << 21)])
def test_labels_that_are_none(tmp_path, text):
    with pytest.raises(DataError, match=r"0\.cls"):
        TarShards([tar(tmp_path / "a.tar", {"0.png": png(), "0.cls": text})])


def test_a_shard_that_shrinks_while_it_is_used(packed):
    shards = TarShards(sorted(packed.glob("*.tar")), on_error="skip")
    path = Path(shards.shards[2])
    path.write_bytes(path.read_bytes()[:700])
    assert "is cut off" in shards[11].reason
    path.unlink()
    assert "its shard is gone" in shards[11].reason and colour(shards[0]) == 0
    with pytest.raises(IndexError, match="index 12 of 12 samples"):
        shards[12]


def test_other_sizes_than_the_index_says(packed):
    path = packed / "shards-000000.tar"
    path.write_bytes(path.read_bytes() + bytes(512))
    with pytest.raises(DataError, match=r"its index\.json says"):
        open_dataset(packed)


@pytest.mark.parametrize("name", ["../x.tar", "/etc/x.tar", "http://x/y.tar", "x.txt"])
def test_an_index_points_nowhere_else(packed, name):
    entries = json.loads((packed / "index.json").read_text())
    entries["shards"][0]["name"] = name
    (packed / "index.json").write_text(json.dumps(entries))
    with pytest.raises(DataError, match="no plain name"):
        open_dataset(packed)


def test_an_index_is_kept_and_made_again(tmp_path, cache):
    path = tar(tmp_path / "a.tar", {"0.png": png(), "0.cls": b"3"})
    assert len(tar_index(path)) == 1
    (kept,) = (cache / "shards").iterdir()
    kept.write_bytes(b"damaged")
    assert len(tar_index(path)) == 1 and loaded(kept).kinds == ("3",)


def test_an_index_that_does_not_fit_is_refused(packed):
    beside = packed / "shards-000000.tar.index.npz"
    arrays = dict(np.load(beside))
    arrays["offsets"] = arrays["offsets"] + 10**9
    np.savez(beside, **arrays)
    with pytest.raises(DataError, match="is a damaged index"):
        loaded(beside)
    beside.write_bytes(pickle.dumps("harmless"))
    with pytest.raises(DataError, match="is no index of a shard"):
        loaded(beside)


# the promises: shuffled by a seed, each sample once, exact after a restart


@pytest.mark.parametrize("workers", [0, 2])
def test_the_sampler_of_training_goes_on_in_the_middle(packed, workers):
    def seen(first: int) -> list[float]:
        sampler = MicroBatches(Order(12, 5), batch_size=2, passes=1, first=first, steps=12)
        loader = DataLoader(open_dataset(packed, red), batch_sampler=sampler, collate_fn=collate, num_workers=workers)
        return [value for batch in loader for value in batch.images.flatten().tolist()]

    whole = seen(0)
    assert sorted(whole[:12]) == sorted(whole[12:]) == list(range(12)) and whole[:12] != whole[12:]
    assert seen(7) == whole[14:]


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_every_sample_counts_once_for_any_number_of_processes(packed, processes):
    shards = open_dataset(packed)
    parts = [range(rank, len(shards), processes) for rank in range(processes)]
    assert sorted(colour(shards[i]) for i in itertools.chain(*parts)) == list(range(12))


def test_an_order_that_reads_few_shards_at_a_time(packed):
    shards = TarShards(sorted(packed.glob("*.tar")))
    order = shards.order(seed=1, epoch=0, window=1)
    assert sorted(order) == list(range(12))
    runs = [shard for shard, _ in itertools.groupby(index // 4 for index in order)]
    assert len(runs) == 3 and order != sorted(order)
    assert order == shards.order(seed=1, epoch=0, window=1)
    assert order != shards.order(seed=1, epoch=1, window=1) != shards.order(seed=2, epoch=1, window=1)
    wide = [shard for shard, _ in itertools.groupby(index // 4 for index in shards.order(seed=1, epoch=0, window=3))]
    assert len(wide) > 3


def test_a_seed_decides_augmentation_whatever_the_worker(packed):
    shards = open_dataset(packed, lambda image: torch.rand(1))
    assert torch.equal(shards[SampleKey(3, 9)][0], shards[SampleKey(3, 9)][0])
    assert not torch.equal(shards[SampleKey(3, 9)][0], shards[SampleKey(3, 8)][0])


# URLs


class Server:
    """A folder over HTTP, and what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args, **kwargs) -> None:
                super().__init__(*args, directory=str(folder), **kwargs)

            def do_GET(self) -> None:
                asked.append(self.path)
                super().do_GET()

            def log_message(self, format: str, *args) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server(packed):
    pytest.importorskip("webdataset", reason="comes with the extra `train`")
    if shutil.which("curl") is None:
        pytest.skip("webdataset fetches with curl, which this machine has not")
    served = Server(packed)
    yield served
    served.close()


def test_shards_behind_a_url_are_fetched_when_they_are_needed(server, packed):
    shards = open_dataset(f"{server.url}/shards-{{000000..000002}}.tar")
    assert len(shards) == 12 and shards.classes == ("cat", "dog", "emu")
    assert not [name for name in server.asked if name.endswith(".tar")]
    assert [colour(shards[i]) for i in (5, 6, 5)] == [colour(open_dataset(packed)[i]) for i in (5, 6, 5)]
    assert [name for name in server.asked if name.endswith(".tar")] == ["/shards-000001.tar"]


def test_without_an_index_each_is_fetched_once(server, packed):
    for path in (packed / "index.json", *packed.glob("*.npz")):
        path.unlink()
    for _ in range(2):
        assert len(open_dataset(f"{server.url}/shards-{{000000..000002}}.tar")) == 12
    assert sorted(name for name in server.asked if name.endswith(".tar")) == [f"/shards-00000{i}.tar" for i in range(3)]


def test_another_file_than_the_index_says(server, packed):
    path = packed / "shards-000000.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    shards = open_dataset(f"{server.url}/shards-000000.tar")
    with pytest.raises(DataError, match=r"its index\.json says .*it changed or was cut off"):
        shards[0]


def test_addresses_that_lead_nowhere(server, monkeypatch):
    with pytest.raises(DataError, match=r"none\.tar: the shard cannot be fetched .*check the address"):
        open_dataset(f"{server.url}/none.tar")
    with pytest.raises(DataError, match=r"webdataset and fsspec open .*http.*use pipe:"):
        open_dataset("s9://bucket/none.tar")
    monkeypatch.setenv("MVITV2_OFFLINE", "1")
    with pytest.raises(DataError, match="MVITV2_OFFLINE forbids the network"):
        open_dataset(f"{server.url}/shards-000000.tar")


def test_a_cache_of_bounded_size(packed, tmp_path):
    pytest.importorskip("webdataset", reason="comes with the extra `train`")
    names = [f"file:{path}" for path in sorted(packed.glob("*.tar"))]
    size = max(path.stat().st_size for path in packed.glob("*.tar"))
    shards = TarShards(names, cache=ShardCache(tmp_path / "small", max_bytes=2 * size))
    for _ in range(2):
        assert [colour(shards[i]) for i in range(12)] == [colour(open_dataset(packed)[i]) for i in range(12)]
    assert sum(1 for _ in (tmp_path / "small").glob("*/*.tar")) <= 2


def test_a_command_as_a_url(packed, tmp_path):
    pytest.importorskip("webdataset", reason="comes with the extra `train`")
    assert len(open_dataset(f"pipe:cat {packed}/shards-000000.tar")) == 4
    with pytest.raises(DataError, match="cannot be fetched"):
        fetched("pipe:exit 3", ShardCache(tmp_path / "c"))
    with pytest.raises(DataError, match="gave nothing"):
        fetched("pipe:true", ShardCache(tmp_path / "c"))


@pytest.mark.parametrize(
    ("name", "expected"), [("http://x/a.tar", True), ("pipe:cat a", True), ("C:\\a.tar", False), ("a/b.tar", False)]
)
def test_what_a_url_is(name, expected):
    assert is_url(name) is expected


def test_an_index_of_a_shard_counts_links(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w:") as archive:
        for name, data in (("0.png", png()), ("0.cls", b"0")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert scanned(path).ignored == {"links and devices": 1}
