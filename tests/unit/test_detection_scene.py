"""A picture and its objects move together: pixel by pixel, and with detectron2's roundings."""

import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from mvitv2.data.detection.augment import (
    KINDS,
    TEST,
    LargeScaleJitter,
    MultiScale,
    Resize,
    fitted,
    resize_of,
    shorter_side,
)
from mvitv2.data.detection.scene import Scene, cropped, finished, flipped, padded, resized
from mvitv2.data.detection.shapes import bitmaps, filled
from mvitv2.data.instances import Instances
from mvitv2.data.samples import seeded
from mvitv2.preprocessing import IMAGENET

SCHEDULE = Path(__file__).parents[2] / "../shared/parity/detectors/schedule.json"
SIZE = (48, 64)
RECTANGLES = ((4, 6, 20, 30), (16, 12, 40, 40), (44, 2, 62, 46))
"""Left, top, right, bottom; the first two overlap."""


def corners(left: float, top: float, right: float, bottom: float) -> torch.Tensor:
    return torch.tensor([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=torch.float64)


def scene(*, polygons: bool = True) -> Scene:
    """Rectangles, each shining in its own bit of the red channel, so that the picture itself says where they are."""
    values = np.zeros((*SIZE, 3), np.uint8)
    bits = np.zeros((len(RECTANGLES), *SIZE), bool)
    for place, (left, top, right, bottom) in enumerate(RECTANGLES):
        bits[place, top:bottom, left:right] = True
        values[..., 0] += bits[place].astype(np.uint8) << place
    masks = [[corners(*box)] for box in RECTANGLES] if polygons else torch.from_numpy(bits)
    boxes = torch.tensor(RECTANGLES, dtype=torch.float64)
    return Scene(Image.fromarray(values), Instances(boxes, torch.arange(3), masks))


def shining(image: torch.Tensor | Image.Image) -> torch.Tensor:
    """``(3, H, W)`` bool: where the picture says that each object is."""
    red = torch.from_numpy(np.array(image))[..., 0] if isinstance(image, Image.Image) else image[0]
    return torch.stack([(red >> place) & 1 == 1 for place in range(3)])


def around(mask: torch.Tensor) -> list[int]:
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@pytest.mark.parametrize("polygons", [True, False])
@pytest.mark.parametrize(
    "move",
    [
        flipped,
        lambda s: cropped(s, top=7, left=10, size=(30, 40)),
        lambda s: padded(s, (60, 80), 0),
        lambda s: flipped(cropped(flipped(s), top=0, left=5, size=(48, 50))),
        lambda s: cropped(padded(s, (50, 70), 0), top=1, left=3, size=(49, 67)),
    ],
)
def test_masks_and_boxes_move_with_the_picture(polygons, move):
    moved = move(scene(polygons=polygons))
    image, objects = finished(moved, boxes_from_masks=False)
    masks = bitmaps(objects, moved.size)
    expected = shining(image)[objects.labels]
    assert masks is not None and len(objects) == 3 and torch.equal(masks, expected)
    assert objects.boxes.tolist() == [around(mask) for mask in expected]
    anew = finished(moved, boxes_from_masks=True)[1]
    assert torch.equal(anew.boxes, objects.boxes)


@pytest.mark.parametrize("polygons", [True, False])
@pytest.mark.parametrize("size", [(96, 128), (144, 64), (24, 32)])
def test_masks_and_boxes_are_resized_with_the_picture(polygons, size):
    moved = resized(scene(polygons=polygons), size)
    masks = bitmaps(moved.objects, size)
    for place, (left, top, right, bottom) in enumerate(RECTANGLES):
        across, down = size[1] / SIZE[1], size[0] / SIZE[0]
        box = [left * across, top * down, right * across, bottom * down]
        assert moved.objects.boxes[place].tolist() == box
        assert masks is not None and around(masks[place]) == box  # all whole numbers here
        alone = Image.fromarray(shining(scene().image)[place].numpy().astype(np.uint8) * 255)
        drawn = np.array(alone.resize((size[1], size[0]), Image.Resampling.BILINEAR)) > 127
        assert np.array_equal(drawn, masks[place].numpy())


@pytest.mark.parametrize("polygons", [True, False])
def test_what_is_cropped_away_is_gone(polygons):
    moved = cropped(scene(polygons=polygons), top=0, left=44, size=(48, 20))
    _, objects = finished(moved, boxes_from_masks=False)
    assert objects.labels.tolist() == [2] and objects.boxes.tolist() == [[0, 2, 18, 46]]
    none = finished(cropped(scene(polygons=polygons), top=46, left=0, size=(2, 44)), boxes_from_masks=True)[1]
    assert len(none) == 0 and none.boxes.shape == (0, 4)


def test_boxes_alone():
    plain = Scene(scene().image, Instances(torch.tensor(RECTANGLES, dtype=torch.float64), torch.arange(3)))
    _, objects = finished(cropped(flipped(plain), top=0, left=0, size=(48, 30)), boxes_from_masks=True)
    assert objects.boxes.dtype == torch.float32 and objects.masks is None
    assert objects.labels.tolist() == [1, 2] and objects.boxes[1].tolist() == [2, 2, 20, 46]


SHAPES = {
    "star": [(32, 2), (40, 44), (4, 16), (60, 16), (24, 44)],  # crosses itself
    "comb": [
        (2, 2),
        (62, 2),
        (62, 46),
        (50, 46),
        (50, 8),
        (40, 8),
        (40, 46),
        (28, 46),
        (28, 8),
        (12, 8),
        (12, 46),
        (2, 46),
    ],
    "ring": [(4, 4), (60, 4), (60, 44), (4, 44), (4, 4), (16, 12), (16, 36), (48, 36), (48, 12), (16, 12)],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("top", "left", "size"), [(0, 20, (48, 44)), (6, 0, (30, 64)), (10, 10, (20, 40))])
def test_polygons_are_cut_as_their_pixels_are(shape, top, left, size):
    part = torch.tensor(SHAPES[shape], dtype=torch.float64)
    whole = Scene(Image.new("RGB", (64, 48)), Instances(torch.zeros(1, 4).double(), torch.zeros(1).long(), [[part]]))
    cut = cropped(whole, top=top, left=left, size=size).objects
    expected = filled([part], SIZE)[top : top + size[0], left : left + size[1]]
    found = bitmaps(cut, size)
    assert found is not None
    different = found[0].numpy() ^ expected
    # COCO rasterises each edge from its own ends: a cut edge may round to the next pixel
    assert different.sum() <= 0.03 * expected.sum() and expected.mean() > 0.1
    points = torch.cat(list(cut.masks[0]))  # type: ignore[index]
    assert (points >= 0).all() and (points <= torch.tensor(size).flip(0)).all()


def test_a_cut_around_a_corner_leaves_no_bridge():
    hook = torch.tensor(
        [(-8, 20), (6, 20), (6, 24), (-4, 24), (-4, -4), (20, -4), (20, 6), (24, 6), (24, -8), (-8, -8)]
    )
    whole = Instances(torch.zeros(1, 4).double(), torch.zeros(1).long(), [[hook.double() + 8]])
    cut = cropped(Scene(Image.new("RGB", (64, 48)), whole), top=8, left=8, size=(30, 30)).objects
    assert isinstance(cut.masks, list) and len(cut.masks[0]) == 2
    assert {tuple(part.amin(0).tolist()) for part in cut.masks[0]} == {(0, 20), (20, 0)}


def test_equal_to_the_published_arithmetic():
    box = torch.tensor([[12.5, 30.25, 200.0, 220.5]], dtype=torch.float64)
    if not SCHEDULE.is_file():
        pytest.skip(f"needs {SCHEDULE.name} of the shared parity data")
    expected = json.loads(SCHEDULE.read_text())["box_transforms"]
    start = Scene(Image.new("RGB", (640, 480)), Instances(box, torch.zeros(1).long()))
    assert box[0].tolist() == expected["box"]
    assert flipped(start).objects.boxes[0].tolist() == expected["hflip_width_640"]
    part = cropped(start, top=20, left=10, size=(200, 300))
    assert part.objects.boxes[0].tolist() == expected["crop_x0_10_y0_20_w_300_h_200"]
    larger = resized(start, (800, 1067)).objects.boxes
    assert larger[0].tolist() == pytest.approx(expected["resize_480x640_to_800x1067"], rel=1e-15)


def test_equal_to_the_published_sizes():
    if not SCHEDULE.is_file():
        pytest.skip(f"needs {SCHEDULE.name} of the shared parity data")
    table = json.loads(SCHEDULE.read_text())["resize_shapes"]
    for height, width, side, longest, new_height, new_width in table["shortest_edge"]:
        assert shorter_side((height, width), side, longest) == (new_height, new_width)
    for height, width, scale, new_height, new_width in table["lsj"]:
        assert fitted((height, width), 1024, scale) == (new_height, new_width)
    assert fitted((3, 4000), 1024, 0.1) == (1, 102)  # never without a row


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("polygons", [True, False])
def test_a_seed_decides(kind, polygons):
    transform = pickle.loads(pickle.dumps(KINDS[kind]()))
    start = scene(polygons=polygons)

    def drawn(seed: int):
        with seeded(seed):
            return transform(start.image, start.objects)

    first, again, other = drawn(5), drawn(5), drawn(6)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1].boxes, again[1].boxes)
    assert first[0].dtype == torch.uint8 and first[1].boxes.dtype == torch.float32
    same = first[0].shape == other[0].shape and torch.equal(first[0], other[0])
    assert same == (kind == "resize")


