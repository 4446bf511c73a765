"""Views are crops of the picture, and classes and labels of other benchmarks are compared as their authors do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mvitv2.core.model import MViT
from mvitv2.data.labelled import DataError
from mvitv2.data.transforms import EvalTransform
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.classify import evaluate
from mvitv2.tasks.evaluation import evaluating, probabilities
from mvitv2.tasks.matching import matched
from mvitv2.tasks.scoring import VALIDATION_IMAGES, Scoring, read_accepted
from mvitv2.tasks.views import ViewsTransform

from ..e2e.training_job import Patterns, small_model

RECORD = Preprocessing(size=(16, 20), resize=24, mean=(0.5,) * 3, std=(0.5,) * 3)
PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 255, (31, 47, 3), dtype=np.uint8))


def views(**options: Any) -> torch.Tensor:
    return ViewsTransform(RECORD, **options)(PICTURE)


def test_one_view_is_the_usual_one() -> None:
    assert torch.equal(views()[0], EvalTransform(RECORD)(PICTURE))
    both = views(flip=True)
    assert torch.equal(both[0], EvalTransform(RECORD)(PICTURE)) and torch.equal(both[1], both[0].flip(-1))


def test_five_and_ten_crops_are_torchvisions() -> None:
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    whole = PICTURE.resize((int(24 * 47 / 31), 24), Image.Resampling.BICUBIC)
    tensor = torch.from_numpy(np.array(whole)).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)
    expected = torch.stack(functional.five_crop(tensor, [16, 20]))
    torch.testing.assert_close(views(crops=5), expected)
    torch.testing.assert_close(views(crops=10), torch.cat((expected, expected.flip(-1))))


def test_how_many_views_there_are() -> None:
    options: dict[str, Any]
    for options in ({"crops": 10, "scales": (1.0, 1.25)}, {"crops": 5, "flip": True}, {"scales": (0.5, 1.0, 2.0)}):
        transform = ViewsTransform(RECORD, **options)
        assert transform(PICTURE).shape == (transform.count, 3, 16, 20)
    long = Image.new("RGB", (4000, 3))
    assert ViewsTransform(RECORD, crops=5)(long).shape == (5, 3, 16, 20)
    for options, part in (({"crops": 3}, "crops=3 is none of 1, 5, 10"), ({"scales": ()}, "at least one number")):
        with pytest.raises(ValueError, match=part):
            ViewsTransform(RECORD, **options)


def test_the_answers_of_views_are_averaged() -> None:
    model = small_model()
    x = torch.randn(2, 4, 3, 16, 16)
    with evaluating(model):
        expected = torch.stack([probabilities(model, x[:, i]) for i in range(4)]).mean(dim=0)
        torch.testing.assert_close(probabilities(model, x), expected)


def test_restricted_answers_are_the_softmax_of_some_logits() -> None:
    logits, labels = torch.randn(6, 10), torch.randint(3, (6,))
    scores, same, places = Scoring(columns=(7, 2, 4)).of(logits.softmax(1), labels, range(10, 16))
    torch.testing.assert_close(scores, logits[:, [7, 2, 4]].softmax(1))
    assert torch.equal(same, labels) and places == list(range(10, 16))


def test_any_of_several_answers_is_right() -> None:
    """Against the definition in the paper's own words: right if the top prediction is in the set of labels."""
    torch.manual_seed(0)
    scores, labels = torch.randn(40, 12).softmax(1), torch.randint(12, (40,))
    accepted = [tuple(torch.randperm(12)[: i % 4].tolist()) for i in range(40)]
    found, best, places = Scoring(accepted=accepted).of(scores, labels, list(range(40)))
    assert places == [i for i in range(40) if accepted[i]]
    right = [int(scores[i].argmax()) in accepted[i] for i in places]
    assert (found.argmax(1) == best).tolist() == right
    among_five = [bool(set(scores[i].topk(5).indices.tolist()) & set(accepted[i])) for i in places]
    assert [bool((found[r] > found[r, b]).sum() < 5) for r, b in enumerate(best.tolist())] == among_five


