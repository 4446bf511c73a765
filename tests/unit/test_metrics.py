"""Figures are exact, add up over batches of any size, and know how sure they are."""

import pytest
import torch

from mvitv2.tasks.metrics import BINS, Tally, class_results, wilson


def scores_and_labels(count: int = 103, classes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(count, classes).softmax(dim=1), torch.randint(classes, (count,))


@pytest.mark.parametrize("size", [1, 10, 103, 1000])
def test_batches_of_any_size_give_the_same_figures(size: int) -> None:
    scores, labels = scores_and_labels()
    tally, whole = Tally(7), Tally(7)
    whole.update(scores, labels)
    for s, y in zip(scores.split(size), labels.split(size), strict=True):
        tally.update(s, y)
    assert (tally.total, tally.top1, tally.top5) == (103, whole.top1, whole.top5)
    assert tally.loss == pytest.approx(whole.loss)
    assert tally.confusion is not None and whole.confusion is not None
    assert torch.equal(tally.confusion, whole.confusion)
    assert tally.calibration_error() == pytest.approx(whole.calibration_error())


def test_figures_are_what_their_names_say() -> None:
    scores, labels = scores_and_labels()
    tally = Tally(7)
    tally.update(scores, labels)
    guess = scores.argmax(dim=1)
    assert tally.top1 == int((guess == labels).sum())
    assert tally.top5 == int((scores.topk(5).indices == labels[:, None]).any(dim=1).sum())
    assert tally.loss / 103 == pytest.approx(float(-scores[torch.arange(103), labels].log().mean()), rel=1e-6)
    for i, result in enumerate(class_results(tally, [f"c{i}" for i in range(7)])):
        assert result.images == int((labels == i).sum())
        assert result.recall == int(((guess == i) & (labels == i)).sum()) / result.images
        assert result.predicted == int((guess == i).sum())


def test_tallies_add_up() -> None:
    scores, labels = scores_and_labels()
    a, b, whole = Tally(7), Tally(7), Tally(7)
    a.update(scores[:40], labels[:40])
    b.update(scores[40:], labels[40:])
    whole.update(scores, labels)
    both = a + b
    assert both.top1 == whole.top1
    assert both.confusion is not None and whole.confusion is not None
    assert torch.equal(both.confusion, whole.confusion)
    with pytest.raises(ValueError, match="7 and 3 classes"):
        _ = a + Tally(3)


def test_scores_that_are_no_numbers_are_never_right() -> None:
    tally = Tally(3)
    tally.update(torch.tensor([[float("nan")] * 3, [0.1, 0.8, 0.1]]), torch.tensor([0, 1]))
    assert (tally.total, tally.top1, tally.top5, tally.not_numbers) == (2, 1, 1, 1)
    assert tally.loss == pytest.approx(0.2231, abs=1e-4)


def test_calibration_error() -> None:
    sure_and_half_right = Tally(2)
    sure_and_half_right.update(torch.tensor([[1.0, 0.0]] * 10), torch.tensor([0, 1] * 5))
    assert sure_and_half_right.calibration_error() == pytest.approx(0.5)
    honest = Tally(2)
    honest.update(torch.tensor([[0.8, 0.2]] * 10), torch.tensor([0] * 8 + [1] * 2))
    assert honest.calibration_error() == pytest.approx(0.0, abs=1e-7)
    assert honest.bins.shape == (3, BINS)


@pytest.mark.parametrize(
    "correct, total, low, high",
    # scipy.stats.binomtest(correct, total).proportion_ci(method="wilson")
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (10, 10, 0.72247, 1.0), (81, 263, 0.25529, 0.36621)],
)
def test_wilson_interval(correct: int, total: int, low: float, high: float) -> None:
    assert wilson(correct, total) == pytest.approx((low, high), abs=2e-5)


def test_wilson_at_the_edges() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(90, 100, confidence=0.5)
    assert wilson(90, 100)[0] < low < 0.9 < high < wilson(90, 100)[1]
    with pytest.raises(ValueError, match=r"correct=3 must be within 0\.\.total=2"):
        wilson(3, 2)


def test_very_many_classes_have_no_matrix() -> None:
    tally = Tally(5000)
    tally.update(torch.full((2, 5000), 1 / 5000), torch.tensor([0, 4999]))
    assert tally.confusion is None
    assert tally.total == 2
