"""Features of files are those of the model, in order, in bounded memory; answers can be looked at."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mvitv2.core.model import MViT
from mvitv2.data.images import read_image
from mvitv2.data.transforms import EvalTransform
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.annotated import annotated
from mvitv2.tasks.classify import predict
from mvitv2.tasks.features import LAYERS, features
from mvitv2.tasks.memory import process_gib
from mvitv2.tasks.prediction import Prediction

from ..e2e.training_job import small_model

RECORD = Preprocessing(size=(16, 24), resize=(18, 27), mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(scope="module")
def model() -> MViT:
    made = small_model()
    made.card = {"classes": ["red", "green", "blue"], "preprocessing": RECORD.to_dict()}
    return made


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        Image.new("RGB", (40 + i, 30), (i * 50, 40, 200)).save(path)
    paths[2].write_bytes(b"no picture")
    return paths


def pixels(files: list[Path]) -> torch.Tensor:
    return torch.stack([EvalTransform(RECORD)(read_image(path)) for path in files if path.stem != "2"])


@pytest.mark.parametrize("layer", LAYERS[:4])
@pytest.mark.parametrize("workers", [0, 2])
def test_they_are_those_of_the_model(model: MViT, files: list[Path], layer: str, workers: int) -> None:
    found = list(features(model, files, layer=layer, batch_size=2, workers=workers))
    assert [one.file for one in found] == [str(path) for path in files]
    assert found[2].values is None and found[2].error
    values = torch.from_numpy(np.stack([one.values for one in found if one.values is not None]))
    with torch.no_grad():
        x = pixels(files)
        model.eval()
        expected = {
            "pooled": lambda: model.forward_head(model.forward_features(x), pre_logits=True),
            "map": lambda: model.forward_intermediates(x, norm=True, intermediates_only=True)[-1],
            "stage1": lambda: model.forward_intermediates(x, intermediates_only=True)[0],
            "stage2": lambda: model.forward_intermediates(x, intermediates_only=True)[1],
        }[layer]()
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


def test_averaged_and_of_length_one(model: MViT, files: list[Path]) -> None:
    plain = [f.values for f in features(model, files, layer="stage1") if f.values is not None]
    mean = [f.values for f in features(model, files, layer="stage1", average=True) if f.values is not None]
    np.testing.assert_allclose(mean, [x.mean(axis=(1, 2)) for x in plain], rtol=1e-4, atol=1e-5)
    for layer, axis in (("pooled", 0), ("map", 0)):
        for one in features(model, files, layer=layer, normalise=True):
            if one.values is not None:
                np.testing.assert_allclose(np.linalg.norm(one.values, axis=axis), 1, rtol=1e-5)


def test_a_model_without_classes_has_features(files: list[Path]) -> None:
    model = small_model()
    model.reset_classifier(0)
    model.card = {"preprocessing": RECORD.to_dict()}
    (one,) = features(model, files[0])
    assert one.values is not None and one.values.shape == (model.num_features,)


def test_what_has_no_features(model: MViT, files: list[Path]) -> None:
    with pytest.raises(ValueError, match="layer='stage9' is none of pooled, map, stage1, stage2"):
        features(model, files, layer="stage9")
    with pytest.raises(ValueError, match="average=True is for maps"):
        features(model, files, average=True)


def test_what_is_skipped_is_not_read(model: MViT, files: list[Path]) -> None:
    done = {str(path) for path in files[1:4]}
    assert [a.file for a in predict(model, files, skip=done.__contains__)] == [str(files[0]), str(files[4])]
    assert [f.file for f in features(model, files[0].parent, skip=done.__contains__)] == [str(files[0]), str(files[4])]


def test_memory_does_not_grow_with_the_number_of_pictures(model: MViT) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((256, 256), 60).convert("RGB").save(buffer, "png")  # 192 KiB of pixels each

    def many(count: int) -> Iterator[bytes]:
        return (buffer.getvalue() for _ in range(count))

    for _ in predict(model, many(100), batch_size=16):
        pass
    before = process_gib()
    for _ in predict(model, many(400), batch_size=16):
        pass
    grown = (process_gib() - before) * 2**10
    assert grown < 40, f"{grown:.0f} MiB more after 400 pictures, which are 75 MiB"


def test_an_answer_for_programs_and_people(tmp_path: Path, files: list[Path]) -> None:
    answer = Prediction(str(files[0]), ("red", "green"), (0.75, 0.25), (0, 1))
    assert (answer.top1, answer.top5) == ("red", [("red", 0.75), ("green", 0.25)])
    assert json.loads(answer.to_json())["predictions"][1] == {"class": "green", "index": 1, "score": 0.25}
    answer.save(tmp_path / "seen.jpg")
    with Image.open(tmp_path / "seen.jpg") as seen:
        assert seen.width == 240 and seen.height > 180
    assert answer.plot(Image.new("L", (500, 100))).size[0] == 500
    failed = Prediction("x", error="is empty")
    assert (failed.top1, failed.top5) == (None, [])


@pytest.mark.parametrize("name", ["日本語 \u202e äöü", "a" * 500, "", "line\nbreak"])
def test_any_name_fits_below_a_picture(name: str) -> None:
    page = annotated(Image.new("RGBA", (50, 20)), [(name, 1.5), (name, -1.0), (name, 0.5)])
    assert page.mode == "RGB" and page.width == 240
