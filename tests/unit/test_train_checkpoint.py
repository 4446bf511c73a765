"""At every moment one whole checkpoint is there, whatever fails."""

import json
from pathlib import Path

import pytest
import torch

from mvitv2.train import checkpoint, folder
from mvitv2.train.failures import CheckpointError


def test_the_one_before_is_kept(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, {"step": step, "weights": torch.full((5,), float(step))})
    assert checkpoint.read(tmp_path / "last.pt")["step"] == 3
    assert checkpoint.read(tmp_path / "previous.pt")["step"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


@pytest.mark.parametrize("call", ["torch.save", "os.fsync", "pathlib.Path.replace", "os.replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_a_save_that_fails_anywhere_leaves_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: Exception
) -> None:
    checkpoint.save(tmp_path, {"step": 1})
    checkpoint.save(tmp_path, {"step": 2})

    def fail(*given: object, **named: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(call, fail)
        with pytest.raises(CheckpointError, match=r"last\.pt could not be written \(.*; \d+ MiB are free\)"):
            checkpoint.save(tmp_path, {"step": 3})
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded.tree["step"] == 2
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*.tmp"))
    checkpoint.save(tmp_path, {"step": 4})
    assert checkpoint.read(tmp_path / "last.pt")["step"] == 4


def test_a_damaged_file_never_takes_the_place_of_a_good_one(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {"step": 1})
    checkpoint.save(tmp_path, {"step": 2})
    (tmp_path / "last.pt").write_bytes(b"nothing")
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded.tree["step"] == 1
    assert "last.damaged" in loaded.notes[0]
    checkpoint.save(tmp_path, {"step": 3})
    assert checkpoint.read(tmp_path / "previous.pt")["step"] == 1


def test_nothing_whole_is_an_error(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {"step": 1})
    (tmp_path / "last.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be read"):
        checkpoint.load(tmp_path)


def test_objects_are_refused(tmp_path: Path) -> None:
    torch.save({"format": 2, "path": tmp_path}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        checkpoint.read(tmp_path / "last.pt")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="no checkpoint of a training run"):
        checkpoint.read(tmp_path / "last.pt")
    torch.save({"format": 99}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="format 99, this version reads 2"):
        checkpoint.read(tmp_path / "last.pt")


def test_the_log_forgets_steps_that_will_be_taken_again(tmp_path: Path) -> None:
    log = folder.MetricsLog(tmp_path, step=0)
    for step in (1, 2, 3):
        log.write({"step": step})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in folder.read_metrics(tmp_path)] == [1, 2, 3]
    folder.MetricsLog(tmp_path, step=2).close()
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_results_have_the_columns_of_all_rows(tmp_path: Path) -> None:
    folder.write_results(tmp_path, [{"epoch": 1, "top1": 0.5}, {"epoch": 2, "top1": 0.6, "unreadable": 3}])
    assert (tmp_path / "results.csv").read_text() == "epoch,top1,unreadable\n1,0.5,\n2,0.6,3\n"
