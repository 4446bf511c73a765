"""The rate of a step is a function of the step; the order of images one of seed and epoch."""

import math
from dataclasses import replace

import pytest

from mvitv2.train.order import Order, order
from mvitv2.train.recipe import Recipe
from mvitv2.train.sampler import MicroBatches, steps_per_epoch
from mvitv2.train.schedule import Schedule, lr_scale, schedule_of


def test_warm_up_then_cosine() -> None:
    rate = Schedule(steps=110, warmup_steps=10, start=0.0, peak=1.0, end=0.1)
    assert [rate(step) for step in (0, 5, 10)] == [0.0, 0.5, 1.0]
    assert rate(60) == pytest.approx(0.55)
    assert rate(110) == pytest.approx(0.1)
    assert rate(1000) == pytest.approx(0.1)
    assert all(rate(step) >= rate(step + 1) for step in range(10, 110))


def test_no_warm_up_and_a_constant_rate() -> None:
    assert Schedule(10, 0, 0.0, 1.0, 0.0)(0) == 1.0
    assert Schedule(10, 2, 0.0, 1.0, 0.0, "constant")(9) == 1.0


def test_rates_are_scaled_by_the_global_batch_alone() -> None:
    recipe = Recipe()
    assert lr_scale(recipe, 2048) == 8
    assert schedule_of(recipe, steps_per_epoch=625, global_batch=2048).peak == pytest.approx(2e-3)
    assert lr_scale(replace(recipe, lr_scaling="sqrt"), 1024) == 2
    assert lr_scale(replace(recipe, lr_scaling="none"), 1024) == 1


@pytest.mark.parametrize("size, batch, accumulation", [(10, 2, 1), (11, 2, 2), (3, 8, 1), (7, 2, 4), (100, 7, 3)])
def test_every_epoch_sees_images_at_most_once_and_whole_batches(size: int, batch: int, accumulation: int) -> None:
    per_epoch = steps_per_epoch(size, batch * accumulation)
    sampler = MicroBatches(Order(size, 1), batch_size=batch, passes=accumulation, first=0, steps=3 * per_epoch)
    lists = list(sampler)
    assert len(lists) == len(sampler) == 3 * per_epoch * sampler.own_passes()
    for epoch in range(3):
        part = lists[epoch * per_epoch * sampler.own_passes() :][: per_epoch * sampler.own_passes()]
        seen = [key.index for keys in part for key in keys]
        assert len(set(seen)) == len(seen) == min(size, per_epoch * batch * accumulation)
    assert len({key.seed for keys in lists for key in keys}) == sum(map(len, lists))


@pytest.mark.parametrize("first", [1, 4, 5, 13])
def test_starting_later_is_the_rest(first: int) -> None:
    options = {"batch_size": 2, "passes": 2, "steps": 15}
    whole = list(MicroBatches(Order(21, 9), first=0, **options))
    assert list(MicroBatches(Order(21, 9), first=first, **options)) == whole[2 * first :]


def test_orders_differ_by_epoch_and_seed() -> None:
    assert sorted(order(50, seed=0, epoch=0)) == list(range(50))
    assert order(50, seed=0, epoch=0) == order(50, seed=0, epoch=0)
    assert len({tuple(order(50, seed=s, epoch=e)) for s in range(3) for e in range(3)}) == 9


def test_no_images_are_an_error() -> None:
    with pytest.raises(ValueError, match="no training images"):
        steps_per_epoch(0, 8)


def test_a_cosine_is_a_cosine() -> None:
    rate = Schedule(steps=8, warmup_steps=0, start=0, peak=2.0, end=0.0)
    assert [rate(i) for i in range(9)] == pytest.approx([1 + math.cos(math.pi * i / 8) for i in range(9)])
