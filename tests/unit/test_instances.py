"""The record of an image's objects: it refuses what does not fit together, and chooses from all fields alike."""

import pytest
import torch

from mvitv2.data.instances import Instances

SQUARE = torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0]], dtype=torch.float64)


def three(masks) -> Instances:
    boxes = torch.tensor([[0.0, 0, 4, 4], [1, 1, 3, 3], [2, 2, 5, 5]])
    return Instances(boxes, torch.tensor([7, 8, 9]), masks)


def polygons():
    return [[SQUARE], [SQUARE + 1, SQUARE + 2], [SQUARE + 3]]


@pytest.mark.parametrize("index", [torch.tensor([False, True, True]), torch.tensor([1, 2])])
def test_chosen_objects_keep_their_own_box_label_and_mask(index):
    bits = torch.zeros(3, 6, 6, dtype=torch.bool)
    bits[1, 2, 3] = True
    part = three(polygons()).chosen(index)
    assert part.labels.tolist() == [8, 9]
    assert part.boxes.tolist() == [[1, 1, 3, 3], [2, 2, 5, 5]]
    assert isinstance(part.masks, list) and [len(parts) for parts in part.masks] == [2, 1]
    chosen_bits = three(bits).chosen(index).masks
    assert isinstance(chosen_bits, torch.Tensor) and chosen_bits.nonzero().tolist() == [[0, 2, 3]]
    assert three(None).chosen(index).masks is None


def test_none_are_objects_too():
    empty = three(polygons()).chosen(torch.zeros(3, dtype=torch.bool))
    assert len(empty) == 0 and list(empty.masks or ()) == []
    assert len(three(None).to("cpu")) == 3


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"boxes": torch.zeros(3, 5)}, r"boxes are \(N, 4\).*\(3, 5\)"),
        ({"boxes": torch.zeros(3, 4, dtype=torch.int64)}, "floating point"),
        ({"labels": torch.zeros(2, dtype=torch.int64)}, "labels are int64"),
        ({"labels": torch.zeros(3)}, "labels are int64"),
        ({"masks": [[SQUARE]]}, "1 masks for 3 boxes"),
        ({"masks": torch.zeros(3, 6, 6)}, r"bool \(N, H, W\)"),
    ],
)
def test_what_does_not_fit_together_is_refused(fields, message):
    whole = {"boxes": torch.zeros(3, 4), "labels": torch.zeros(3, dtype=torch.int64), "masks": None}
    with pytest.raises(ValueError, match=message):
        Instances(**{**whole, **fields})
