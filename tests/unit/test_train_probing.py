"""The batch size that fits: found by steps, kept within memory, and never another global batch."""

from typing import Any

import pytest
import torch

from mvitv2.data.samples import Batch, Unreadable
from mvitv2.train import memory, probing
from mvitv2.train.failures import advice
from mvitv2.train.objective import Loss
from mvitv2.train.probing import Probe, automatic, batch_of, best, probed
from mvitv2.train.recipe import overridden

from ..e2e.training_job import RECIPE, Patterns, small_job

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def full_above(most: int, error: type[Exception] = torch.OutOfMemoryError) -> Any:
    def objective(model: torch.nn.Module, batch: Batch, place: int) -> Loss:
        if len(batch.labels) > most:
            raise error("out of memory")
        return Loss(model(batch.images).sum(), len(batch.labels))

    return objective


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_sizes_double_until_memory_is_full(error: type[Exception]) -> None:
    probes = probed(small_job(objective=full_above(8, error)), RECIPE, CPU, most=64)
    assert [p.batch_size for p in probes] == [1, 2, 4, 8][: len(probes)]
    assert len(probes) >= 3 and all(p.seconds > 0 and p.held >= 0 for p in probes)


def test_other_errors_are_not_taken_for_full_memory() -> None:
    def objective(model: torch.nn.Module, batch: Batch, place: int) -> Loss:
        raise RuntimeError("no such thing")

    with pytest.raises(RuntimeError, match="no such thing"):
        probed(small_job(objective=objective), RECIPE, CPU, most=4)


def test_the_global_batch_stays_and_the_model_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "best", lambda probes, device: probes[-1].batch_size)
    said: list[str] = []
    job = small_job(objective=full_above(5))
    before = {name: tensor.clone() for name, tensor in job.model.state_dict().items()}
    recipe = automatic(job, overridden(RECIPE, {"batch_size": 12, "accumulation": 2}), CPU, said.append)
    assert (recipe.batch_size, recipe.accumulation) == (4, 6)
    assert "batch size 4, found by 3 steps on cpu: accumulation 6 keeps the global batch of 24 images" in said[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in job.model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in job.model.parameters())


def test_a_batch_that_is_no_power_of_two_divides_the_global_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "best", lambda probes, device: 8)
    recipe = automatic(small_job(), overridden(RECIPE, {"batch_size": 6, "accumulation": 2}), CPU, str)
    assert (recipe.batch_size, recipe.accumulation) == (6, 2)


def test_nothing_fits() -> None:
    with pytest.raises(ValueError, match="not even one image of 16 pixels fits into the memory of cpu"):
        automatic(small_job(objective=full_above(0)), RECIPE, CPU, str)


def test_which_size_is_best() -> None:
    probes = [Probe(1, 1.0, 1), Probe(2, 1.2, 2), Probe(4, 2.1, 4), Probe(8, 4.3, 8)]
    assert best(probes, CPU) == 4
    assert best(probes, GPU) == 8


def test_sizes_that_will_not_fit_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    assert probing._room([Probe(4, 0.1, 700)], 8, CPU)  # 1400 of 1000 free and 700 held
    assert not probing._room([Probe(4, 0.1, 2000)], 8, CPU)
    assert not probing._room([Probe(4, 0.1, 500)], 8, GPU)
    assert not probing._room([Probe(4, 11.0, 1)], 8, CPU)
    assert probing._room([Probe(4, 11.0, 1)], 8, GPU)
    slower = [Probe(1, 0.1, 1), Probe(2, 0.2, 1), Probe(4, 0.4, 1)]
    assert not probing._room(slower, 8, CPU)


def test_the_first_image_that_can_be_read_is_taken() -> None:
    class Holes(Patterns):
        def __getitem__(self, key: Any) -> Any:
            return Unreadable(key.index, "p.jpg", "is empty") if key.index < 3 else super().__getitem__(key)

    assert batch_of(small_job(dataset=Holes()), RECIPE, 5).num_samples == 5
    Holes.__getitem__ = lambda self, key: Unreadable(key.index, "p.jpg", "is empty")
    with pytest.raises(ValueError, match="none of the first 100 training images can be read"):
        batch_of(small_job(dataset=Holes()), RECIPE, 2)


def test_what_memory_there_is() -> None:
    free = memory.available(CPU)
    assert free is None or free > 0
    assert memory.peak(CPU) > 2**20
    assert memory.available(torch.device("meta")) is None
    assert "GiB" in memory.told(CPU) or free is None


def test_the_advice_has_numbers() -> None:
    told = advice(overridden(RECIPE, {"img_size": 224, "batch_size": 64, "accumulation": 1}), CPU)
    for part in ("batch_size=32 accumulation=2", "--batch-size auto", "grad_checkpointing=true", "precision=bf16"):
        assert part in told
    assert "img_size=160 (51% of the pixels) or a smaller model" in told
    assert "GiB" in told or memory.available(CPU) is None
