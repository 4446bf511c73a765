"""Which frames make a clip: tables worked out by hand from SlowFast's rules, and what holds for every length."""

import random
from fractions import Fraction
from itertools import pairwise
from math import floor

import pytest

from mvitv2.data.video.sampling import Sampling, parts, spread, starts
from mvitv2.preprocessing import IMAGENET, KINETICS, KINETICS_32X3, KINETICS_L, SSV2_S

S16X4, B32X3, SEGMENTS = Sampling(16, 4, 30.0), Sampling(32, 3, 30.0), Sampling(16, None, None)

# linspace(0, 63, 16) is 4.2 apart
FROM_0 = [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63]


def moved(indices: list[int], by: int) -> list[int]:
    return [index + by for index in indices]


def test_the_rules_of_the_published_models():
    assert Sampling.of(KINETICS) == S16X4 and Sampling.of(KINETICS_32X3) == B32X3
    assert Sampling.of(KINETICS_L) == Sampling(40, 3, 30.0) and Sampling.of(SSV2_S) == SEGMENTS
    with pytest.raises(ValueError, match="no num_frames"):
        Sampling.of(IMAGENET)
    with pytest.raises(ValueError, match="rate=0"):
        Sampling(16, 0)


@pytest.mark.parametrize(
    ("frames", "fps", "clips", "expected"),
    [
        (300, 30.0, 5, [0, 59, 118, 177, 236]),  # room 300 - 64 = 236; floor(236 / 4) = 59
        (300, 30.0, 10, [0, 26, 52, 78, 104, 130, 156, 182, 208, 234]),  # floor(236 / 9) = 26: the end is not reached
        (300, 30.0, 1, [118]),
        (250, 25.0, 5, [0, 49, 98, 147, 196]),  # size 64 / 30 * 25 = 53.33, room 196.67, a fourth is 49.17
        (65, 30.0, 5, [0, 0, 0, 0, 0]),  # room 1
        (68, 30.0, 5, [0, 1, 2, 3, 4]),
        (20, 30.0, 5, [0, 0, 0, 0, 0]),  # shorter than the clip
        (600, 60.0, 2, [0, 472]),  # size 128
    ],
)
def test_clips_start_where_slowfast_starts_them(frames, fps, clips, expected):
    assert starts(frames, S16X4.span(fps), clips) == expected
    views = S16X4.views(frames, fps, clips)
    assert [view[0] for view in views] == expected


@pytest.mark.parametrize(
    ("sampling", "frames", "fps", "expected"),
    [
        (S16X4, 64, 30.0, FROM_0),
        (S16X4, 300, 30.0, moved(FROM_0, 118)),
        (S16X4, 8, 30.0, [0, 4, *[7] * 14]),
        (S16X4, 1, 30.0, [0] * 16),
        # size 64 / 30 * 10 = 21.33, the whole clip of 20 frames: steps of 20.33 / 15 = 1.3556
        (S16X4, 20, 10.0, [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 18, 19]),
        # at 60 frames a second size 128, steps of 127 / 15 = 8.467, from floor((600 - 128) / 2) = 236
        (S16X4, 600, 60.0, moved([0, 8, 16, 25, 33, 42, 50, 59, 67, 76, 84, 93, 101, 110, 118, 127], 236)),
        # size 96, steps of 95 / 31 = 3.0645, from floor((250 - 96) / 2) = 77
        (
            B32X3, 250, 30.0,
            moved([0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 42, 45, 49, 52, 55, 58, 61, 64, 67, 70, 73, 76,
                   79, 82, 85, 88, 91, 95], 77),
        ),
        # a rate in the file's own frames; 7 frames 3 apart: size 21, steps of 20 / 6
        (Sampling(7, 3, None), 21, 12.0, [0, 3, 6, 10, 13, 16, 20]),
        # without a rate of its own a file is taken to have the one that is asked for
        (S16X4, 64, 0.0, FROM_0),
    ],
)  # fmt: skip
def test_the_frames_of_the_middle_clip(sampling, frames, fps, expected):
    assert sampling.views(frames, fps) == [expected]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        # 19 / 16 = 1.1875; borders 0 1 2 4 5 6 7 8 10 11 12 13 14 15 17 18 19 (9.5 goes to the even 10)
        (20, [0, 1, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 16, 17, 18]),
        (17, list(range(16))),  # borders 0 to 16
        (1, [0] * 16),
        # 3 / 16; borders 0 0 0 1 1 1 1 1 2 2 2 2 2 2 3 3 3 (1.5 goes to 2)
        (4, [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3]),
        # 99 / 16 = 6.1875; borders 0 6 12 19 25 31 37 43 50 56 62 68 74 80 87 93 99
        (100, [3, 9, 15, 22, 28, 34, 40, 46, 53, 59, 65, 71, 77, 83, 90, 96]),
    ],
)
def test_equal_parts_give_their_middle_frames(frames, expected):
    assert SEGMENTS.views(frames, 12.0) == [expected]


