"""What holds for every test: quiet threads, the same random numbers each time, and a reason beside every skip."""

import os

# Before torch is imported, and for the commands that tests start: threads that spin while they wait slow a small
# machine up to tenfold, and the workers of a parallel run share its cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

# No deadline: on a shared machine a slow example says something about the neighbours, not about the code.
# The examples are the same in every run, so that a red run can be repeated.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Start every test from one seed, whatever ran before it in the same process."""
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` where there is none, and say so."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; this machine has none"))
