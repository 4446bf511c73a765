"""What launchers say, and what one process alone does: nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mvitv2.tasks.devices import own_device
from mvitv2.tasks.launchers import Launched, launched
from mvitv2.tasks.processes import ALONE, Processes, ProcessLost, current, joined, losses_explained
from mvitv2.train.parallel import called
from mvitv2.train.settings import Settings
from mvitv2.train.sharing import shares

from ..e2e.training_job import small_model
from .test_train_loop import batch

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_LOCALID": "2",
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[03-04,07],big1",
}


def test_torchrun_says_who_is_who() -> None:
    assert launched(TORCHRUN) == Launched(3, 8, 1, "env://")
    assert launched({}) is None
    with joined("cpu") as processes:
        assert processes is ALONE is current()


@pytest.mark.parametrize(
    "nodes, host",
    [("gpu[03-04,07],big1", "gpu03"), ("gpu7,gpu[10-12]", "gpu7"), ("one", "one"), ("a-b[1,3]", "a-b1")],
)
def test_slurm_says_who_is_who(nodes: str, host: str) -> None:
    found = launched({**SLURM, "SLURM_STEP_NODELIST": nodes})
    assert found == Launched(5, 16, 2, f"tcp://{host}:{20000 + 7 * 1234 % 12000}")


def test_a_batch_script_of_slurm_is_one_process() -> None:
    assert launched({"SLURM_PROCID": "0", "SLURM_NTASKS": "16", "SLURM_JOB_ID": "1"}) is None
    assert launched({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}) is None


@pytest.mark.parametrize(
    "wrong", [{"RANK": "8"}, {"RANK": "x"}, {"WORLD_SIZE": ""}, {"MASTER_ADDR": None}, {"LOCAL_RANK": "-1"}]
)
def test_a_launcher_that_says_what_cannot_be(wrong: dict[str, Any]) -> None:
    said = {name: value for name, value in {**TORCHRUN, **wrong}.items() if value is not None}
    with pytest.raises(ValueError, match="RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT"):
        launched(said)


def test_only_what_torch_says_of_lost_processes_is_explained() -> None:
    who = Launched(1, 4, 0, "env://")
    told = r"process 1 of 4 lost another one.*silent for 3 minutes .*closed by peer"
    with pytest.raises(ProcessLost, match=told), losses_explained(who, 3):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:2")
    with pytest.raises(RuntimeError, match=r"^shapes do not fit$"), losses_explained(who, 3):
        raise RuntimeError("shapes do not fit")


def test_shares_of_one_process_are_its_passes() -> None:
    passes = [batch(0, 1), None, batch(2)]
    made, count = shares(passes, ALONE)
    assert [(share.place, share.weight) for share in made] == [(0, 1.0), (2, 1.0)]
    assert count == 3


class Second(Processes):
    """The second of two processes, of which the first has two pictures in every pass."""

    rank, count = 1, 2

    def table(self, row: Any) -> list[list[float]]:
        return [[2.0] * len(row), list(row)]

    def sent(self, value: Any, rank: int) -> Any:
        return batch(7, 8)


def test_who_has_no_picture_makes_the_pass_of_another_for_nothing() -> None:
    made, count = shares([batch(0), None], Second())
    assert [(share.place, share.weight, share.batch.num_samples) for share in made] == [(1, 1.0, 1), (3, 0.0, 2)]
    assert count == 5


def test_parts_need_processes_and_a_model_that_can_be_taken_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="start it with torchrun or srun"):
        called(small_model(), "fsdp", ALONE)
    with pytest.raises(ValueError, match="parallel='zero' must be one of 'ddp', 'fsdp'"):
        Settings(output=tmp_path, parallel="zero")


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    second = Second()
    assert own_device("cpu", second) == torch.device("cpu")
    monkeypatch.setattr("mvitv2.tasks.devices.device_named", torch.device)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    for here, local, index in ((4, 1, 1), (1, 3, 0)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda here=here: here)
        second.local_rank = local
        assert own_device("cuda", second) == torch.device("cuda", index)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="process 3 of this machine has no GPU, there are 2"):
        own_device("cuda", second)
    with pytest.raises(ValueError, match="one GPU for 2 processes"):
        own_device("cuda:1", second)