def test_equal_parts_give_one_clip():
    with pytest.raises(ValueError, match="of equal parts all are the same"):
        SEGMENTS.views(100, 30.0, 2)
    with pytest.raises(ValueError, match="clips=0"):
        S16X4.views(100, 30.0, 0)
    with pytest.raises(ValueError, match="0 frames has none"):
        S16X4.views(0, 30.0)


def test_the_frames_are_those_of_exact_arithmetic_but_where_float32_decides():
    for frames in (1, 2, 5, 13, 31, 64, 65, 100, 143, 299, 1000):
        for fps in (10, 12, 15, 24, 25, 30, 50, 60):
            for sampling in (S16X4, B32X3, Sampling(40, 3, 30.0), Sampling(8, 8, 30.0)):
                size = max(Fraction(1), Fraction(sampling.num_frames * (sampling.rate or 1) * fps, 30))
                for number, view in enumerate(sampling.views(frames, float(fps), 3)):
                    start = number * floor(max(frames - size, 0) / 2)
                    for place, index in enumerate(view):
                        exact = start + (size - 1) * place / (sampling.num_frames - 1)
                        exact = min(exact, Fraction(frames - 1))
                        near = abs(exact - round(exact)) < Fraction(1, 10_000)
                        assert index == floor(exact) or (near and index in (round(exact) - 1, round(exact)))


@pytest.mark.parametrize("sampling", [S16X4, B32X3, SEGMENTS, Sampling(3, 2, None)])
@pytest.mark.parametrize("frames", [1, 5, 30, 64, 97, 400])
def test_random_clips_are_in_order_and_within(sampling, frames):
    seen = set()
    for seed in range(40):
        random.seed(seed)
        clip = sampling.random(frames, 30.0)
        assert len(clip) == sampling.num_frames and clip == sorted(clip)
        assert clip[0] >= 0 and clip[-1] <= frames - 1
        seen.add(tuple(clip))
        random.seed(seed)
        assert sampling.random(frames, 30.0) == clip
    room = frames - sampling.span(30.0) if sampling.rate else frames - 1
    assert (len(seen) > 1) == (room > 0)


def test_a_random_clip_can_start_at_every_frame_that_fits():
    sampling = Sampling(4, 2, None)  # reaches over 8 of 12
    firsts = set()
    for seed in range(300):
        random.seed(seed)
        firsts.add(sampling.random(12, 30.0)[0])
    assert firsts == {0, 1, 2, 3}


def test_parts_share_their_borders():
    for frames in range(1, 60):
        borders = parts(frames, 8)
        assert borders[0][0] == 0 and borders[-1][1] == frames - 1
        assert all(before[1] == after[0] for before, after in pairwise(borders))


def test_spread_repeats_the_last_frame():
    assert spread(5, 10, 4, 8) == [5, 7, 7, 7]
