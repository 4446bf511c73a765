"""A run whose folder is lost goes on from its mirror, and a mirror that fails does not stop it before the end."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mvitv2.data.labelled import DataError
from mvitv2.data.remote import ShardCache, fetched
from mvitv2.train import checkpoint
from mvitv2.train.failures import CheckpointError
from mvitv2.train.loop import fit
from mvitv2.train.mirror import LIST, Mirror
from mvitv2.train.progress import Lines
from mvitv2.train.recipe import overridden
from mvitv2.train.settings import Settings

from ..e2e.training_job import RECIPE, small_job

fsspec: Any = pytest.importorskip("fsspec", reason="object storage is reached through fsspec: the extra remote")
SHORT = overridden(RECIPE, {"epochs": 1, "warmup_epochs": 0})


def run(folder: Path, mirror: str, **settings: Any) -> Any:
    return fit(small_job(), SHORT, Settings(output=folder, mirror=mirror, save_steps=2, **settings))


def test_a_lost_folder_comes_back(tmp_path: Path) -> None:
    mirror = "memory://runs/lost"
    first = run(tmp_path / "run", mirror)
    files = fsspec.filesystem("memory")
    names = sorted(path.rpartition("/")[2] for path in files.ls("/runs/lost", detail=False))
    assert [name for name in names if name.startswith("step-")] == ["step-00000004", "step-00000005"]
    assert {"best.safetensors", "summary.json", "results.csv", "metrics.jsonl", "recipe.json"} <= set(names)
    kept = (tmp_path / "run" / "best.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run")
    again = run(tmp_path / "run", mirror, resume="must")
    assert again.history == first.history
    assert (tmp_path / "run" / "best.safetensors").read_bytes() == kept
    assert checkpoint.read(tmp_path / "run" / "previous.pt")["step"] == 4
    # a step that is not all there does not count, and one that is damaged gives way to the one before
    files.rm_file(f"/runs/lost/step-00000005/{LIST}")
    Mirror(mirror).pull(tmp_path / "third")
    assert checkpoint.read(tmp_path / "third" / "last.pt")["step"] == 4
    assert not (tmp_path / "third" / "previous.pt").exists()
    assert Mirror(mirror).pull(tmp_path / "third") == 0


def test_folders_of_steps_come_back(tmp_path: Path) -> None:
    parts = tmp_path / "run" / "checkpoints" / "step-00000007"
    parts.mkdir(parents=True)
    (parts / "__0_0.distcp").write_bytes(b"part")
    mirror = Mirror(f"file://{tmp_path}/there")
    mirror.push(tmp_path / "run", 7)
    assert json.loads((tmp_path / "there" / "step-00000007" / LIST).read_text()) == {"__0_0.distcp": 4}
    assert mirror.pull(tmp_path / "other") == 1
    assert (tmp_path / "other" / "checkpoints" / "step-00000007" / "__0_0.distcp").read_bytes() == b"part"


def test_a_mirror_that_fails_is_told_and_must_work_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*given: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(fsspec.filesystem("memory").__class__, "put_file", gone)
    console = Console(record=True, width=300)
    settings = Settings(output=tmp_path, mirror="memory://runs/gone", save_steps=2)
    with pytest.raises(CheckpointError, match=r"memory://runs/gone: the run could not be copied there \(no route"):
        fit(small_job(), SHORT, settings, Lines(console))
    assert "(no route to host); the run goes on, and the checkpoint before stays" in console.export_text()
    assert checkpoint.read(tmp_path / "last.pt")["step"] == 5


@pytest.mark.parametrize("url", ["nowhere://bucket/run", "s3://bucket/run"])
def test_addresses_that_cannot_be_reached(tmp_path: Path, url: str) -> None:
    if url.startswith("s3"):
        try:
            import s3fs  # noqa: F401  # pyright: ignore
        except ImportError:
            pass
        else:
            pytest.skip("s3fs is here, and would ask the network")
    with pytest.raises(ValueError, match=f"mirror='{url}' cannot be used: .*"):
        Mirror(url)


def test_shards_come_from_any_store_of_fsspec(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/shards/a.tar", b"a shard")
    assert fetched("memory://shards/a.tar", ShardCache(tmp_path)).read_bytes() == b"a shard"
    with pytest.raises(DataError, match=r"memory://shards/b\.tar: the shard cannot be fetched"):
        fetched("memory://shards/b.tar", ShardCache(tmp_path))
