"""Loading processes that die are told with the file they were reading."""

import multiprocessing
import os
import re
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mvitv2.data.folder import ImageFolder
from mvitv2.data.images import ImageError
from mvitv2.data.samples import SampleKey, collate
from mvitv2.data.watched import Watched, WorkerDied, deaths_named
from mvitv2.tasks.workers import loading


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight pictures, the sixth of them white."""
    for place in range(8):
        path = tmp_path / ("cat", "dog")[place // 4] / f"{place}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (255, 255, 255) if place == 5 else (place, 0, 0)).save(path)
    return tmp_path


class Dying:
    """A transform that a white picture is the end of."""

    def __init__(self, number: int | None) -> None:
        self.number = number

    def __call__(self, image: Image.Image) -> torch.Tensor:
        if image.getpixel((0, 0)) == (255, 255, 255):
            if self.number is None:
                os._exit(3)
            os.kill(os.getpid(), self.number)
            time.sleep(30)
        return torch.zeros(1)


@pytest.mark.parametrize("number", [signal.SIGKILL, None])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_file_that_kills_a_process_is_named(root, number, workers):
    # in a process of its own: torch tells of a death by an error at any moment, also between a lock and its release
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        text, cause = pool.submit(death_told, root, number, workers).result()
    assert re.search(r"DataLoader worker .*, reading .*dog/5\.png; ", text)
    assert cause in {"RuntimeError", "EOFError", "ConnectionResetError", "FileNotFoundError"}


def death_told(root: Path, number: int | None, workers: int) -> tuple[str, str]:
    """What is said of a process that dies, and which error of the loader it is said for."""
    try:
        with loading(ImageFolder(root, Dying(number)), [[index] for index in range(8)], collate, workers) as batches:
            list(batches)
    except WorkerDied as error:
        return str(error), type(error.__cause__).__name__
    return "no process died", ""


def test_items_are_the_same_and_errors_go_through(root):
    folder = ImageFolder(root, lambda image: torch.rand(1))
    watched = Watched(folder, 1)
    assert len(watched) == 8
    assert torch.equal(watched[SampleKey(2, 7)][0], folder[SampleKey(2, 7)][0])
    (root / "cat" / "1.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"cat/1\.png: is empty"), deaths_named(watched):
        watched[1]


def test_processes_end_with_an_error_that_is_looked_at(root):
    (root / "cat" / "1.png").write_bytes(b"")
    folder, keys = ImageFolder(root, lambda image: torch.rand(1)), [[index] for index in range(8)]
    with pytest.raises(ImageError, match="is empty"), loading(folder, keys, collate, 2) as batches:
        assert len(multiprocessing.active_children()) == 2
        list(batches)
    assert not multiprocessing.active_children()


def told(root: Path, error: BaseException, *, pid: int = 41, index: int = 3) -> str | None:
    """What is said of an error while a process reads."""
    return noted(ImageFolder(root), [(pid, index)]).explained(error)


def noted(dataset: Any, notes: list[tuple[int, int]]) -> Watched:
    """A data set whose processes have noted this: their own number, and the index that they are at."""
    watched = Watched(dataset, len(notes))
    watched._notes[:] = torch.tensor(notes)
    return watched


def test_signals_are_told_with_what_is_mostly_behind_them(root):
    killed = "DataLoader worker (pid 41) is killed by signal: Killed. \nOriginal ..."
    expected = f"DataLoader worker (pid 41) was ended by Killed (mostly, memory ran out), reading {root}/cat/3.png"
    assert told(root, RuntimeError(killed)) == f"{expected}; fewer workers need less"
    full = "DataLoader worker (pid 41) is killed by signal: Bus error. It is possible that ..."
    assert "(mostly, shared memory is full)" in (told(root, RuntimeError(full)) or "")
    odd = "DataLoader worker (pid 41) is killed by signal: Hangup. "
    between = told(root, RuntimeError(odd), index=-1) or ""
    assert between.startswith("DataLoader worker (pid 41) was ended by Hangup, between two files; fewer workers need")
    own = told(root, RuntimeError("DataLoader worker (pid 41) exited unexpectedly with exit code 3. Details are ..."))
    start = f"DataLoader worker (pid 41) exited unexpectedly with exit code 3, reading {root}/cat/3.png; fewer"
    assert (own or "").startswith(start)


def test_a_process_that_dies_while_a_batch_is_fetched(root):
    died = told(root, ConnectionResetError(104, "x")) or ""
    assert died.startswith(f"DataLoader worker (pid 41) died, reading {root}/cat/3.png; ")


def test_samples_that_are_no_files_are_told_by_their_place():
    killed = RuntimeError("DataLoader worker (pid 41) is killed by signal: Killed. ")
    assert ", reading sample 3 of the data; " in (noted([*range(8)], [(41, 3)]).explained(killed) or "")


def test_a_loader_within_another_leaves_a_death_to_the_one_whose_it_is(root):
    killed = RuntimeError("DataLoader worker (pid 41) is killed by signal: Killed. ")
    training, measuring = noted(ImageFolder(root), [(41, 3), (42, 4)]), noted(ImageFolder(root), [(43, -1)])
    with pytest.raises(WorkerDied, match=r"cat/3\.png"), deaths_named(training), deaths_named(measuring):
        raise killed
    early = noted(ImageFolder(root), [(43, -1), (-1, -1)])  # one that has not begun may be the one that died
    assert "between two files" in (early.explained(killed) or "")


def test_processes_write_their_notes_whatever_mode_the_main_one_is_in(root):
    with torch.inference_mode():
        watched = Watched(ImageFolder(root), 2)
    watched.begin(1)
    assert watched._notes.tolist() == [[-1, -1], [os.getpid(), -1]]


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), ValueError("x"), OSError("DataLoader worker (pid 41)")])
def test_other_errors_are_none_of_its_business(root, error):
    assert told(root, error) is None
    with pytest.raises(type(error)), deaths_named(Watched(ImageFolder(root), 1)):
        raise error