def test_multi_scale():
    transform = MultiScale()
    random.seed(0)
    image = Image.new("RGB", (640, 480), (9, 9, 9))
    objects = Instances(torch.tensor([[0.0, 0, 640, 480]]).double(), torch.zeros(1).long())
    shapes = [tuple(transform(image, objects)[0].shape[1:]) for _ in range(24)]
    whole = [min(s) for s in shapes if abs(s[1] / s[0] - 4 / 3) < 0.01]
    assert {min(s) for s in shapes} <= {*range(480, 801, 32)} and 6 < len(whole) < 22
    assert max(map(max, shapes)) <= 1333
    assert {(480, 640)} == {
        tuple(MultiScale(sides=(480,), crop=0, flip=flip)(image, objects)[0].shape[1:]) for flip in (0, 1)
    }
    small = MultiScale(sides=(60,), crop=1.0, crop_sides=(50,), crop_range=(40, 45), flip=0, longest=None)
    for _ in range(20):
        pixels, found = small(image, objects)
        assert found.boxes.tolist() == [[0, 0, pixels.shape[2], pixels.shape[1]]]
        assert 40 / 45 <= pixels.shape[1] / pixels.shape[2] <= 45 / 40 + 0.02


def test_a_scan_line_is_not_enlarged_to_be_cropped():
    objects = Instances(torch.tensor([[0.0, 0, 3000, 1]]).double(), torch.zeros(1).long())
    pixels, found = MultiScale(crop=1.0)(Image.new("RGB", (3000, 1)), objects)
    assert pixels.shape == (3, 1, 1333) and len(found) == 1


