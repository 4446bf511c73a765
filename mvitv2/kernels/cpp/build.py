"""Builds the C++ operators for this machine, once: a shared library in the cache folder, named by all it depends on."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

SOURCES = Path(__file__).parent
STANDARD = ("-std=c++20", "-O3", "-fPIC", "-shared", "-w")
INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma", "-mf16c"),
    "AVX2": ("-mavx2", "-mfma", "-mf16c"),
}
"""Flags for what ``torch.backends.cpu.get_cpu_capability()`` names; anything else runs without vectors of its own."""


class BuildError(RuntimeError):
    """The C++ operators cannot be had here; the message says why, and what to do."""


def library() -> Path:
    """The shared library with the operators, built if it is not there yet.

    Raises:
        BuildError: There is no compiler, or it failed.
    """
    compiler = find_compiler()
    command = [compiler, *flags(), str(SOURCES / "operators.cpp")]
    path = cache_folder() / f"operators-{key(command[:-1])}.so"  # equal sources share it, wherever they lie
    if path.exists():
        return path
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                compile_to(path, command)
    except OSError as error:
        raise BuildError(f"the C++ operators cannot be kept in {path.parent}: {error}; set MVITV2_CACHE") from error
    return path


def find_compiler() -> str:
    """``$CXX``, else the first of g++, clang++ and c++ on the path.

    Raises:
        BuildError: There is none, or the system is none that the build is written for.
    """
    if sys.platform == "win32":
        raise BuildError("the C++ operators are built on Linux and macOS; elsewhere PyTorch's own operators run")
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    for name in wanted:
        if found := shutil.which(name):
            return found
    raise BuildError(f"no C++ compiler: {', '.join(wanted)} not found; install g++ (or set CXX) for faster operators")


def flags() -> list[str]:
    """Everything between the compiler and the source: instructions of this machine, torch's headers and libraries."""
    capability = torch.backends.cpu.get_cpu_capability()
    name = capability if capability in INSTRUCTIONS else "DEFAULT"
    macros = [f"-DCPU_CAPABILITY={name}", f"-DCPU_CAPABILITY_{name}"]
    macros.append(f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}")
    torch_folder = Path(torch.__file__).parent
    includes = ["-isystem", str(torch_folder / "include")]
    libraries = [f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10"]
    if sys.platform == "darwin":
        libraries += ["-undefined", "dynamic_lookup"]
    else:
        libraries.append("-fopenmp")  # at::parallel_for is OpenMP's, from its header
    return [*STANDARD, *INSTRUCTIONS.get(name, ()), *bfloat16(name), *macros, *includes, *libraries]


def bfloat16(capability: str) -> list[str]:
    """Instructions for products of bfloat16: pairs in vectors, and the matrix units where the processor has them."""
    if capability != "AVX512" or not torch.cpu._is_avx512_bf16_supported():
        return []
    return ["-mavx512bf16", *(["-mamx-tile", "-mamx-bf16"] if torch.cpu._is_amx_tile_supported() else [])]


def key(command: list[str]) -> str:
    """Sources, command, torch and machine in sixteen digits."""
    digest = hashlib.sha256()
    for source in sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")]):
        digest.update(source.read_bytes())
    digest.update("\0".join([*command, torch.__version__, platform.machine(), sys.platform]).encode())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """``kernels`` beside downloaded weights: in ``MVITV2_CACHE``, or ``mvitv2`` in ``XDG_CACHE_HOME``, ``~/.cache``."""
    if chosen := os.environ.get("MVITV2_CACHE"):
        return Path(chosen).expanduser() / "kernels"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mvitv2" / "kernels"


def compile_to(path: Path, command: list[str]) -> None:
    """Run the compiler; the library appears under its name when it is whole.

    Raises:
        BuildError: The compiler failed; its last lines are in the message.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / path.name
        # libraries are looked up for the objects before them, so they come after the source
        source, options = command[-1], command[1:-1]
        done = subprocess.run(
            [command[0], source, *options, "-o", str(built)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-12:])
            raise BuildError(f"{command[0]} could not build the C++ operators:\n{last}")
        with built.open("rb") as whole:
            os.fsync(whole.fileno())
        built.replace(path)
