"""``mvitv2 bench``: how fast this package is on this machine, beside its peers."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

EXAMPLES = """\
  mvitv2 bench                              # two small settings, a few minutes
  mvitv2 bench --set main --clock cpu --threads 1
  mvitv2 bench --set gpu --device cuda
  mvitv2 bench --set detection --memory     # detection backbones at 1024 x 1024
  mvitv2 bench --compare last               # exit code 1 if we became slower against the fastest peer
"""
CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure, and how."""

    set: Literal["quick", "main", "full", "gpu", "detection", "video"] = "quick"
    """Which settings: two small ones, those of the README, all for a CPU, all for a GPU, backbones of detectors, models
    of clips in both directions."""
    case: str = ""
    """Only settings whose name this pattern finds, as "float32 inference"."""
    only: str = ""
    """Only candidates whose name this pattern finds, as "timm|auto"."""
    rounds: int = 7
    """Times each candidate is measured; they take turns."""
    threads: int | None = None
    """Threads of every candidate; torch's own number if not given."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""
    clock: Literal["wall", "cpu"] = "wall"
    """"cpu" is the process's own time, for machines that others use as well."""
    memory: bool = False
    """Peak memory on a CPU too: every candidate once more, in a process of its own."""
    compare: str | None = None
    """A stored result to compare ratios with, or "last"."""
    output: Path | None = None
    """Folder of the results; benchmarks/results if not given."""


def run(options: Options) -> int:
    """Run the benchmark of the source checkout.

    Raises:
        FileNotFoundError: This is an installed package: the benchmark lies beside its sources and tests.
    """
    if not (CHECKOUT / "benchmarks" / "__main__.py").exists():
        raise FileNotFoundError(
            f"no benchmarks beside {CHECKOUT / 'mvitv2'}: they measure only where the parity tests are, in a source "
            "checkout; clone the repository and run mvitv2 bench there"
        )
    return subprocess.run([sys.executable, "-m", "benchmarks", *words(options)], cwd=CHECKOUT, check=False).returncode


def words(options: Options) -> list[str]:
    """The same for ``python -m benchmarks``."""
    given = [
        "--set",
        options.set,
        "--rounds",
        str(options.rounds),
        "--device",
        options.device,
        "--clock",
        options.clock,
    ]
    for name, value in (("case", options.case), ("only", options.only), ("compare", options.compare)):
        given += [f"--{name}={value}"] if value else []
    given += ["--threads", str(options.threads)] if options.threads else []
    given += ["--output", str(options.output.absolute())] if options.output else []
    return [*given, "--memory"] if options.memory else given
