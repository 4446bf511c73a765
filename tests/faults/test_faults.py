"""The faults in their short form, where no other test has them; the long form is ``python -m tests.faults --long``."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ..e2e.training_job import Child, children_of
from .scenarios import SCENARIOS, full_disk


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happened to."""
    path = tmp_path_factory.mktemp("whole")
    assert Child(path).end() == 0
    return path


def test_a_full_disk(whole: Path, tmp_path: Path) -> None:
    try:
        assert "same bits" in full_disk(tmp_path, whole, 1)
    except PermissionError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "full disk"])
def test_each_fault_once_more(whole: Path, tmp_path: Path, name: str) -> None:
    fault, times, _ = SCENARIOS[name]
    assert "same bits" in fault(tmp_path, whole, times)


@pytest.mark.slow
def test_torchrun_starts_killed_processes_again(tmp_path: Path) -> None:
    """``torchrun --max-restarts`` as people type it: the process killed is the whole command's."""
    import mvitv2
    from mvitv2.train import checkpoint, folder

    words = [
        "train",
        "digits",
        "--epochs",
        "2",
        "--warmup-epochs",
        "0",
        "--batch-size",
        "256",
        "--save-minutes",
        "0.0001",
    ]
    words += ["--no-report", "log=none", "--set", "stages.depths=1,1", "--output"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "2"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(mvitv2.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        "CXX": "false",
    }
    command = [sys.executable, *launch, "-m", "mvitv2", *words]
    outputs = []
    for name, kill in (("one", False), ("two", True)):
        where = tmp_path / name
        with (tmp_path / f"{name}.txt").open("w") as told:
            process = subprocess.Popen([*command, str(where)], stdout=told, stderr=told, env=environment)
            if kill:
                kill_one(process, where)
            assert process.wait(400) == 0, (tmp_path / f"{name}.txt").read_text()[-3000:]
        outputs.append((tmp_path / f"{name}.txt").read_text())
    mine, its = (checkpoint.read(tmp_path / name / "last.pt")["model"] for name in ("one", "two"))
    assert all(torch.equal(value, its[name]) for name, value in mine.items())
    assert "going on from step" in outputs[1]
    assert outputs[0].count("next: mvitv2 eval") == 1  # only one of them speaks
    assert len(folder.read_metrics(tmp_path / "two")) == len(folder.read_metrics(tmp_path / "one"))
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["epochs"] == 2


def kill_one(process: "subprocess.Popen[bytes]", where: Path) -> None:
    """Kill one of the processes that a launcher started, once the log tells of two steps."""
    end = time.monotonic() + 200
    while not (where / "metrics.jsonl").exists() or (where / "metrics.jsonl").read_text().count("\n") < 2:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(children_of(process.pid)[-1], signal.SIGKILL)
