"""What an epoch sees: every image once, as many of every class, or each several times; by seed and epoch alone."""

from collections import Counter

import numpy as np
import pytest

from mvitv2.train.order import Order, balanced, order, order_of
from mvitv2.train.recipe import Recipe
from mvitv2.train.sampler import MicroBatches

from ..e2e.training_job import small_job

RARE = np.array([0] * 90 + [1] * 7 + [2] * 3)


@pytest.mark.parametrize("count", [1, 2, 3, 50, 99, 100, 300])
def test_every_class_comes_equally_often(count: int) -> None:
    for epoch in range(4):
        counts = Counter(RARE[balanced(RARE, count, seed=1, epoch=epoch)].tolist())
        assert sum(counts.values()) == count
        assert max(counts.values()) - min(counts[c] for c in range(3)) <= 1


def test_the_one_more_goes_round_and_large_classes_take_turns() -> None:
    drawn = [balanced(RARE, 100, seed=1, epoch=epoch) for epoch in range(3)]
    assert sorted(RARE[i] for d in drawn for i in d) == [0] * 100 + [1] * 100 + [2] * 100
    counts = Counter(i for i in drawn[0] if RARE[i] == 1)
    assert set(counts.values()) <= {4, 5}  # 33 or 34 of seven images
    assert len({i for d in drawn for i in d if RARE[i] == 0}) > 55  # of 90, where one epoch has 33


def test_a_class_without_images_is_no_class() -> None:
    assert Counter(np.array([0, 0, 5])[balanced([0, 0, 5], 4, seed=0, epoch=0)].tolist()) == {0: 2, 5: 2}


def test_repeats_are_neighbours_that_look_otherwise() -> None:
    keys = Order(10, 3, repeats=3).keys(epoch=2)
    indices = [key.index for key in keys]
    assert indices == [i for i in order(10, seed=3, epoch=2)[:4] for _ in range(3)][:10]
    assert len({key.seed for key in keys}) == 10


def test_repeats_select_what_timm_selects() -> None:
    timm = pytest.importorskip("timm.data.distributed_sampler", reason="the extra train")
    theirs = list(timm.RepeatAugSampler(range(1000), num_replicas=1, rank=0, num_repeats=3, selected_round=0))
    ours = [key.index for key in Order(1000, 0, repeats=3).keys(0)]
    assert len(ours) == len(theirs) == 1000
    assert sorted(Counter(ours).values()) == sorted(Counter(theirs).values())


def test_a_balanced_image_that_comes_again_looks_otherwise() -> None:
    keys = Order(100, 0, labels=RARE).keys(0)
    assert len({key.seed for key in keys}) == 100
    assert Order(100, 0, labels=RARE).keys(0) == keys != Order(100, 0, labels=RARE).keys(1)


@pytest.mark.parametrize("options", [{"labels": RARE}, {"repeats": 3}, {"labels": RARE, "repeats": 2}])
def test_any_order_goes_on_from_any_step(options: dict) -> None:
    def batches(first: int) -> list:
        return list(MicroBatches(Order(100, 4, **options), batch_size=8, passes=2, first=first, steps=15))

    assert batches(7) == batches(0)[14:]


def test_the_data_sets_own_order_is_taken() -> None:
    def backwards(*, seed: int, epoch: int) -> list[int]:
        return list(range(43))[::-1]

    job = small_job(order=backwards)
    assert [key.index for key in order_of(job, Recipe()).keys(0)] == list(range(43))[::-1]
    with pytest.raises(ValueError, match="sampling='balanced' needs one class for each sample"):
        order_of(job, Recipe(sampling="balanced"))
