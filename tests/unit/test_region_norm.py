"""The batch norm of regions over several processes: what one process would compute, with regions or without."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from mvitv2.tasks.detect.layers import RegionNorm

COUNTS = (3, 0, 5)
"""Regions of each process."""


def regions(count: int) -> Tensor:
    return torch.arange(count * 2 * 3 * 3, dtype=torch.float32).sin().reshape(count, 2, 3, 3)


def fresh() -> RegionNorm:
    norm = RegionNorm(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.5, 0.5]))
        norm.bias.copy_(torch.tensor([0.1, -0.2]))
    return norm


def work(rank: int, folder: str) -> None:
    """One process: its part of the regions, forward and backward."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=len(COUNTS))
    torch.set_num_threads(1)
    start = sum(COUNTS[:rank])
    x = regions(sum(COUNTS))[start : start + COUNTS[rank]].clone().requires_grad_()
    norm = fresh()
    y = norm(x)
    (y**3).sum().backward()
    found = {"y": y.detach(), "x": x.grad, **norm.state_dict()}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="this torch is built without torch.distributed")
def test_processes_together_norm_as_one_would(tmp_path: Path) -> None:
    spawn(work, args=(str(tmp_path),), nprocs=len(COUNTS))
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(len(COUNTS))]
    x = regions(sum(COUNTS)).requires_grad_()
    norm = fresh()
    y = norm(x)
    (y**3).sum().backward()
    torch.testing.assert_close(torch.cat([part["y"] for part in parts]), y.detach())
    torch.testing.assert_close(torch.cat([part["x"] for part in parts]), x.grad)
    for part in parts:
        torch.testing.assert_close(part["running_mean"], norm.running_mean)
        biased = 0.9 + 0.1 * x.detach().var(dim=(0, 2, 3), unbiased=False)
        torch.testing.assert_close(part["running_var"], biased)