@pytest.mark.parametrize("pad", [128, None])
def test_large_scale_jitter(pad):
    start = scene()
    random.seed(1)
    counts = []
    for _ in range(40):
        image, objects = LargeScaleJitter(size=96, pad=pad)(start.image, start.objects)
        counts.append(len(objects))
        assert image.shape == (3, 96, 96) if pad else max(image.shape) <= 96
        for box, parts in zip(objects.boxes.tolist(), objects.masks or (), strict=True):
            low, high = torch.cat(list(parts)).amin(0).tolist(), torch.cat(list(parts)).amax(0).tolist()
            assert box == pytest.approx([*low, *high], abs=1e-4)
    assert min(counts) < 3 == max(counts)


def test_padding_keeps_the_picture_at_the_top_left():
    image, _ = LargeScaleJitter(size=128, scale=(0.5, 0.5), flip=0)(scene().image, scene().objects)
    assert (image[:, 48:] == 128).all() and (image[:, :, 64:] == 128).all()
    assert torch.equal(image[:, :48, :64], torch.from_numpy(np.array(scene().image)).permute(2, 0, 1))


def test_resize_of_evaluation():
    assert {"detection": Resize(side=800, longest=1333), "detection_1024": Resize(side=1024, longest=1024)} == TEST
    with pytest.raises(ValueError, match="no preprocessing of a detector"):
        resize_of(IMAGENET)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiScale(sides=()), r"sides=\(\)"),
        (lambda: MultiScale(crop_range=(600, 384), flip=2), "flip=2, crop_range"),
        (lambda: LargeScaleJitter(scale=(0, 1), size=0), "size=0, scale"),
        (lambda: LargeScaleJitter(pad=300), "pad=300"),
        (lambda: Resize(side=0), "side=0"),
        (lambda: Resize(longest=0), "longest=0"),
    ],
)
def test_fields_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_ellipses_are_drawn_where_pillow_draws_them():
    canvas = Image.new("L", (64, 48))
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    points = np.stack((32 + 20 * np.cos(angles), 24 + 15 * np.sin(angles)), axis=1)
    ImageDraw.Draw(canvas).polygon([tuple(p - 0.5) for p in points], fill=1)
    ours = filled([torch.from_numpy(points)], SIZE)
    assert (ours ^ np.array(canvas).astype(bool)).mean() < 0.04 and abs(ours.sum() - np.pi * 300) < 12
