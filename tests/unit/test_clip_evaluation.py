"""Views of clips: their scores averaged, kept, and gone on with."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="clips are read by PyAV: the extra video")

from mvitv2.core.model import MViT
from mvitv2.data.samples import Unreadable
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.clips import Views, clip_dataset_for, clip_preprocessing_of, evaluate_views
from mvitv2.tasks.evaluation import evaluate
from mvitv2.tasks.viewscores import ViewScores, read_view_scores
from tests import films, tiny

PREPARED = Preprocessing(
    size=(32, 32), resize=32, interpolation="bilinear", mean=(0.45,) * 3, std=(0.225,) * 3,
    num_frames=4, sampling_rate=2, fps=10.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return films.two_classes(tmp_path_factory.mktemp("films"), [("val", 3)])


@pytest.fixture(scope="module")
def model() -> MViT:
    torch.manual_seed(0)
    made = tiny.model(tiny.clip(num_classes=2))
    made.card = {"preprocessing": PREPARED.to_dict(), "classes": ["left", "right"]}
    return made


@pytest.mark.parametrize(("text", "views"), [("5x1", (5, 1)), ("1x3", (1, 3)), (" 5X3 ", (5, 3))])
def test_views_in_words(text: str, views: tuple[int, int]) -> None:
    found = Views.of(text)
    assert (found.clips, found.crops, found.count) == (*views, views[0] * views[1])


@pytest.mark.parametrize("text", ["5", "5x2", "0x1", "x", "5x1x1", "-1x3"])
def test_what_is_no_views(text: str) -> None:
    with pytest.raises(ValueError, match="expected CLIPSxCROPS with 1 or 3 crops, such as 1x1, 5x1"):
        Views.of(text)


@pytest.mark.parametrize("text", ["5x1", "1x3", "2x3"])
def test_the_mean_of_single_views(model: MViT, data: Path, tmp_path: Path, text: str) -> None:
    """Every view alone through the model, by hand, and their softmax scores averaged."""
    views = Views.of(text)
    dataset = clip_dataset_for(model, data, "val", views)
    found = evaluate_views(model, dataset, views, folder=tmp_path / "kept", batch_size=4)
    about, places, kept = read_view_scores(tmp_path / "kept")
    assert (about["views"], places.tolist()) == (text, list(range(6)))
    hits = 0
    each = np.zeros(views.count)
    with torch.no_grad():
        for index in range(6):
            clips, label = dataset[index]
            single = torch.stack([model(clip[None])[0].softmax(dim=0) for clip in clips]).numpy()
            np.testing.assert_allclose(kept[index], single, rtol=0, atol=1e-6)
            hits += int(single.mean(axis=0).argmax() == label)
            each += single.argmax(axis=1) == label
    assert found.mean.top1 == hits / 6
    assert found.each == (each / 6).tolist()
    assert found.mean.images == 6


def test_one_view_is_the_plain_evaluation(model: MViT, data: Path) -> None:
    dataset = clip_dataset_for(model, data)
    found, plain = evaluate_views(model, dataset, Views()), evaluate(model, dataset, examples=0)
    assert (found.mean.top1, found.mean.confusion) == (plain.top1, plain.confusion)
    assert found.mean.loss == pytest.approx(plain.loss, abs=1e-6)
    assert found.scores is None


@pytest.mark.parametrize("cut", [0, 1, 40, 97, 0.5, -1])
def test_a_stopped_evaluation_goes_on_to_the_same_bits(model: MViT, data: Path, tmp_path: Path, cut: float) -> None:
    """The file cut off anywhere, as a killed process may leave it."""
    views = Views.of("5x1")
    dataset = clip_dataset_for(model, data, "val", views)
    whole = evaluate_views(model, dataset, views, folder=tmp_path, batch_size=10)
    path = tmp_path / "views.bin"
    content = path.read_bytes()
    end = int(len(content) * cut) if isinstance(cut, float) else cut
    path.write_bytes(content[:end])
    again = evaluate_views(model, dataset, views, folder=tmp_path, batch_size=10)
    assert path.read_bytes() == content
    assert {**again.to_dict(), "seconds": 0} == {**whole.to_dict(), "seconds": 0}


def test_nothing_is_computed_twice(model: MViT, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views = Views.of("1x3")
    dataset = clip_dataset_for(model, data, "val", views)
    evaluate_views(model, dataset, views, folder=tmp_path)
    monkeypatch.setattr(type(dataset), "__getitem__", lambda self, key: pytest.fail("read again"))
    assert evaluate_views(model, dataset, views, folder=tmp_path).mean.images == 6


def test_scores_of_something_else_are_refused(model: MViT, data: Path, tmp_path: Path) -> None:
    views = Views.of("1x3")
    evaluate_views(model, clip_dataset_for(model, data, "val", views), views, folder=tmp_path)
    other = Views.of("5x1")
    with pytest.raises(ValueError, match=r"holds scores of something else \(views: '1x3', not '5x1'.*another folder"):
        evaluate_views(model, clip_dataset_for(model, data, "val", other), other, folder=tmp_path)


def test_clips_that_cannot_be_read_are_named_after_a_stop_as_well(model: MViT, data: Path, tmp_path: Path) -> None:
    films.two_classes(tmp_path / "films", [("val", 1)])
    (tmp_path / "films" / "val" / "left" / "bad.mp4").write_bytes(b"no film at all")
    views = Views()
    dataset = clip_dataset_for(model, tmp_path / "films", "val", views)
    for _ in range(2):
        found = evaluate_views(model, dataset, views, folder=tmp_path / "kept")
        assert found.mean.images == 2
        assert [Path(item.path).name for item in found.mean.unreadable] == ["bad.mp4"]


def test_a_damaged_record_ends_what_is_whole(tmp_path: Path) -> None:
    about = {"views": "2x1", "classes": 3}
    store = ViewScores(tmp_path, about)
    assert list(store.records()) == []
    store.append([0, 1], [Unreadable(2, "x.mp4", "why")], torch.rand(2, 2, 3))
    store.append([3], [], torch.rand(1, 2, 3))
    store.close()
    content = bytearray((tmp_path / "views.bin").read_bytes())
    content[-1] ^= 1
    (tmp_path / "views.bin").write_bytes(content)
    store = ViewScores(tmp_path, about)
    (record,) = store.records()
    store.close()
    assert (record[0], record[1], record[2].shape) == ([0, 1], (Unreadable(2, "x.mp4", "why"),), (2, 2, 3))


def test_a_card_without_preprocessing_is_told() -> None:
    with pytest.raises(ValueError, match="the model's card has no 'preprocessing'"):
        clip_preprocessing_of(tiny.model(tiny.clip()))
    with pytest.raises(ValueError, match="takes pictures, not clips"):
        clip_preprocessing_of(tiny.model(tiny.image()))


def test_other_frames_and_sizes_need_no_other_model(model: MViT, data: Path) -> None:
    card = dict(model.card)
    other = Preprocessing.from_dict({**PREPARED.to_dict(), "size": [40, 56], "resize": 56, "num_frames": 7})
    try:
        model.card = {**card, "preprocessing": other.to_dict()}
        dataset = clip_dataset_for(model, data)
        assert dataset[0][0].shape == (3, 7, 40, 56)
        assert evaluate_views(model, dataset, Views()).mean.images == 6
    finally:
        model.card = card
