"""Picture by picture: what is found, missed, made up; and the page that shows it."""

from pathlib import Path
from typing import Any

import pytest

from mvitv2.data.detection.open import read_annotations
from mvitv2.report.objects import report_on_detector, write_objects_report
from mvitv2.tasks.detect_evaluation import evaluate_detector
from mvitv2.tasks.detect_judged import best_threshold, judged

from .test_detect_tasks import BlobDetector, blobs, data
from .test_report import Balanced


def result(image: int, category: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def test_every_object_is_found_once_and_by_its_class(tmp_path: Path) -> None:
    truth = read_annotations(blobs(tmp_path, 3) / "all.json")[0]  # red (4) at 8, 8 + 4 i; blue (5) at 24, 80 or 56, 16
    results = [
        result(10, 4, [8, 8, 32, 24], 0.9),
        result(10, 4, [9, 8, 32, 24], 0.8),  # the same once more
        result(10, 5, [24, 80, 32, 24], 0.7),
        result(11, 5, [8, 12, 32, 24], 0.9),  # red taken for blue
        result(11, 5, [56, 16, 20, 24], 0.85),  # overlaps by 20 / 32
        result(11, 4, [8, 12, 15, 24], 0.8),  # by less than a half
    ]
    found = judged(truth, results, [10, 11, 12])
    assert found.threshold == 0.7
    told = [(int(truth.image_ids[one.row]), one.found, one.missed, one.false) for one in found.pictures]
    assert told == [(12, 0, 2, 0), (11, 1, 1, 2), (10, 2, 0, 1)]
    assert [one.f1 for one in found.pictures] == pytest.approx([0, 2 / 5, 4 / 5])
    assert len(judged(truth, results, [11]).pictures) == 1


def test_crowds_are_neither_found_nor_missed(tmp_path: Path) -> None:
    truth = read_annotations(blobs(tmp_path, 1) / "all.json")[0]
    truth.crowd[1] = True
    inside, beside = result(10, 4, [26, 82, 10, 10], 0.9), result(10, 4, [0, 120, 8, 8], 0.8)
    (picture,) = judged(truth, [result(10, 4, [8, 8, 32, 24], 0.5), inside, beside], [10]).pictures
    assert (picture.found, picture.missed, picture.false) == (1, 0, 1)


def test_the_score_that_counts() -> None:
    assert best_threshold([(0.9, True), (0.5, True), (0.4, False)], 2) == 0.5
    assert best_threshold([(0.9, True), (0.5, False), (0.5, True), (0.1, False)], 2) == 0.5  # equal scores go together
    assert best_threshold([(0.9, False), (0.5, False), (0.4, False)], 2) == 0.5  # none is right: as many as objects
    assert best_threshold([], 3) == best_threshold([(0.4, False)], 0) == 1.0


def test_the_page_of_a_detector(tmp_path: Path) -> None:
    folder = blobs(tmp_path)
    text = (folder / "all.json").read_text().replace('"red"', '"<script>red"')
    (folder / "all.json").write_text(text)
    model: Any = BlobDetector()
    dataset = data(folder, on_error="skip")
    (folder / "4.png").write_bytes(b"")
    found = evaluate_detector(model, dataset)
    history = [{"epoch": 1, "step": 2, "lr": 0.1, "train_loss": 2.0, "box_ap": 0.5, "mask_ap": 0.4}]
    run = {"history": history, "steps": [], "recipe": {"lr": 0.1, "name": "x"}, "summary": None}
    report = report_on_detector(model, dataset, found, title="Blobs & more", run=run)
    page = write_objects_report(tmp_path / "r.html", report).read_text()
    reader = Balanced()
    reader.feed(page)
    assert reader.open == [] and "<script" not in page and page.count("data:image/") == 2 * 4
    assert "100.0<small>box AP" in page and "2 of 2 found" in page and "Average precision by epoch" in page
    assert "4.png" in page and "could not be read" in page and "Recipe: every setting" in page and "Environment" in page
    assert "8 of 8 objects found, 0 false" in page and "&lt;script&gt;red" in page
