"""Loading processes that die are told with the file they were reading."""

import multiprocessing
import os
import re
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mvitv2.data.folder import ImageFolder
from mvitv2.data.images import ImageError
from mvitv2.data.samples import SampleKey, collate
from mvitv2.data.watched import Watched, WorkerDied, deaths_named


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
    assert re.search(r"DataLoader worker .*, reading .*dog/5\.png", text)
    assert cause in {"RuntimeError", "EOFError", "ConnectionResetError", "FileNotFoundError"}


def death_told(root: Path, number: int | None, workers: int) -> tuple[str, str]:
    """What is said of a process that dies, and which error of the loader it is said for."""
    watched = Watched(ImageFolder(root, Dying(number)), workers)
    try:
        with deaths_named(watched), deaths_named(watched):
            list(DataLoader(watched, 1, num_workers=workers, collate_fn=collate))
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


def told(root: Path, error: BaseException, *, pid: int = 41, index: int = 3) -> str | None:
    """What is said of an error while a process reads."""
    watched = Watched(ImageFolder(root), 1)
    watched._notes[0] = torch.tensor([pid, index])
    return watched.explained(error)


def test_signals_are_told_with_what_is_mostly_behind_them(root):
    killed = "DataLoader worker (pid 41) is killed by signal: Killed. \nOriginal ..."
    expected = f"DataLoader worker (pid 41) was ended by Killed (mostly, memory ran out), reading {root}/cat/3.png"
    assert told(root, RuntimeError(killed)) == expected
    full = "DataLoader worker (pid 41) is killed by signal: Bus error. It is possible that ..."
    assert "(mostly, shared memory is full)" in (told(root, RuntimeError(full)) or "")
    odd = "DataLoader worker (pid 41) is killed by signal: Hangup. "
    assert (
        told(root, RuntimeError(odd), index=-1) == "DataLoader worker (pid 41) was ended by Hangup, between two files"
    )


def test_a_process_that_dies_while_a_batch_is_fetched(root):
    assert told(root, ConnectionResetError(104, "x")) == f"DataLoader worker (pid 41) died, reading {root}/cat/3.png"


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), ValueError("x"), OSError("DataLoader worker (pid 41)")])
def test_other_errors_are_none_of_its_business(root, error):
    assert told(root, error) is None
    with pytest.raises(type(error)), deaths_named(Watched(ImageFolder(root), 1)):
        raise error
