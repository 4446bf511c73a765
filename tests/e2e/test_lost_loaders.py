"""Commands whose loading process is killed from outside: one line that names the file, and training goes on after."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import mvitv2
from mvitv2.train import checkpoint

from .training_job import LIMIT, children_of

LARGE = "large.png"
"""A picture that takes long enough to read that its reader can be found."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of two classes to train with, two to measure on, one of either large."""
    root = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 4), ("val", 1)):
        for place in range(2 * count):
            path = root / split / ("cat", "dog")[place % 2] / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (20 * place, 90, 0)).save(path)
        Image.new("RGB", (6000, 6000), (9, 9, 200)).save(root / split / "dog" / LARGE)
    return root


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    code, told = ended(started(training(photos, folder)))
    assert code == 0, told
    return folder


def training(photos: Path, folder: Path) -> list[str]:
    words = ["train", str(photos), "--recipe", "digits", "--epochs", "2", "--warmup-epochs", "0", "--batch-size", "3"]
    words += ["--workers", "1", "--save-minutes", "0.00001", "--no-report", "log=none", "--set", "stages.depths=1,1"]
    return [*words, "--device", "cpu", "--output", str(folder)]


def started(words: list[str]) -> "subprocess.Popen[str]":
    """A command."""
    own = {"PYTHONPATH": str(Path(mvitv2.__file__).parents[1]), "OMP_NUM_THREADS": "1", "CXX": "false"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "mvitv2", *words], env={**os.environ, **own}, **pipes)


def ended(command: "subprocess.Popen[str]") -> tuple[int, str]:
    """Its exit code, and what it said."""
    _, told = command.communicate(timeout=LIMIT)
    return command.returncode, told


def kill_reader(command: "subprocess.Popen[str]", *, after: Path | None = None) -> None:
    """Kill the loading process that reads the large picture, once a file is there."""
    end = time.monotonic() + LIMIT
    try:
        while command.poll() is None and time.monotonic() < end:
            for pid in children_of(command.pid):
                if (after is None or after.exists()) and reads(pid):
                    os.kill(pid, signal.SIGKILL)
                    return
            time.sleep(0.002)
    except PermissionError as error:
        command.kill()
        pytest.skip(str(error))
    pytest.fail(f"no process of it reads {LARGE}: {ended(command)}")


def reads(pid: int) -> bool:
    """Whether a process has the large picture open."""
    try:
        return any(str(link.readlink()).endswith(LARGE) for link in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:  # it closed one meanwhile, or has ended
        return False


def the_error(code: int, told: str) -> str:
    """The line that a command ends with."""
    lines = [line for line in told.splitlines() if line.startswith("error: ")]
    assert (code, len(lines), "Traceback" in told, "bug" in told) == (1, 1, False, False), told
    return lines[0]


def test_training_names_the_file_and_goes_on(photos: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = started(training(photos, folder))
    kill_reader(command, after=folder / "last.pt")
    line = the_error(*ended(command))
    assert re.search(rf"DataLoader worker .*, reading {photos}/train/dog/{LARGE}; .* the same command goes on", line)
    code, told = ended(started([*training(photos, folder), "--resume", "must"]))
    assert code == 0, told
    mine, its = (checkpoint.read(path / "last.pt")["model"] for path in (folder, whole))
    assert all(torch.equal(value, its[name]) for name, value in mine.items())
    assert (folder / "best.safetensors").read_bytes() == (whole / "best.safetensors").read_bytes()


def test_evaluation_names_the_file(photos: Path, whole: Path) -> None:
    command = started(["eval", str(whole), str(photos), "--workers", "1", "--batch-size", "1", "--device", "cpu"])
    kill_reader(command)
    assert f", reading {photos}/val/dog/{LARGE}; " in the_error(*ended(command))
