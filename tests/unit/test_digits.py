"""The built-in digits: real pictures, fixed splits, the items of an image folder."""

import pickle
import sys

import numpy as np
import pytest
import torch

from mvitv2.data.augment import ShiftTransform
from mvitv2.data.digits import SIDE, SPLITS, Digits, stratified
from mvitv2.data.samples import SampleKey
from mvitv2.data.transforms import EvalTransform
from mvitv2.preprocessing import DIGITS

pytest.importorskip("sklearn", reason="the digits come with scikit-learn (extra `train`)")


def test_every_digit_is_in_exactly_one_split():
    parts = [Digits(split) for split in SPLITS]
    together = np.concatenate([part.indices for part in parts])
    assert sorted(together.tolist()) == list(range(1797))
    assert [len(part) for part in parts] == [1258, 270, 269]


def test_every_class_is_in_every_split_in_proportion():
    train, val, test = (np.array(list(Digits(split).counts.values())) for split in SPLITS)
    total = train + val + test
    for part, share in ((train, 0.7), (val, 0.15), (test, 0.15)):
        assert np.abs(part - share * total).max() <= 1


def test_splits_are_fixed_by_the_seed():
    assert np.array_equal(Digits("val").indices, Digits("val", seed=0).indices)
    assert not np.array_equal(Digits("val").indices, Digits("val", seed=1).indices)
    assert Digits("val").indices[:5].tolist() == [0, 10, 16, 23, 34], "runs are compared across machines by it"


def test_items_are_those_of_a_folder():
    digits = Digits("train", EvalTransform(DIGITS))
    image, label = digits[0]
    assert image.shape == (3, SIDE, SIDE) and image.dtype == torch.float32
    assert digits.classes == digits.class_names == tuple("0123456789")
    assert digits.classes[label] == str(digits.labels[0])
    picture, _ = Digits("train")[0]
    assert picture.mode == "RGB" and picture.size == (SIDE, SIDE)


def test_the_preset_normalises_them():
    pixels = torch.stack([image for split in SPLITS for image, _ in Digits(split, EvalTransform(DIGITS))])
    assert abs(pixels.mean().item()) < 0.01 and abs(pixels.std().item() - 1) < 0.01


def test_seeded_and_picklable():
    digits = Digits("train", ShiftTransform(DIGITS, 3))
    copy = pickle.loads(pickle.dumps(digits))
    assert torch.equal(digits[SampleKey(3, 9)][0], copy[SampleKey(3, 9)][0])
    assert any(not torch.equal(digits[SampleKey(3, 9)][0], digits[SampleKey(3, seed)][0]) for seed in range(5))


def test_every_digit_is_visible():
    digits = Digits("test")
    assert all(np.ptp(np.asarray(digits.read(index))) > 150 for index in range(len(digits)))


def test_an_unknown_split():
    with pytest.raises(ValueError, match=r"split='validation' must be one of \['train', 'val', 'test'\]"):
        Digits("validation")


def test_stratified_parts_cover_everything_once():
    labels = [0] * 7 + [1] * 3 + [2]
    parts = stratified(labels, (0.5, 0.25, 0.25), seed=3)
    assert sorted(index for part in parts for index in part) == list(range(11))


def test_a_missing_scikit_learn_names_the_extra(monkeypatch):
    from mvitv2.data import digits

    digits._all_digits.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"scikit-learn.*mvitv2\[train\]"):
        Digits("train")
    digits._all_digits.cache_clear()
