"""``mvitv2 check`` on pictures with boxes, as one types it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvitv2.cli.__main__ import main

CIRCLE = [[float(v) for a in np.linspace(0, 6.28, 20) for v in (30 + 12 * np.cos(a), 30 + 12 * np.sin(a))]]


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch) -> None:
    """A folder and a cache of its own."""
    monkeypatch.setenv("MVITV2_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def scenes(split: str, count: int, **changes: Any) -> None:
    """Pictures of noise with a ball and a block each, and their COCO file."""
    chance = np.random.default_rng(len(split))
    images, notes = [], []
    for i in range(count):
        values = chance.normal((124, 116, 104), 60, (12, 16, 3)).clip(0, 255).astype(np.uint8)
        path = Path("photos") / split / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).resize((96, 72), Image.Resampling.BICUBIC).save(path)
        images.append({"id": i, "file_name": path.name, "width": 96, "height": 72})
        for label, box, shape in (
            (1, [18, 18, 24, 24], CIRCLE),
            (2, [50, 8, 40, 30], [[50, 8, 90, 8, 90, 38, 50, 38]]),
        ):
            note = {"id": len(notes), "image_id": i, "category_id": label, "bbox": box, "segmentation": shape}
            notes.append(note | {"area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": 1, "name": "ball"}, {"id": 2, "name": "block"}]
    content = {"images": images, "annotations": notes, "categories": categories}
    for name, change in changes.items():
        change(content[name])
    Path(f"photos/{split}.json").write_text(json.dumps(content))


def test_clean_data(capsys):
    scenes("train", 6)
    scenes("val", 2)
    assert main(["check", "photos"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.endswith("nothing wrong was found\n")
    lines = [line.split() for line in out.splitlines()]
    assert ["train", "12", "0", "12", "6", "6", "0", "0"] in lines and [
        "val",
        "4",
        "0",
        "4",
        "2",
        "2",
        "0",
        "0",
    ] in lines
    assert ["ball", "6", "2", "#" * 30] in lines


def test_every_fault_is_counted(capsys):
    def spoil(notes: list[dict[str, Any]]) -> None:
        notes[0]["bbox"] = [200, 0, 5, 5]
        notes[1]["bbox"] = [50, 8, 0, 30]
        notes[2]["category_id"] = 7
        notes[3]["id"] = notes[4]["id"]
        notes[5]["bbox"] = [1, 40, 10, 10]  # somewhere else than its mask
        notes[6]["segmentation"] = [[1, 2]]

    def lose(images: list[dict[str, Any]]) -> None:
        images[3] |= {"width": 72, "height": 96}
        images[4]["file_name"] = "nowhere.png"
        images[5]["file_name"] = "../../elsewhere.png"

    scenes("train", 12, annotations=spoil, images=lose)
    scenes("val", 2)
    assert main(["check", "photos", "--json", "report.json", "--html", "report.html"]) == 3
    out = capsys.readouterr().out
    for sentence in (
        "warning: 1 boxes outside their picture in train; they are left out\n    annotation 0 of 0.png: x 200",
        "warning: 1 boxes without area in train",
        "warning: 1 annotations of unknown categories in train",
        "warning: 1 annotations with the id of another; new ids are given in train",
        "warning: 1 masks that mean nothing; their boxes are kept in train",
        "warning: 1 box of train that do not fit their mask\n    2.png: block at x 1, y 40",
        "warning: 1 pictures outside the folder in train; they are left out\n    picture 5: ../../elsewhere.png",
        "warning: 2 annotations of pictures that are not listed in train",
        "warning: 1 picture of train cannot be read (9.1 %)",
        "warning: 1 picture of train of another size than annotated (1 lie on their side",
        "warning: 1 object of train without a mask",
    ):
        assert sentence in out, sentence
    report = json.loads(Path("report.json").read_text())
    facts = report["splits"]["train"]
    assert report["exit_code"] == 3 and facts["objects"] == 24 - 3 - 2 and facts["counts"] == {"ball": 9, "block": 10}
    page = Path("report.html").read_text()
    assert "1 ball, 1 block" in page and "Objects of each class" in page
    assert '<td>objects</td><td class="n">19</td>' in page
    kinds = {finding["kind"]: finding["count"] for finding in report["findings"]}
    assert kinds["outside"] == kinds["empty"] == kinds["size"] == 1 and kinds["orphan"] == 2


def test_training_cannot_start(capsys):
    scenes("train", 3, annotations=lambda notes: [note.update(category_id=9) for note in notes])
    assert main(["check", "photos"]) == 1
    out = capsys.readouterr().out
    assert "problem: training cannot open it: photos has no boxes of val" in out
    assert "problem: 6 annotations of unknown categories in train" in out and "problem: train has no objects" in out
    assert main(["check", "photos/train.json", "--need"]) == 1
    Path("photos/train.json").write_text("{")
    assert main(["check", "photos", "--task", "detect"]) == 1
    assert "no annotations of boxes" in capsys.readouterr().err
    scenes("val", 2)
    assert main(["check", "photos/val.json", "--need", "--label-column", "x"]) == 1
    assert "--label-column are of no use for boxes" in capsys.readouterr().err


def test_a_sheet(capsys):
    scenes("train", 3)
    scenes("val", 1)
    assert main(["check", "photos", "--show", "2"]) == 3  # three are few for a class
    assert "sheet.png: 2 samples as training sees them" in capsys.readouterr().out
    sheet = np.asarray(Image.open("sheet.png").convert("RGB"))
    for colour in ((230, 159, 0), (86, 180, 233)):  # of both classes, on four pictures
        assert (sheet == colour).all(axis=2).sum() > 300
    again = Image.open("sheet.png").tobytes()
    main(["check", "photos", "--show", "2"])
    assert Image.open("sheet.png").tobytes() == again


def test_ones_own_boxes():
    scenes("train", 2)
    lines = [{"file": f"train/{i}.png", "boxes": [[18, 18, 42, 42]], "labels": ["ball"]} for i in range(2)]
    Path("photos/train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    Path("photos/train.json").unlink()
    assert main(["check", "photos", "--need", "train", "--min-images", "1", "--json", "r.json"]) == 0
    assert json.loads(Path("r.json").read_text())["splits"]["train"]["counts"] == {"ball": 2}
