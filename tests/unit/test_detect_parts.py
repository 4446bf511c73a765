"""The parts of a detector: boxes, anchors, matching, pooling, selecting, pasting, losses; laws first."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from mvitv2.data.instances import Instances
from mvitv2.tasks.detect import box_head
from mvitv2.tasks.detect.anchors import level_anchors
from mvitv2.tasks.detect.boxes import LARGEST_STEP, clipped, decoded, encoded, overlaps, with_area
from mvitv2.tasks.detect.config import Selection
from mvitv2.tasks.detect.layers import Conv, RegionNorm
from mvitv2.tasks.detect.losses import exclusive_loss, federated, separate_loss, steps_loss
from mvitv2.tasks.detect.mask_head import mask_loss
from mvitv2.tasks.detect.mask_targets import mask_targets
from mvitv2.tasks.detect.matching import IGNORED, NEGATIVE, POSITIVE, given_order, matched, sampled
from mvitv2.tasks.detect.pasting import pasted, rescaled
from mvitv2.tasks.detect.pooling import level_of, pooled
from mvitv2.tasks.detect.selecting import selected
from tests import tiny

ops = pytest.importorskip("torchvision.ops", reason="torchvision comes with the extra `detect`")
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def some_boxes(count: int, side: float = 100.0, dtype: torch.dtype = torch.float64) -> Tensor:
    corner, extent = torch.rand(count, 2, dtype=dtype) * side, 1 + torch.rand(count, 2, dtype=dtype) * side
    return torch.cat((corner, corner + extent), dim=1)


def test_decoding_undoes_encoding() -> None:
    boxes, targets = some_boxes(200), some_boxes(200)
    torch.testing.assert_close(decoded(encoded(boxes, targets, WEIGHTS), boxes, WEIGHTS), targets)


def test_a_box_does_not_grow_beyond_the_clamp_and_shrinks_without_one() -> None:
    box = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    grown = decoded(torch.tensor([[0.0, 0.0, 50.0, -50.0]]), box, (1, 1, 1, 1))
    assert grown[0, 2] - grown[0, 0] == pytest.approx(16 * math.exp(LARGEST_STEP)) == pytest.approx(1000)
    assert 0 <= grown[0, 3] - grown[0, 1] < 1e-6


def test_decoding_of_classes_is_decoding_one_by_one() -> None:
    boxes, deltas = some_boxes(7), torch.randn(7, 12, dtype=torch.float64)
    one_by_one = [decoded(part, boxes, WEIGHTS) for part in deltas.chunk(3, dim=1)]
    torch.testing.assert_close(decoded(deltas, boxes, WEIGHTS), torch.cat(one_by_one, dim=1))


def test_half_precision_is_decoded_in_float32() -> None:
    assert decoded(torch.zeros(1, 4, dtype=torch.bfloat16), some_boxes(1), WEIGHTS).dtype == torch.float32


def test_clipped_boxes_lie_inside() -> None:
    boxes = clipped(some_boxes(100, 200.0) - 50, (60, 90))
    assert boxes.min() >= 0 and boxes[:, 0::2].max() <= 90 and boxes[:, 1::2].max() <= 60
    assert with_area(torch.tensor([[0.0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 1, 0], [2, 2, 1, 1]])).tolist() == [1, 0, 0, 0]


def test_boxes_without_area_overlap_nothing() -> None:
    point = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert overlaps(point, point).item() == 0 and overlaps(point, some_boxes(3, dtype=torch.float32)).sum() == 0


@pytest.mark.parametrize("size, ratio", list(itertools.product((32.0, 512.0), (0.5, 1.0, 2.0))))
def test_anchors_have_their_area_and_ratio_and_sit_on_corners(size: float, ratio: float) -> None:
    anchors = level_anchors((3, 5), 8, size, (ratio,), torch.float64, torch.device("cpu"))
    width, height = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    torch.testing.assert_close(width * height, torch.full_like(width, size**2), rtol=1e-6, atol=0)
    torch.testing.assert_close(height / width, torch.full_like(width, ratio), rtol=1e-6, atol=0)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    expected = torch.tensor([[8.0 * x, 8.0 * y] for y in range(3) for x in range(5)], dtype=torch.float64)
    torch.testing.assert_close(centres, expected, rtol=0, atol=1e-4)


def test_matching_is_what_its_definition_says() -> None:
    objects, boxes = some_boxes(6), some_boxes(80)
    index, labels = matched(objects, boxes, negative=0.3, positive=0.5, best_too=True)
    iou = ops.box_iou(objects, boxes)
    for n in range(80):
        best = iou[:, n].max()
        expected = NEGATIVE if best < 0.3 else IGNORED if best < 0.5 else POSITIVE
        if any(iou[m, n] == iou[m].max() for m in range(6)):
            expected = POSITIVE
        assert labels[n] == expected and iou[index[n], n] == best


def test_every_object_has_a_box_and_a_tie_gives_it_two() -> None:
    objects = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    boxes = torch.tensor([[0.0, 0, 10, 2], [0, 8, 10, 10], [52, 50, 60, 60], [80, 80, 90, 90]])
    index, labels = matched(objects, boxes, negative=0.3, positive=0.9, best_too=True)
    assert labels.tolist() == [POSITIVE, POSITIVE, POSITIVE, NEGATIVE] and index.tolist()[:3] == [0, 0, 1]


def test_without_objects_all_is_background() -> None:
    index, labels = matched(torch.zeros(0, 4), some_boxes(5), negative=0.3, positive=0.7, best_too=True)
    assert labels.tolist() == [NEGATIVE] * 5 and index.tolist() == [0] * 5


@pytest.mark.parametrize("num_positive, num_negative", [(0, 50), (3, 50), (40, 50), (40, 2), (0, 0)])
def test_samples_are_as_many_as_the_recipe_says(num_positive: int, num_negative: int) -> None:
    kind = torch.tensor([1] * num_positive + [0] * num_negative, dtype=torch.int64)
    for order in (given_order, lambda n, device: torch.randperm(n, device=device)):
        positive, negative = sampled(kind == 1, kind == 0, count=16, fraction=0.25, order=order)
        assert len(positive) == min(num_positive, 4) and len(negative) == min(num_negative, 16 - len(positive))
        assert (kind[positive] == 1).all() and (kind[negative] == 0).all()
        assert len(set(positive.tolist())) == len(positive)


def test_levels_of_boxes() -> None:
    sides = torch.tensor([1.0, 111, 112, 223, 224, 447, 448, 5000])
    boxes = torch.stack((torch.zeros(8), torch.zeros(8), sides, sides), dim=1)
    assert level_of(boxes, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert level_of(torch.zeros(1, 4), 4).tolist() == [0]


def test_rows_are_those_of_the_boxes_whatever_their_level() -> None:
    levels = [torch.randn(2, 3, 64 // 2**n, 64 // 2**n) for n in range(4)]
    boxes = [torch.cat((some_boxes(9, 40), some_boxes(9, 250))).float().clamp(max=255) for _ in range(2)]
    together = pooled(levels, boxes, 7)
    alone = [pooled([level[i : i + 1] for level in levels], [box[None]], 7) for i in range(2) for box in boxes[i]]
    torch.testing.assert_close(together, torch.cat(alone))
    assert pooled(levels, [torch.zeros(0, 4), torch.zeros(0, 4)], 7).shape == (0, 3, 7, 7)


def test_selecting() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [0, 0, 200, 10], [math.nan, 0, 1, 1], [5, 5, 9, 9]])
    scores = torch.tensor([[0.9, 0.2, 0], [0.8, 0.3, 0], [0.05, 0.06, 0.9], [0.9, 0.9, 0], [0.7, 0.05, 0]])
    found = selected(boxes, scores, (20, 100), Selection())
    assert found.labels.tolist() == [0, 0, 1, 1] and found.rows.tolist() == [0, 4, 1, 2]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.3, 0.06]) and found.boxes[3].tolist() == [0, 0, 100, 10]
    assert len(selected(boxes, scores, (20, 100), Selection(max_detections=1)).rows) == 1
    assert len(selected(boxes, scores, (20, 100), Selection(nms_iou=1.0)).rows) == 6
    assert len(selected(boxes, scores, (20, 100), Selection(min_score=0.95)).rows) == 0


def test_a_box_per_class_is_that_of_its_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10, 20, 20, 30, 30]])
    found = selected(boxes, torch.tensor([[0.4, 0.6, 0.0]]), (50, 50), Selection())
    assert found.boxes.tolist() == [[20, 20, 30, 30], [0, 0, 10, 10]] and found.labels.tolist() == [1, 0]


def test_boxes_in_an_image_of_another_size() -> None:
    boxes, kept = rescaled(torch.tensor([[10.0, 10, 20, 30], [5, 5, 5, 9], [90, 0, 100, 10]]), (50, 100), (100, 50))
    assert boxes.tolist() == [[5, 20, 10, 60], [45, 0, 50, 20]] and kept.tolist() == [0, 2]


def test_a_full_mask_fills_its_box_and_nothing_else() -> None:
    boxes = torch.tensor([[3.0, 2.0, 20.0, 15.0], [-5.0, -5.0, 4.0, 4.0], [30.0, 10.0, 80.0, 90.0]])
    image = pasted(torch.ones(3, 28, 28), boxes, (40, 50))
    assert image.shape == (3, 40, 50)
    assert image.flatten(1).sum(dim=1).tolist() == [17 * 13, 16, 20 * 30] and image[0, 2:15, 3:20].all()


def test_pasting_near_a_box_is_sampling_the_whole_image() -> None:
    masks, boxes = torch.rand(4, 28, 28), some_boxes(4, 30, torch.float32)
    y, x = (torch.arange(n) + 0.5 for n in (60, 70))
    for mask, box, drawn in zip(masks, boxes, pasted(masks, boxes, (60, 70)), strict=True):
        at_x, at_y = (x - box[0]) / (box[2] - box[0]) * 2 - 1, (y - box[1]) / (box[3] - box[1]) * 2 - 1
        grid = torch.stack((at_x.expand(60, -1), at_y[:, None].expand(-1, 70)), dim=2)
        assert torch.equal(drawn, F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0] >= 0.5)


def square(x: float, y: float, side: float) -> Tensor:
    return torch.tensor([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], dtype=torch.float64)


def test_mask_targets_of_polygons_and_bitmaps() -> None:
    boxes, labels = torch.tensor([[10.0, 10, 38, 38]]), torch.zeros(1, dtype=torch.int64)
    bits = torch.zeros(1, 50, 50, dtype=torch.bool)
    bits[0, 10:24, 10:38] = True
    half = torch.tensor([[10.0, 10], [38, 10], [38, 24], [10, 24]], dtype=torch.float64)
    expected = torch.zeros(28, 28, dtype=torch.bool)
    expected[:14] = True
    for masks in ([[half]], [[half, torch.zeros(2, 2)]], bits):
        target = mask_targets(Instances(boxes, labels, masks), torch.tensor([0, 0]), boxes.expand(2, 4), 28)
        assert target.shape == (2, 28, 28) and torch.equal(target[1], expected)
    whole = mask_targets(Instances(boxes, labels, [[square(10, 10, 28)]]), torch.tensor([0]), boxes, 28)
    outside = mask_targets(Instances(boxes, labels, [[square(60, 60, 5)]]), torch.tensor([0]), boxes, 28)
    assert whole.all() and not outside.any()
    empty = mask_targets(Instances(boxes, labels, [[]]), torch.tensor([0]), boxes, 28)
    assert empty.shape == (1, 28, 28) and not empty.any()


def test_masks_must_be_there() -> None:
    target = Instances(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="masks=False"):
        mask_targets(target, torch.tensor([0]), torch.zeros(1, 4), 28)


def test_every_loss_has_the_gradient_of_its_numbers() -> None:
    labels = torch.tensor([0, 2, 3, 3])
    logits = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    boxes, targets = some_boxes(4), some_boxes(4)
    steps = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    masks = torch.randn(4, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    asked, truth = torch.tensor([True, False, True]), torch.rand(4, 6, 6) < 0.5
    assert gradcheck(lambda x: exclusive_loss(x, labels), logits)
    assert gradcheck(lambda x: separate_loss(x, labels), logits)
    assert gradcheck(lambda x: separate_loss(x, labels, asked), logits)
    assert gradcheck(lambda x: steps_loss(x, boxes, targets, WEIGHTS), steps)
    assert gradcheck(lambda x: mask_loss(x, labels, truth), masks)


def test_losses_of_nothing_are_zero_and_have_gradients() -> None:
    logits, none = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    masks = torch.zeros(0, 3, 28, 28, requires_grad=True)
    for loss in (exclusive_loss(logits, none), separate_loss(logits, none), mask_loss(masks, none, masks[:, 0].bool())):
        assert loss.item() == 0 and loss.requires_grad


def test_separate_loss_by_hand() -> None:
    logits = torch.tensor([[1.0, -2.0, 9.0], [0.5, 0.0, -9.0]])
    truth = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    each = F.binary_cross_entropy_with_logits(logits[:, :2], truth, reduction="none")
    labels = torch.tensor([1, 2])
    torch.testing.assert_close(separate_loss(logits, labels), each.sum() / 2)
    torch.testing.assert_close(separate_loss(logits, labels, torch.tensor([False, True])), each[:, 1].sum() / 2)


def test_federated_classes_are_those_of_the_batch_and_some_others() -> None:
    labels, weights = torch.tensor([3, 20, 3, 7]), torch.ones(20)
    weights[11] = 0
    for _ in range(20):
        asked = federated(labels, weights, 6)
        # background, 20, is one of the six
        assert asked.shape == (20,) and asked[3] and asked[7] and not asked[11] and asked.sum() == 5
    assert federated(labels, weights, 2).nonzero().flatten().tolist() == [3, 7]
    assert federated(labels, weights, 500).sum() == 19


def test_the_loss_of_boxes_is_over_all_rows_and_of_one_class() -> None:
    config = tiny.whole_detector(class_agnostic=False, stages=tiny.CASCADE[:1], head_norm="")
    predictor = box_head.BoxPredictor(config, WEIGHTS)
    boxes, targets, labels = some_boxes(3), some_boxes(3), torch.tensor([4, 5, 0])
    deltas = torch.randn(3, 20, dtype=torch.float64)
    rows = torch.stack((deltas[0, 16:], deltas[2, :4]))
    expected = (rows - encoded(boxes[[0, 2]], targets[[0, 2]], WEIGHTS)).abs().sum() / 3
    torch.testing.assert_close(predictor.box_loss(deltas, boxes, labels, targets), expected)


def test_on_one_process_the_norm_of_regions_is_batch_norm() -> None:
    ours, theirs = RegionNorm(4), torch.nn.BatchNorm2d(4)
    for _ in range(3):
        x = torch.randn(5, 4, 7, 7)
        assert torch.equal(ours(x), theirs(x))
    assert all(torch.equal(v, theirs.state_dict()[n]) for n, v in ours.state_dict().items())


@pytest.mark.parametrize("norm", ["", "BN", "LN"])
def test_heads_take_no_region_at_all(norm: str) -> None:
    layer = Conv(4, 6, norm)
    y = layer(torch.zeros(0, 4, 14, 14, requires_grad=True))
    assert y.shape == (0, 6, 14, 14)
    (y.sum() * 0).backward()
    assert layer.weight.grad is not None and (layer.bias is None) == bool(norm)
