"""A model on a data set and on files: every image once, in order, and one bad file spoils nothing."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mvitv2.core.model import MViT
from mvitv2.data.samples import Unreadable
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.classify import Prediction, evaluate, predict
from mvitv2.tasks.datasets import dataset_for

from ..e2e.training_job import Patterns, small_model


@pytest.fixture
def model() -> MViT:
    made = small_model()
    made.card = {
        "classes": ["red", "green", "blue"],
        "preprocessing": Preprocessing(size=(16, 16), resize=16, mean=(0.5,) * 3, std=(0.5,) * 3).to_dict(),
    }
    return made


def picture(index: int) -> Image.Image:
    return Image.new("RGB", (20 + index, 30), (index * 10, 40, 200 - index * 10))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(7)]
    for i, path in enumerate(paths):
        picture(i).save(path)
    paths[2].write_bytes(b"no picture")
    return paths


@pytest.mark.parametrize("batch_size", [1, 6, 20, 64])
def test_every_image_counts_once_whatever_the_batch(model: MViT, batch_size: int) -> None:
    whole = evaluate(model, Patterns(20), batch_size=20)
    found = evaluate(model, Patterns(20), batch_size=batch_size)
    assert (found.images, found.top1, found.top5, found.confusion) == (20, whole.top1, 1.0, whole.confusion)
    assert found.loss == pytest.approx(whole.loss, rel=1e-5)
    assert [e.index for e in found.mistakes] == [e.index for e in whole.mistakes]


def test_what_an_evaluation_tells(model: MViT) -> None:
    model.train()
    told: list[tuple[int, int]] = []
    found = evaluate(model, Patterns(20), batch_size=8, examples=5, on_batch=lambda *at: told.append(at))
    assert told == [(8, 20), (16, 20), (20, 20)]
    assert model.training
    assert found.top1_interval[0] < found.top1 < found.top1_interval[1]
    assert len(found.mistakes) <= 5
    assert [e.score for e in found.mistakes] == sorted((e.score for e in found.mistakes), reverse=True)
    assert all(e.label != e.predicted for e in found.mistakes)
    assert all(e.label == e.predicted == Patterns().labels[e.index] for e in found.correct)
    values = found.to_dict()
    assert values["per_class"][0]["recall"] == found.per_class[0].recall
    assert [sum(row) for row in values["confusion"]] == [c.images for c in found.per_class]


def test_unreadable_images_are_in_no_figure(model: MViT) -> None:
    class Holes(Patterns):
        def __getitem__(self, key: Any) -> Any:
            return Unreadable(key, f"{key}.jpg", "is empty") if key % 4 == 1 else super().__getitem__(key)

    found = evaluate(model, Holes(20), batch_size=3, examples=20)
    assert found.images == 15
    assert [item.index for item in found.unreadable] == [1, 5, 9, 13, 17]
    assert all(e.index % 4 != 1 and Patterns().labels[e.index] == e.label for e in [*found.mistakes, *found.correct])


def test_what_cannot_be_evaluated(model: MViT) -> None:
    class Other(Patterns):
        class_names = ("a", "b")

    with pytest.raises(ValueError, match="tells 3 classes apart, the data has 2"):
        evaluate(model, Other(4))
    with pytest.raises(ValueError, match="no image to measure on"):
        evaluate(model, Patterns(0))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_heads_that_give_probabilities_keep_theirs(model: MViT, activation: str) -> None:
    from mvitv2.tasks.evaluation import evaluating, probabilities

    x = torch.randn(2, 3, 16, 16)
    with evaluating(model):
        logits = model(x)
    vars(model.head)["act_func"] = activation
    object.__setattr__(model.config, "head_activation", activation)
    with evaluating(model):
        expected = {"softmax": logits.softmax(1), "sigmoid": logits.sigmoid()}[activation]
        torch.testing.assert_close(probabilities(model, x).clone(), expected)


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_answers_come_in_order_and_a_bad_file_is_an_answer(
    model: MViT, files: list[Path], workers: int, batch_size: int
) -> None:
    answers = list(predict(model, files, top=2, batch_size=batch_size, workers=workers))
    assert [a.file for a in answers] == [str(f) for f in files]
    assert answers[2].error is not None
    assert "\n" not in answers[2].error
    good = [a for a in answers if a.error is None]
    assert len(good) == 6
    assert all(len(a.classes) == 2 and a.scores[0] >= a.scores[1] > 0 for a in good)
    alone = next(predict(model, files[3], top=2))
    assert alone.classes == answers[3].classes
    assert alone.scores == pytest.approx(answers[3].scores, rel=1e-5)
    assert [model.card["classes"][i] for i in answers[3].indices] == list(answers[3].classes)


def test_sources_of_every_kind(model: MViT, files: list[Path]) -> None:
    buffer = io.BytesIO()
    picture(5).save(buffer, "png")
    answers = list(predict(model, [str(files[5]), buffer.getvalue(), picture(5), files[5].parent, "nowhere*.png"]))
    assert answers[0].scores == pytest.approx(answers[1].scores)
    assert answers[1].scores == pytest.approx(answers[2].scores)
    assert len(answers) == 3 + 7 + 1
    assert answers[-1] == Prediction("nowhere*.png", error="matches nothing")


def test_memory_is_bounded_and_nothing_is_read_before_it_is_asked_for(model: MViT, files: list[Path]) -> None:
    taken: list[int] = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield files[0]

    answers = predict(model, endless(), batch_size=2, workers=2)
    assert not taken
    for _ in range(10):
        next(answers)
    assert len(taken) <= 20
    answers.close()  # type: ignore[attr-defined]


def test_a_model_without_a_fixed_size_takes_pictures_of_different_sizes(model: MViT, files: list[Path]) -> None:
    free = Preprocessing(size=None, resize=None)
    answers = list(predict(model, [files[0], files[0], files[1], files[3]], preprocessing=free))
    assert [a.error for a in answers] == [None] * 4
    assert answers[0].scores == pytest.approx(answers[1].scores)


def test_what_cannot_predict(model: MViT, files: list[Path]) -> None:
    with pytest.raises(ValueError, match="top=0 and batch_size=32 must be at least 1"):
        predict(model, files, top=0)
    model.card = {"classes": ["one"], "preprocessing": Preprocessing().to_dict()}
    with pytest.raises(ValueError, match="card names 1 classes, the model has 3"):
        predict(model, files)
    model.card = {}
    with pytest.raises(ValueError, match="card has no 'preprocessing'"):
        predict(model, files)


def test_data_for_a_model_has_its_classes_in_its_order(model: MViT, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("red", "green", "blue"):
            (tmp_path / split / name).mkdir(parents=True)
            picture(1).save(tmp_path / split / name / "a.png")
    for folder in (tmp_path, tmp_path / "val"):
        dataset = dataset_for(model, folder)
        assert dataset.class_names == ("red", "green", "blue")
        assert [dataset[i][1] for i in range(3)] == [0, 1, 2]
        assert dataset[0][0].shape == (3, 16, 16)
    model.card["classes"] = ["red", "green", "black"]
    with pytest.raises(ValueError, match="1 missing: black; 1 unknown: blue"):
        dataset_for(model, tmp_path)
