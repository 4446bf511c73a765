"""Augmentation of batches on their device, tried on the CPU: what it keeps, what it changes, what it repeats."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from mvitv2.data.augment import AUTHORS, PLAIN
from mvitv2.data.device_augment import CropTransform, DeviceAugmentation
from mvitv2.data.samples import seeded
from mvitv2.preprocessing import IMAGENET, Preprocessing

pytest.importorskip("timm", reason="the augmentation comes with timm (extra `train`)")
pytest.importorskip(
    "torchvision", reason="the augmentation comes with torchvision (extra `train`)", exc_type=ImportError
)

SMALL = IMAGENET.at(32)
NOTHING = dataclasses.replace(PLAIN, flip=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0))


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8))


def batch(count: int = 6, size: int = 32) -> torch.Tensor:
    crop = CropTransform(IMAGENET.at(size), NOTHING)
    return torch.stack([crop(picture(seed)) for seed in range(count)])


def test_crops_are_pixels_and_repeatable():
    crop = CropTransform(SMALL)
    with seeded(5):
        first = crop(picture())
    assert first.shape == (3, 32, 32) and first.dtype == torch.uint8 and first.is_contiguous()
    with seeded(5):
        assert torch.equal(first, pickle.loads(pickle.dumps(crop))(picture()))
    assert not torch.equal(first, crop(picture()))


def test_without_a_policy_pixels_are_normalised_alone():
    images = batch()
    out = DeviceAugmentation(SMALL, NOTHING)(images, seed=1)
    mean, std = (torch.tensor(values)[:, None, None] for values in (SMALL.mean, SMALL.std))
    torch.testing.assert_close(out, (images / 255 - mean) / std)
    assert images.dtype == torch.uint8


def test_a_seed_decides_and_other_generators_are_left_alone():
    augment = DeviceAugmentation(SMALL)
    before = torch.get_rng_state()
    first = augment(batch(), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, augment(batch(), seed=3)) and not torch.equal(first, augment(batch(), seed=4))
    assert first.shape == (6, 3, 32, 32) and first.dtype == torch.float32 and bool(torch.isfinite(first).all())


def test_neighbours_share_a_draw():
    alike = batch(1).expand(8, -1, -1, -1)
    policy = dataclasses.replace(AUTHORS, erase_probability=0.0)
    out = DeviceAugmentation(SMALL, policy, neighbours=4)(alike, seed=0)
    assert torch.equal(out[0], out[3]) and torch.equal(out[4], out[7]) and not torch.equal(out[0], out[4])


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_rectangles_are_erased_in_each_picture_by_itself(mode):
    erasing = dataclasses.replace(NOTHING, erase_probability=1.0, erase_mode=mode, erase_count=2)
    images = batch(8)
    changed = DeviceAugmentation(SMALL, erasing)(images, seed=2) != DeviceAugmentation(SMALL, NOTHING)(images, seed=2)
    part = changed.any(dim=1).float().mean(dim=(1, 2))
    assert bool((part > 0).all()) and bool((part < 0.7).all()) and len(set(part.tolist())) > 3


def test_erasing_is_as_frequent_as_it_is_told():
    images = torch.zeros(400, 3, 16, 16, dtype=torch.uint8)
    erasing = dataclasses.replace(NOTHING, erase_probability=0.25)
    out = DeviceAugmentation(IMAGENET.at(16), erasing)(images, seed=0)
    touched = (out != out[0, :, :1, :1]).any(dim=(1, 2, 3)).float().mean()
    assert 0.15 < float(touched) < 0.35


@pytest.mark.parametrize("channels", ["gray", "bgr"])
def test_other_channels(channels):
    mean = (0.5,) if channels == "gray" else (0.1, 0.2, 0.3)
    record = Preprocessing(size=(32, 32), resize=32, mean=mean, std=mean, channels=channels)
    crop = CropTransform(record, NOTHING)
    images = torch.stack([crop(picture(seed)) for seed in range(4)])
    assert images.shape[1] == len(mean)
    jittered = dataclasses.replace(AUTHORS, color_jitter=0.4)
    assert DeviceAugmentation(record, jittered)(images, seed=0).shape == images.shape
    if channels == "bgr":
        out = DeviceAugmentation(record, NOTHING)(images, seed=0)
        torch.testing.assert_close(out[:, 0], (images[:, 2] / 255 - 0.1) / 0.1)


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ValueError, match="is not done on the device; RandAugment is, such as 'rand-m9"):
        DeviceAugmentation(SMALL, dataclasses.replace(AUTHORS, policy="augmix-m3"))
    with pytest.raises(ValueError, match="neighbours=0"):
        DeviceAugmentation(SMALL, neighbours=0)
    with pytest.raises(ValueError, match=r"expected uint8 \(B, C, H, W\)"):
        DeviceAugmentation(SMALL)(batch().float(), seed=0)


@pytest.mark.gpu
def test_a_gpu_gives_nearly_the_same():
    augment = DeviceAugmentation(SMALL)
    there = augment(batch().cuda(), seed=3).cpu()
    assert (there - augment(batch(), seed=3)).abs().mean() < 0.05
