"""Scores for boxes in a clip."""

import math

import pytest
import torch
import torch.nn.functional as F

from mvitv2.tasks.actions import RoIClassifier
from tests import tiny

pytest.importorskip("torchvision", reason="RoIAlign comes with the extra 'video'")
STRIDE = 8


def classifier(**options: bool) -> RoIClassifier:
    return RoIClassifier(tiny.model(tiny.clip()), scale=1 / STRIDE, resolution=2, **options).eval()


def boxes(*corners: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(corners)


def lattice(model: RoIClassifier, clips: torch.Tensor) -> torch.Tensor:
    """Normed tokens, averaged over time: ``(B, C, H, W)``."""
    tokens, grid = model.mvit.trunk(clips)[-1]
    return model.mvit.norm(tokens)[:, 1:].unflatten(1, grid).mean(1).permute(0, 3, 1, 2)


def test_maximum_of_samples_in_a_box() -> None:
    """The samples of RoIAlign by grid sampling: four bins, each the mean of its samples."""
    model, clips = classifier(), torch.randn(2, 3, 4, 32, 64)
    x1, y1, x2, y2 = 10.0, 3.0, 42.0, 27.0
    found = model.features(clips, boxes((1, x1, y1, x2, y2)))
    image = lattice(model, clips)[1:]
    height, width = image.shape[2:]
    bins = []
    for row in range(2):
        for col in range(2):
            bin_w, bin_h = (x2 - x1) / STRIDE / 2, (y2 - y1) / STRIDE / 2
            count_w, count_h = math.ceil(bin_w), math.ceil(bin_h)
            xs = x1 / STRIDE + bin_w * (col + (torch.arange(count_w) + 0.5) / count_w)
            ys = y1 / STRIDE + bin_h * (row + (torch.arange(count_h) + 0.5) / count_h)
            places = torch.stack(torch.meshgrid(2 * xs / width - 1, 2 * ys / height - 1, indexing="xy"), -1)
            samples = F.grid_sample(image, places[None], padding_mode="border", align_corners=False)
            bins.append(samples.mean((2, 3)))
    torch.testing.assert_close(found, torch.stack(bins).amax(0), rtol=1e-4, atol=1e-4)


def test_boxes_know_their_clip() -> None:
    model, clips = classifier(), torch.randn(2, 3, 4, 32, 32)
    box = (4.0, 4.0, 28.0, 20.0)
    both = model(clips, boxes((1, *box), (0, *box), (1, *box)))
    assert both.shape == (3, 5) and torch.equal(both[0], both[2])
    torch.testing.assert_close(both[1:2], model(clips[:1], boxes((0, *box))))


def test_clips_that_are_no_squares_and_no_boxes_at_all() -> None:
    model, clips = classifier(), torch.randn(1, 3, 6, 40, 72)
    assert model(clips, boxes((0, 0, 0, 72, 40))).isfinite().all()
    assert model(clips, torch.zeros(0, 5)).shape == (0, 5)


def test_half_a_pixel_is_a_convention() -> None:
    clips, box = torch.randn(1, 3, 4, 32, 32), boxes((0, 4, 4, 28, 20))
    aligned = classifier(aligned=True)
    older = RoIClassifier(aligned.mvit, scale=1 / STRIDE, resolution=2, aligned=False).eval()
    assert not torch.allclose(aligned.features(clips, box), older.features(clips, box))


def test_gradients_reach_the_pixels() -> None:
    model, clips = classifier().train(), torch.randn(1, 3, 4, 32, 32, requires_grad=True)
    model(clips, boxes((0, 4, 4, 28, 20))).sum().backward()
    assert clips.grad is not None and clips.grad.any()


def test_one_graph() -> None:
    model, clips, box = classifier(), torch.randn(1, 3, 4, 32, 32), boxes((0, 4, 4, 28, 20))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(clips, box), model(clips, box))
    torch.compiler.reset()


def test_images_have_no_actions() -> None:
    with pytest.raises(ValueError, match=r"boxes in clips need a model for clips, this one takes \(32, 48\) pixels"):
        RoIClassifier(tiny.model(tiny.image()))