def test_an_evaluation_with_several_right_answers() -> None:
    model = small_model()
    everything = Scoring(accepted=[(0, 1, 2)] * 18 + [()] * 2)
    found = evaluate(model, Patterns(20), scoring=everything)
    assert (found.images, found.top1, found.unlabelled) == (18, 1.0, 2)
    seen: list[int] = []
    evaluate(model, Patterns(20), scoring=everything, on_answer=lambda example: seen.append(example.index))
    assert seen == list(range(18))


class Named(Patterns):
    classes = class_names = ("cat", "dog", "owl")  # type: ignore[assignment]

    def path(self, index: int) -> Path:
        return Path(f"val/ILSVRC2012_val_{index + 1:08d}.JPEG")


def test_labels_of_imagenet_real(tmp_path: Path) -> None:
    file = tmp_path / "real.json"
    file.write_text(json.dumps([[0], [1, 2], []] + [[1]] * (VALIDATION_IMAGES - 3)))
    assert read_accepted(file, Named(4)) == [(0,), (1, 2), (), (1,)]
    file.write_text("[[0], [1]]")
    with pytest.raises(DataError, match="a list of 2 is read as ImageNet's 50000"):
        read_accepted(file, Named(2))


def test_labels_by_the_names_of_files(tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    names = [f"ILSVRC2012_val_{i:08d}" for i in range(1, 4)]
    file.write_text(json.dumps({names[0]: "cat", f"{names[1]}.JPEG": ["dog", 0], f"val/{names[2]}.JPEG": []}))
    assert read_accepted(file, Named(3)) == [(0,), (1, 0), ()]
    for values, part in (({}, "has nothing about"), ({names[0]: "cow"}, "'cow' is neither"), ("x", "expected a list")):
        file.write_text(json.dumps(values))
        with pytest.raises(DataError, match=part):
            read_accepted(file, Named(1))
    file.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        read_accepted(file, Named(1))


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    def made(*names: str) -> Path:
        for name in names:
            (tmp_path / "data" / name).mkdir(parents=True)
            PICTURE.save(tmp_path / "data" / name / "a.png")
        return tmp_path / "data"

    return made


def thousand(**card: Any) -> MViT:
    model = small_model()
    model.reset_classifier(1000)
    model.card = {"preprocessing": RECORD.to_dict(), **card}
    return model


def test_some_wordnet_ids_are_some_of_a_thousand_classes(folder: Any) -> None:
    pytest.importorskip("timm")
    # the ids of ImageNet-A begin with the stingray, class 6 of ImageNet
    found = matched(thousand(classes=[f"name {i}" for i in range(1000)]), folder("n01498041", "n01440764"))
    assert found.columns == (0, 6)
    assert found.dataset.class_names == ("name 0", "name 6")
    assert found.note == "the data has 2 of the model's 1000 classes; answers are restricted to them"
    measured = evaluate(thousand(), found.dataset, scoring=Scoring(found.columns))
    assert [c.images for c in measured.per_class] == [1, 1]


def test_folders_of_numbers_are_the_models_classes(folder: Any) -> None:
    found = matched(thousand(), folder("0", "10", "999"))
    assert found.columns == (0, 10, 999) and found.note.startswith(
        "class folders are numbers of the model's classes; the data has 3 of"
    )


def test_all_numbers_are_in_the_order_of_numbers(folder: Any) -> None:
    model = small_model()
    model.reset_classifier(11)
    model.card = {"preprocessing": RECORD.to_dict(), "classes": list("abcdefghijk")}
    found = matched(model, folder(*map(str, range(11))))
    assert found.columns is None and found.dataset.class_names == tuple("abcdefghijk")
    # files are listed by folder name: 0, 1, 10, 2, ...
    assert found.dataset.labels.tolist() == [0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9]
    assert all(found.dataset.path(i).parent.name == str(label) for i, label in enumerate(found.dataset.labels))


def test_a_missing_class_of_ones_own_is_a_mistake(folder: Any) -> None:
    model = small_model()
    model.card = {"preprocessing": RECORD.to_dict(), "classes": ["cat", "dog", "owl"]}
    with pytest.raises(DataError, match="1 missing: owl"):
        matched(model, folder("cat", "dog"))
