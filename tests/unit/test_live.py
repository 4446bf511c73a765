"""The page of a run that is under way: it follows, survives an interruption, and stops reading itself at the end."""

from pathlib import Path

import pytest

from mvitv2.report.live import AGAIN, MOST_POINTS, LivePage, halved
from mvitv2.train.loop import fit
from mvitv2.train.progress import Together
from mvitv2.train.recipe import overridden
from mvitv2.train.settings import Settings

from ..e2e.training_job import small_job
from .test_trackers import Killed, Killer
from .test_train_loop import PLAIN

RECIPE = overridden(PLAIN, {"epochs": 3})
REFRESH = f'<meta http-equiv="refresh" content="{AGAIN}">'


def live(folder: Path) -> LivePage:
    return LivePage(folder, title="a <run>", recipe=RECIPE.to_dict())


def test_it_follows_a_run_and_its_resumption(tmp_path: Path) -> None:
    settings = Settings(output=tmp_path, save_steps=3)
    with pytest.raises(Killed):
        fit(small_job(), RECIPE, settings, Together(live(tmp_path), Killer(12)))
    stopped = (tmp_path / "report.html").read_text()
    assert "step 12 of 15, stopped; the same command goes on" in stopped and "80<small>% done" in stopped
    assert "a &lt;run&gt;" in stopped and REFRESH not in stopped

    seen: list[str] = []

    class Reader(LivePage):
        def write(self, *, running: bool = True) -> None:
            super().write(running=running)
            seen.append((tmp_path / "report.html").read_text())

    page = Reader(tmp_path, title="a <run>", recipe={})
    fit(small_job(), RECIPE, settings, page)
    assert all(REFRESH in text for text in seen[:-1]) and REFRESH not in seen[-1]
    assert "step 10 of 15, training" in seen[0] and "Epoch</dt><dd>3 of 3" in seen[0]
    assert "step 15 of 15, finished" in seen[-1]
    assert [point["step"] for point in page.points] == list(range(1, 16))
    assert [row["epoch"] for row in page.history] == [1, 2, 3]
    assert seen[-1].count("<svg") == 4


def test_a_long_run_keeps_few_points(tmp_path: Path) -> None:
    page = live(tmp_path)
    page.start(step=0, steps=10 * MOST_POINTS, epochs=1)
    for step in range(1, 3 * MOST_POINTS):
        page.step({"step": step, "epoch": 1, "loss": 1.0, "lr": 1e-3, "images_per_second": 1.0})
    assert MOST_POINTS / 2 <= len(page.points) <= MOST_POINTS
    assert halved([{"step": 1, "loss": 1.0}, {"step": 2, "loss": 3.0}, {"step": 3, "loss": 7.0}]) == [
        {"step": 1.5, "loss": 2.0},
        {"step": 3.0, "loss": 7.0},
    ]


def test_a_page_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    page = live(tmp_path / "nowhere")
    page.start(step=0, steps=1, epochs=1)
    page.close()
    assert not (tmp_path / "nowhere").exists()
