"""Transforms: bit-equal to the peers for evaluation, seeded and picklable for training."""

import dataclasses
import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image

from mvitv2.data.augment import AUTHORS, PLAIN, Augmentation, ShiftTransform, TrainTransform, posterized, shifted
from mvitv2.data.samples import sample_seed, seeded
from mvitv2.data.transforms import EvalTransform, crop_corner, cropped, denormalised, normalised, resized_size
from mvitv2.preprocessing import DETECTION, DETECTION_1024, DIGITS, IMAGENET, IMAGENET_TIMM, KINETICS, Preprocessing

SIZES = [(64, 48), (48, 64), (256, 256), (300, 257), (257, 300), (640, 427), (30, 500), (500, 31), (1, 1), (7, 3)]
"""(width, height): both ways round, odd, tiny, the exact size, long."""


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A picture on which any difference in resampling shows."""
    values = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_equal_to_torchvision(size, interpolation):
    v1 = pytest.importorskip("torchvision.transforms", exc_type=ImportError)
    v2 = pytest.importorskip("torchvision.transforms.v2", exc_type=ImportError)
    image = noise(*size)
    record = dataclasses.replace(IMAGENET, resize=64, size=(56, 56), interpolation=interpolation)
    mode = v1.InterpolationMode(interpolation)
    old = [v1.Resize(64, mode), v1.CenterCrop(56), v1.ToTensor(), v1.Normalize(record.mean, record.std)]
    new = [v2.Resize(64, mode), v2.CenterCrop(56), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    ours = EvalTransform(record)(image)
    atol = 0.0
    if max(size) > 8 * min(size):  # drawn without the long picture in between: one step of 255 at single pixels
        atol = 1.01 / 255 / min(record.std)
    torch.testing.assert_close(ours, v1.Compose(old)(image), rtol=0, atol=atol)
    # v2 multiplies by 1 / 255 where v1 and timm divide: float32 rounding, amplified by 1 / std
    theirs = v2.Compose([*new, v2.Normalize(record.mean, record.std)])(image)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol + 1e-6)


def test_equal_to_torchvision_at_the_published_size():
    v1 = pytest.importorskip("torchvision.transforms", exc_type=ImportError)
    image = noise(500, 375)
    resize = v1.Resize(256, v1.InterpolationMode.BICUBIC)
    steps = [resize, v1.CenterCrop(224), v1.ToTensor(), v1.Normalize(IMAGENET.mean, IMAGENET.std)]
    torch.testing.assert_close(EvalTransform(IMAGENET)(image), v1.Compose(steps)(image), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (248, 248), (100, 90)])
@pytest.mark.parametrize("crop", [(224, 224), (96, 160), (160, 96)])
def test_equal_to_timm(size, crop):
    timm_data = pytest.importorskip("timm.data")
    record = Preprocessing.from_crop_fraction(crop, 0.9)
    theirs = timm_data.create_transform(
        input_size=(3, *crop), interpolation="bicubic", crop_pct=0.9, mean=record.mean, std=record.std
    )
    image = noise(*size)
    torch.testing.assert_close(EvalTransform(record)(image), theirs(image), rtol=0, atol=0)


def test_timm_form_is_the_preset():
    assert Preprocessing.from_crop_fraction((224, 224), 0.9) == IMAGENET_TIMM


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (300, 2000), (100, 100), (4000, 3000)])
@pytest.mark.parametrize("record", [DETECTION, DETECTION_1024])
def test_detection_sizes_are_detectron2s(size, record):
    height, width = size  # detectron2/data/transforms/augmentation_impl.py ResizeShortestEdge.get_output_shape
    scale = record.resize * 1.0 / min(height, width)
    new_height, new_width = (record.resize, scale * width) if height < width else (scale * height, record.resize)
    if max(new_height, new_width) > record.longest:
        factor = record.longest * 1.0 / max(new_height, new_width)
        new_height, new_width = new_height * factor, new_width * factor
    expected = (int(new_height + 0.5), int(new_width + 0.5))
    assert resized_size(size, record) == expected
    assert max(resized_size(size, record)) <= record.longest


def test_detection_keeps_the_whole_picture():
    assert EvalTransform(dataclasses.replace(DETECTION, resize=48, longest=80))(noise(64, 32)).shape == (3, 40, 80)


def test_a_long_picture_is_drawn_without_its_resized_whole():
    assert EvalTransform(IMAGENET)(noise(1, 3000)).shape == (3, 224, 224)
    assert EvalTransform(IMAGENET)(noise(3000, 1)).shape == (3, 224, 224)
    assert EvalTransform(IMAGENET)(Image.new("L", (1, 30_000_000))).shape == (3, 224, 224)
    with pytest.raises(ValueError, match="set `longest` or `size`"):
        EvalTransform(dataclasses.replace(DETECTION, longest=None))(noise(1, 3000))


@pytest.mark.parametrize("crop", [(40, 40), (40, 100), (100, 40)])
def test_the_short_way_equals_the_long_way(crop):
    image = noise(400, 20)
    record = Preprocessing(size=crop, resize=48)
    whole = image.resize((960, 48), Image.Resampling.BICUBIC)
    top, left = crop_corner((48, 960), crop)
    expected = np.asarray(whole.crop((left, top, left + crop[1], top + crop[0]))).astype(int)
    assert np.abs(np.asarray(cropped(image, record)) - expected).max() <= 1


def test_without_resize_the_centre_is_cut_or_bordered():
    record = Preprocessing(size=(4, 4), resize=None)
    image = noise(8, 6)
    np.testing.assert_array_equal(np.asarray(cropped(image, record)), np.asarray(image)[1:5, 2:6])
    small = np.asarray(cropped(noise(2, 2), record))
    assert small[1:3, 1:3].any() and not small[0].any() and not small[:, 3].any()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK", "I;16", "F"])
def test_any_mode_is_taken(mode):
    image = noise(40, 40, mode if mode != "I;16" else "I").convert(mode)
    assert EvalTransform(DIGITS)(image).shape == (3, 32, 32)


def test_gray_and_bgr():
    image = noise(40, 40)
    gray = Preprocessing(size=(32, 32), resize=32, channels="gray", mean=(0.5,), std=(0.5,))
    assert EvalTransform(gray)(image).shape == (1, 32, 32)
    rgb = Preprocessing(size=(32, 32), resize=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    bgr = dataclasses.replace(rgb, channels="bgr")
    assert torch.equal(EvalTransform(bgr)(image), EvalTransform(rgb)(image).flip(0))


def test_gray_pictures_are_augmented_in_colour_first():
    pytest.importorskip("timm.data")
    gray = Preprocessing(size=(32, 32), resize=32, channels="gray", mean=(0.5,), std=(0.5,))
    assert TrainTransform(gray)(noise(40, 40)).shape == (1, 32, 32)


@pytest.mark.parametrize("channels", ["rgb", "bgr", "gray"])
def test_what_the_model_saw_can_be_looked_at(channels):
    count = 1 if channels == "gray" else 3
    record = Preprocessing(size=(8, 8), resize=None, channels=channels, mean=(0.4,) * count, std=(0.3,) * count)
    image = noise(8, 8, "L" if channels == "gray" else "RGB")
    np.testing.assert_array_equal(np.asarray(denormalised(normalised(image, record), record)), np.asarray(image))


MAKERS = {
    "eval": lambda: EvalTransform(IMAGENET),
    "eval frame": lambda: EvalTransform(KINETICS),
    "shift": lambda: ShiftTransform(DIGITS, 3, 0.5),
    "authors": lambda: TrainTransform(IMAGENET),
    "plain": lambda: TrainTransform(DIGITS, PLAIN),
}


def made(name: str):
    """The transform of that name; those that draw with timm need it."""
    if name in ("authors", "plain"):
        pytest.importorskip("timm.data")
    return MAKERS[name]()


@pytest.mark.parametrize("name", MAKERS)
def test_frozen_picklable_and_repeatable(name):
    transform = made(name)
    image = noise(60, 50)
    copy = pickle.loads(pickle.dumps(transform))
    assert copy == transform and hash(copy) == hash(transform)
    with seeded(7):
        first = transform(image)
    random.random()
    np.random.random()
    torch.rand(1)
    with seeded(7):
        again = copy(image)
    assert torch.equal(first, again)
    assert first.dtype == torch.float32 and first.is_contiguous()
    with pytest.raises(dataclasses.FrozenInstanceError):
        transform.preprocessing = DIGITS


@pytest.mark.parametrize("name", ["shift", "authors", "plain"])
def test_another_seed_gives_another_picture(name):
    transform, image, results = made(name), noise(60, 50), []
    for seed in range(4):
        with seeded(seed):
            results.append(transform(image))
    assert any(not torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize(
    "augmentation",
    [AUTHORS, PLAIN, Augmentation(policy="augmix-m5-w3"), Augmentation(policy=None, color_jitter=0.4, erase_count=2)],
)
@pytest.mark.parametrize("seed", range(4))
def test_training_equals_timm(augmentation, seed):
    timm_data = pytest.importorskip("timm.data")
    record = dataclasses.replace(IMAGENET, size=(48, 56))
    theirs = timm_data.create_transform(
        input_size=(3, 48, 56),
        is_training=True,
        interpolation="bicubic",
        auto_augment=augmentation.policy,
        color_jitter=augmentation.color_jitter or None,
        re_prob=augmentation.erase_probability,
        re_mode=augmentation.erase_mode,
        re_count=augmentation.erase_count,
        mean=record.mean,
        std=record.std,
    )
    image = noise(90, 70)
    with seeded(seed):
        expected = theirs(image)
    with seeded(seed):
        torch.testing.assert_close(TrainTransform(record, augmentation)(image), expected, rtol=0, atol=0)


def test_posterizing_to_no_bits_is_black_as_it_was():
    """timm asks for 0 bits at full magnitude; Pillow 13 refuses where older versions drew black."""
    timm_data = pytest.importorskip("timm.data")
    image = noise(16, 16)
    for bits in (1, 4, 8):
        expected = np.asarray(timm_data.auto_augment.posterize(image, bits))
        np.testing.assert_array_equal(np.asarray(posterized(image, bits)), expected)
    assert not np.asarray(posterized(image, 0)).any()


@pytest.mark.parametrize(
    "policy", ["rand-m10-n6-mstd0.5-inc1", "rand-m20-n4-mmax20", "augmix-m10", "original-mstd3", "3a"]
)
def test_no_policy_stops_training(policy):
    pytest.importorskip("timm.data")
    transform = TrainTransform(dataclasses.replace(DIGITS, size=(16, 16)), Augmentation(policy=policy))
    image = noise(20, 20)
    for seed in range(200):
        with seeded(seed):
            assert transform(image).isfinite().all()


def test_seeding_leaves_the_generators_as_they_were():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = (random.random(), np.random.random(), torch.rand(1).item())
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    with pytest.raises(KeyError), seeded(5):
        random.random()
        np.random.random()
        torch.rand(1)
        raise KeyError
    assert (random.random(), np.random.random(), torch.rand(1).item()) == expected
    with seeded(None):
        assert random.random() is not None


def test_sample_seeds_differ_and_stay():
    seeds = {sample_seed(s, epoch, index) for s in range(3) for epoch in range(10) for index in range(100)}
    assert len(seeds) == 3000
    assert sample_seed(0, 0, 0) == 2891389769238885931, "the same on every machine and version: runs are resumed by it"


def test_shifted_repeats_the_edge():
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    np.testing.assert_array_equal(np.asarray(shifted(image, 1, 0)), [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7]])
    np.testing.assert_array_equal(np.asarray(shifted(image, 0, -2))[0], [2, 3, 3, 3])
    np.testing.assert_array_equal(np.asarray(shifted(image, 0, 0)), np.asarray(image))


@pytest.mark.parametrize(
    "fields",
    [
        {"scale": (0.5, 0.1)},
        {"scale": (0.5, 1.5)},
        {"ratio": (0.0, 1.0)},
        {"flip": 1.5},
        {"erase_probability": -0.1},
        {"erase_mode": "noise"},
        {"erase_count": 0},
        {"color_jitter": -1.0},
        {"policy": "randaugment"},
    ],
)
def test_augmentation_out_of_range(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        Augmentation(**fields)


@pytest.mark.parametrize("policy", ["rand-x9", "original-m9"])
def test_a_policy_that_timm_cannot_read(policy):
    pytest.importorskip("timm.data")
    with pytest.raises(ValueError, match=r"timm cannot read policy=.*; one is .rand-m9-n6"):
        TrainTransform(IMAGENET, Augmentation(policy=policy))


def test_training_needs_a_crop():
    with pytest.raises(ValueError, match="size=None"):
        TrainTransform(DETECTION)
    with pytest.raises(ValueError, match="needs a size"):
        ShiftTransform(DETECTION)


def test_a_missing_timm_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm.data", None)
    with pytest.raises(ImportError, match=r"mvitv2\[train\]"):
        TrainTransform(dataclasses.replace(IMAGENET, size=(31, 31)))
