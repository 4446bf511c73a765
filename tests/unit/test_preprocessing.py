"""The preprocessing record: what it holds, how it travels, what it refuses."""

import json
import subprocess
import sys

import pytest

from mvitv2 import preprocessing as pre
from mvitv2.preprocessing import PRESETS, Preprocessing


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name):
    assert Preprocessing.from_dict(json.loads(json.dumps(PRESETS[name].to_dict()))) == PRESETS[name]


def test_the_published_numbers():
    assert (pre.IMAGENET.resize, pre.IMAGENET.size, pre.IMAGENET.interpolation) == (256, (224, 224), "bicubic")
    assert pre.IMAGENET_TIMM.resize == 248
    assert pre.KINETICS.mean == (0.45,) * 3 and pre.KINETICS.std == (0.225,) * 3
    assert (pre.KINETICS.num_frames, pre.KINETICS.sampling_rate) == (16, 4)
    assert pre.KINETICS_L.mean == pre.IMAGENET_MEAN, "video L uses ImageNet's statistics, unlike S and B"
    assert (pre.KINETICS_L.size, pre.KINETICS_L.num_frames, pre.KINETICS_L.sampling_rate) == ((312, 312), 40, 3)
    assert pre.SSV2_S.channels == "rgb" and pre.SSV2_S.sampling_rate is None and pre.SSV2_S.resize == 224
    assert pre.SSV2_L.mean == (0.406, 0.456, 0.485)
    assert pre.DETECTION.size is None and pre.DETECTION.longest == 1333


def test_unknown_keys_are_all_listed():
    with pytest.raises(ValueError, match=r"unknown keys \['colour', 'crop'\]; known are \['size'"):
        Preprocessing.from_dict({"crop": 224, "size": [224, 224], "colour": "rgb"})


def test_not_a_mapping():
    with pytest.raises(TypeError, match="got list"):
        Preprocessing.from_dict([1, 2])  # type: ignore[arg-type]


def test_all_offending_fields_at_once():
    with pytest.raises(ValueError) as caught:
        Preprocessing(size=(0, 224), interpolation="nearest", std=(0.2, 0.0, 0.2), sampling_rate=4)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("size=(0, 224)", "'nearest'", "std=(0.2, 0.0, 0.2)", "sampling_rate=4 needs num_frames"):
        assert part in message


@pytest.mark.parametrize(
    "fields",
    [
        {"size": 224},
        {"size": (224,)},
        {"size": (True, 224)},
        {"resize": -1},
        {"resize": (1, 2, 3)},
        {"resize": 256.0},
        {"mean": (0.5,)},
        {"mean": (float("nan"), 0.5, 0.5)},
        {"mean": [0.5, 0.5, 0.5]},
        {"channels": "gray"},
        {"channels": "cmyk"},
        {"num_frames": 0},
        {"fps": 0},
        {"longest": "1333"},
    ],
)
def test_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields)) if fields != {"channels": "gray"} else "mean"):
        Preprocessing(**fields)


def test_gray_has_one_channel():
    assert Preprocessing(channels="gray", mean=(0.5,), std=(0.5,)).channels == "gray"


@pytest.mark.parametrize("size, expected", [(224, 256), (384, 438), (512, 585), ((224, 320), (256, 365))])
def test_another_size_keeps_the_ratio(size, expected):
    moved = pre.IMAGENET.at(size)
    assert moved.resize == expected
    assert moved.size == ((size, size) if isinstance(size, int) else size)
    assert moved.mean == pre.IMAGENET.mean


def test_another_size_without_resize_moves_the_crop_alone():
    assert Preprocessing(resize=None).at(96) == Preprocessing(resize=None, size=(96, 96))


@pytest.mark.parametrize("fraction", [0.0, 1.01, -1.0])
def test_crop_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match="crop fraction"):
        Preprocessing.from_crop_fraction((224, 224), fraction)


def test_it_can_be_hashed_and_compared():
    assert len({pre.IMAGENET, Preprocessing(), pre.KINETICS}) == 2


def test_it_imports_the_standard_library_alone():
    code = f"""
import importlib.util, sys
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("alone", {pre.__file__!r})
sys.modules["alone"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print([n for n in set(sys.modules) - before - {{"alone"}} if n.split(".")[0] not in sys.stdlib_module_names])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
