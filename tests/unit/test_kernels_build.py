"""The C++ operators are built once and kept; without a compiler everything runs, and says why it is slower."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mvitv2.kernels import cpp
from mvitv2.kernels.cpp import build
from mvitv2.models import create_model

RUN = """
import sys, torch
from mvitv2.kernels import cpp
from mvitv2.core.attend import reference
if cpp.missing(): sys.exit(cpp.missing())
torch.manual_seed(0)
q, k, v = (torch.randn(2, 2, n, 20, requires_grad=True) for n in (13, 7, 7))
terms = [torch.randn(2, 2, 12, n, requires_grad=True) for n in (2, 3)]
for given in ((q, k, v, terms), (q, k, v, [])):
    found, wanted = cpp.attend(*given), reference(*given)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    ours, theirs = (torch.autograd.grad(x.square().sum(), [q, k, v]) for x in (found, wanted))
    for a, b in zip(ours, theirs): torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
print(torch.backends.cpu.get_cpu_capability())
"""


def run(**environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", RUN], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_without_a_compiler_the_reason_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("MVITV2_CACHE", str(tmp_path))
    with pytest.raises(cpp.BuildError, match=r"no-such-compiler not found; install g\+\+"):
        build.library()
    done = run(CXX="no-such-compiler", MVITV2_CACHE=str(tmp_path))
    assert done.returncode == 1
    assert "no C++ compiler" in done.stderr


def test_what_the_compiler_says_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "compiler"
    broken.write_text("#!/bin/sh\necho 'operators.cpp:1: no space for vectors' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("MVITV2_CACHE", str(tmp_path / "cache"))
    with pytest.raises(cpp.BuildError, match="no space for vectors"):
        build.library()
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_a_folder_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not cpp.available():  # asked, and remembered, before the folder is taken away
        pytest.skip(str(cpp.missing()))
    occupied = tmp_path / "file"
    occupied.write_text("")
    monkeypatch.setenv("MVITV2_CACHE", str(occupied))
    with pytest.raises(cpp.BuildError, match="set MVITV2_CACHE"):
        build.library()


def test_auto_runs_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels = create_model("mvitv2_t", img_size=32, num_classes=3).eval(), torch.randn(1, 3, 32, 32)
    wanted = model(pixels)
    monkeypatch.setattr(importlib.import_module("mvitv2.kernels.auto"), "compiled", lambda: False)
    torch.testing.assert_close(model(pixels), wanted, rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(model(pixels), wanted, rtol=1e-4, atol=1e-5)


def test_the_key_knows_sources_and_command() -> None:
    assert build.key(["g++", "-O3"]) == build.key(["g++", "-O3"]) != build.key(["g++", "-O2"])


def test_import_builds_nothing(tmp_path: Path) -> None:
    code = "import mvitv2, mvitv2.kernels; mvitv2.create_model('mvitv2_t')"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "MVITV2_CACHE": str(tmp_path)}, check=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_other_vectors_compute_the_same(capability: str) -> None:
    """Built where all builds are kept, so once per machine and source."""
    if not cpp.available():
        pytest.skip(str(cpp.missing()))
    done = run(ATEN_CPU_CAPABILITY=capability)
    assert done.returncode == 0, done.stderr
    assert capability.upper() in done.stdout


COMPILER = """#!/bin/sh
echo called >> "{calls}"
sleep 2
while [ "$1" != "-o" ]; do shift; done
cp "{library}" "$2"
"""


def test_builds_at_the_same_time_do_not_meet(tmp_path: Path) -> None:
    """Two processes, one run of a slow compiler, one library for both; it brings what was built before."""
    if not cpp.available():
        pytest.skip(str(cpp.missing()))
    calls, compiler, cache = tmp_path / "calls", tmp_path / "compiler", tmp_path / "cache"
    compiler.write_text(COMPILER.format(calls=calls, library=build.library()))
    compiler.chmod(0o755)
    environment = {**os.environ, "MVITV2_CACHE": str(cache), "CXX": str(compiler)}
    both = [subprocess.Popen([sys.executable, "-c", RUN], env=environment, text=True) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert len(list(cache.rglob("*.so"))) == 1
    assert calls.read_text().split() == ["called"]
