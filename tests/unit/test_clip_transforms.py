"""Clips become what models were trained on: crops and sizes by each peer's rule, one draw for all frames."""

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image

from mvitv2.data.augment import policy_of
from mvitv2.data.samples import seeded
from mvitv2.data.video.device import DeviceClipAugmentation
from mvitv2.data.video.spatial import centre, crop_corners, erased, random_box, random_side, short_side
from mvitv2.data.video.transforms import (
    KINETICS_CLIPS,
    MASKFEAT_CLIPS,
    PLAIN_CLIPS,
    SSV2_CLIPS,
    ClipAugmentation,
    CropClip,
    EvalClip,
    TrainClip,
    drawn,
)
from mvitv2.preprocessing import DETECTION, IMAGENET, KINETICS, KINETICS_TORCHVISION, Preprocessing

SMALL = Preprocessing(
    size=(32, 32), resize=40, mean=(0.45,) * 3, std=(0.225,) * 3, num_frames=4, interpolation="bilinear"
)


def frames(count: int = 4, height: int = 48, width: int = 64) -> torch.Tensor:
    """Noise, the same in every frame, so that what is done to one can be compared with the others."""
    picture = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return picture.expand(count, -1, -1, -1).clone()


@pytest.mark.parametrize(
    ("size", "target", "slowfast", "torchvision"),
    [
        ((256, 340), 256, (256, 340), (256, 340)),
        ((240, 320), 256, (256, 341), (256, 341)),  # 341.33
        ((320, 240), 256, (341, 256), (341, 256)),
        ((480, 854), 256, (256, 455), (256, 455)),  # 455.47
        ((360, 360), 312, (312, 312), (312, 312)),
        ((1, 3), 10, (10, 30), (10, 30)),
    ],
)
def test_the_shorter_side(size, target, slowfast, torchvision):
    assert short_side(size, target) == slowfast
    assert short_side(size, target, "torchvision") == torchvision


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [
        ((224, 398), 224, [(0, 0), (0, 87), (0, 174)]),
        ((224, 299), 224, [(0, 0), (0, 38), (0, 75)]),  # 37.5 goes up
        ((299, 224), 224, [(0, 0), (38, 0), (75, 0)]),
        ((256, 341), 224, [(16, 0), (16, 59), (16, 117)]),
        ((312, 312), 312, [(0, 0), (0, 0), (0, 0)]),
    ],
)
def test_three_crops_lie_along_the_longer_side(size, crop, expected):
    assert crop_corners(size, (crop, crop), 3) == expected
    assert crop_corners(size, (crop, crop), 1) == [expected[1]]
    with pytest.raises(ValueError, match="crops=2"):
        crop_corners(size, (crop, crop), 2)


def test_the_centre_of_an_odd_border_differs_between_the_peers():
    assert centre((256, 341), (224, 224)) == (16, 59) and centre((256, 341), (224, 224), "torchvision") == (16, 58)


def test_torchvisions_own_preprocessing_gives_the_same_numbers():
    video = pytest.importorskip("torchvision.models.video", reason="needs torchvision")
    theirs = video.MViT_V2_S_Weights.KINETICS400_V1.transforms()
    for height, width in ((240, 320), (360, 203), (256, 256), (120, 333)):
        clip = frames(2, height, width)
        torch.testing.assert_close(EvalClip(KINETICS_TORCHVISION)(clip)[0], theirs(clip), rtol=0, atol=1e-6)


def test_slowfasts_preprocessing_written_out():
    clip = frames(3, 40, 61)
    values = torch.nn.functional.interpolate(clip.float() / 255, (40, 61), mode="bilinear", align_corners=False)
    expected = ((values - 0.45) / 0.225).transpose(0, 1)
    made = EvalClip(SMALL)(clip)
    assert made.shape == (1, 3, 3, 32, 32)
    torch.testing.assert_close(made[0], expected[..., 4:36, 15:47], rtol=0, atol=1e-6)
    three = EvalClip(SMALL, crops=3)(clip)  # the shorter side becomes that of the crop
    values = torch.nn.functional.interpolate(clip.float() / 255, (32, 48), mode="bilinear", align_corners=False)
    expected = ((values - 0.45) / 0.225).transpose(0, 1)
    for crop, left in zip(three, (0, 8, 16), strict=True):
        torch.testing.assert_close(crop, expected[..., left : left + 32], rtol=0, atol=1e-5)


def test_clips_smaller_than_the_crop_get_black_borders_and_gray_models_one_channel():
    gray = Preprocessing(size=(32, 32), resize=16, channels="gray", mean=(0.0,), std=(1.0,), num_frames=4)
    made = EvalClip(gray)(torch.full((4, 3, 16, 16), 255, dtype=torch.uint8))[0]
    assert made.shape == (1, 4, 32, 32)
    assert made[..., 8:24, 8:24].min() == pytest.approx(1.0) and made[..., :8, :].max() == 0


@pytest.mark.parametrize("augmentation", [KINETICS_CLIPS, SSV2_CLIPS, MASKFEAT_CLIPS, PLAIN_CLIPS])
def test_equal_frames_stay_equal(augmentation):
    if augmentation.policy is not None:
        pytest.importorskip("timm", reason="needs timm, the extra train")
    small = ClipAugmentation(**{**vars(augmentation), "erase_probability": 0.0, "color_jitter": 0.3})
    small = ClipAugmentation(**{**vars(small), "jitter": (36, 44) if small.jitter else None})
    transform = TrainClip(SMALL, small)
    for seed in range(6):
        with seeded(seed):
            clip = transform(frames())
        assert clip.shape == (3, 4, 32, 32) and clip.dtype == torch.float32
        assert all(torch.equal(clip[:, 0], clip[:, place]) for place in range(1, 4))


