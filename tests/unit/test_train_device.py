"""Augmentation on the device is part of a run: by recipe or command line, the same after a stop."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from mvitv2.train.jobs import train
from mvitv2.train.progress import Together, silent
from mvitv2.train.recipe import Recipe, overridden
from mvitv2.train.recipes import recipe
from mvitv2.train.settings import Settings

from .test_trackers import Killed, Killer

pytest.importorskip("torchvision")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for split, count in (("train", 12), ("val", 2)):
        for number, name in enumerate(("a", "b")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (36, 40), (20 * i, 200 * number, 90)).save(
                    tmp_path / "data" / split / name / f"{i}.png"
                )
    return tmp_path / "data"


def chosen(**changes: object) -> Recipe:
    small = {"epochs": 2, "warmup_epochs": 0.5, "batch_size": 8, "stages.depths": "1,1", "stages.embed_dim": "8"}
    device = {"augmentation": {"kind": "device", "policy": "rand-m9-n2", "erase_probability": 0.5}}
    return overridden(recipe("digits"), {**small, **device, **changes})


def losses(outcome_folder: Path) -> list[float]:
    from mvitv2.train.folder import read_metrics

    return [line["loss"] for line in read_metrics(outcome_folder)]


def test_a_run_with_it_goes_on_exactly(photos: Path, tmp_path: Path) -> None:
    whole = train(photos, chosen(), Settings(output=tmp_path / "whole"))
    with pytest.raises(Killed):
        settings = Settings(output=tmp_path / "cut", save_steps=1)
        train(photos, chosen(), settings, Together(silent(), Killer(4)))
    again = train(photos, chosen(), Settings(output=tmp_path / "cut"))
    assert losses(again.folder) == losses(whole.folder)
    first, second = (torch.load(folder / "last.pt")["model"] for folder in (whole.folder, again.folder))
    assert all(torch.equal(first[name], second[name]) for name in first)
    plain = train(photos, chosen(augmentation={"kind": "none"}), Settings(output=tmp_path / "plain"))
    assert losses(plain.folder) != losses(whole.folder)


def test_what_it_cannot_do(photos: Path, tmp_path: Path) -> None:
    for fields, part in (({"policy": "augmix-m5"}, "not done on the device"), ({"strength": 1}, "no such field")):
        with pytest.raises(ValueError, match=part):
            train(photos, chosen(augmentation={"kind": "device", **fields}), Settings(output=tmp_path / "run"))