def test_the_same_seed_gives_the_same_clip_and_another_gives_another():
    pytest.importorskip("timm", reason="needs timm, the extra train")
    transform = pickle.loads(pickle.dumps(TrainClip(SMALL)))
    made = []
    for seed in (3, 3, 4):
        with seeded(seed):
            made.append(transform(frames()))
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_the_policy_is_timms_for_each_frame():
    pytest.importorskip("timm", reason="needs timm, the extra train")
    augmentation = ClipAugmentation(policy="rand-m7-n4-mstd0.5-inc1")
    clip = frames(3)
    policy = policy_of("rand-m7-n4-mstd0.5-inc1", 48, "bilinear")
    changed = 0
    for seed in range(8):
        torch.manual_seed(seed)
        ours = drawn(clip, SMALL, augmentation)
        torch.manual_seed(seed)
        with seeded(int(torch.randint(1 << 62, ()))):
            theirs = np.asarray(policy(Image.fromarray(clip[0].permute(1, 2, 0).numpy())))
        for frame in ours:
            np.testing.assert_array_equal(frame.permute(1, 2, 0).numpy(), theirs)
        changed += not torch.equal(ours, clip)
    assert changed >= 4


def test_no_flip_where_classes_have_a_direction():
    ramp = torch.arange(64, dtype=torch.uint8).mul(4).expand(4, 3, 48, 64).contiguous()
    directions = {0.0: set(), 0.5: set()}
    for flip, seen in directions.items():
        for seed in range(12):
            with seeded(seed):
                clip = TrainClip(SMALL, ClipAugmentation(policy=None, erase_probability=0.0, flip=flip))(ramp)
            seen.add(bool((clip[0, 0, 0, -1] > clip[0, 0, 0, 0]).item()))
    assert directions == {0.0: {True}, 0.5: {True, False}}


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_the_erased_rectangle_is_at_the_same_place_of_every_frame(mode):
    clip = torch.full((3, 5, 32, 32), 9.0)
    with seeded(0):
        made = erased(clip.clone(), 1.0, mode, 1)
    gone = (made != 9).any(dim=0)
    assert 0 < gone[0].float().mean() < 0.5
    assert all(torch.equal(gone[0], frame) for frame in gone)
    assert torch.equal(made[:, 0], made[:, 1]) == (mode != "pixel")  # noise is drawn for each frame
    assert torch.equal(erased(clip.clone(), 0.0, mode, 1), clip)


def test_random_crops_keep_their_area_and_shape():
    for seed in range(200):
        random.seed(seed)
        top, left, height, width = random_box((120, 160), (0.08, 1.0), (3 / 4, 4 / 3))
        assert top + height <= 120 and left + width <= 160
        assert 0.07 <= height * width / (120 * 160) <= 1.0 and 0.7 <= width / height <= 1.4
    random.seed(0)
    assert random_box((10, 1000), (0.9, 1.0), (3 / 4, 4 / 3)) == (0, 493, 10, 13)  # the centre, of the widest shape
    assert random_box((1000, 10), (0.9, 1.0), (3 / 4, 4 / 3)) == (493, 0, 13, 10)
    sides = [random_side(256, 320, inverse=inverse) for inverse in (True, False) for _ in range(400)]
    assert min(sides) >= 256 and max(sides) <= 320
    assert np.mean(sides[:400]) < np.mean(sides[400:]) < 290  # the inverse draws small sides more often


def test_the_device_does_the_rest_of_a_cropped_clip():
    pytest.importorskip("torchvision", reason="needs torchvision, the extra train")
    crop = CropClip(SMALL)
    with seeded(5):
        clips = torch.stack([crop(frames()), crop(frames())])
    assert clips.shape == (2, 3, 4, 32, 32) and clips.dtype == torch.uint8
    plain = DeviceClipAugmentation(SMALL, PLAIN_CLIPS)(clips, seed=1)
    torch.testing.assert_close(plain, (clips.float() / 255 - 0.45) / 0.225)
    device = DeviceClipAugmentation(SMALL, ClipAugmentation(erase_mode="const", erase_probability=1.0))
    made = device(clips, seed=1)
    assert torch.equal(made, device(clips, seed=1)) and not torch.equal(made, device(clips, seed=2))
    assert all(torch.equal(made[:, :, 0], made[:, :, place]) for place in range(1, 4))
    with pytest.raises(ValueError, match=r"expected uint8 \(B, 3, T, H, W\)"):
        device(clips.float(), seed=1)


@pytest.mark.parametrize("record", [IMAGENET, DETECTION])
def test_records_for_pictures_are_refused(record):
    for make in (EvalClip, TrainClip):
        with pytest.raises(ValueError, match="clips need a size and num_frames"):
            make(record)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"jitter=\(320, 256\)"):
        ClipAugmentation(jitter=(320, 256))
    with pytest.raises(ValueError, match="crops=5"):
        EvalClip(KINETICS, crops=5)
    with pytest.raises(ValueError, match="clip_rule='pil'"):
        Preprocessing(clip_rule="pil")
