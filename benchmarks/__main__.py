"""``python -m benchmarks``: check parity, measure, print a table, keep the numbers as JSON."""

import datetime
import fnmatch
import json
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from mvitv2._version import __version__

from .cases import CASES, Case, contenders
from .measure import Timing, interleaved

ROOT = Path(__file__).parents[1]
GATE = (sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", "tests/parity")


@dataclass(frozen=True)
class Options:
    """Measure speed on this machine."""

    cases: str = "*"
    """Which cases, as a pattern: 'image-*'."""
    rounds: int = 5
    """How often every contender computes; medians are reported."""
    threads: int = 1
    """CPU threads; more than one measures the neighbours too."""
    output: Path = Path("runs/bench")
    """Folder for the numbers."""


def main(options: Options) -> int:
    """Run the benchmarks; the exit code is 0 if there is a report."""
    console = Console()
    chosen = [case for case in CASES if fnmatch.fnmatch(case.name, options.cases)]
    if not chosen:
        console.print(f"no case matches {options.cases!r}; there are: {', '.join(case.name for case in CASES)}")
        return 2
    console.print("parity first: the speed of wrong numbers is of no interest")
    if subprocess.run(GATE, cwd=ROOT, check=False).returncode != 0:
        console.print("parity tests fail: nothing is measured")
        return 1
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    results: dict[str, dict[str, Timing]] = {}
    for case in chosen:
        torch.manual_seed(0)
        results[case.name] = interleaved(contenders(case, device), rounds=options.rounds, device=device)
        console.print(table(case, results[case.name]))
    report = options.output / f"{datetime.date.today().isoformat()}-{device.type}.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps({**machine(options.threads, device), "results": as_json(results)}, indent=2) + "\n")
    console.print(f"numbers: {report}")
    return 0


def table(case: Case, timings: dict[str, Timing]) -> Table:
    """One row per contender, with its speed relative to the reference backend."""
    kind = "training step" if case.train else "forward"
    shown = Table(
        "who", "ms per batch", "spread", "times reference", "peak MB", title=f"{case.name}: {kind} {case.shape}"
    )
    for name, timing in timings.items():
        speed = timings["reference"].median / timing.median
        peak = "" if timing.peak_bytes is None else f"{timing.peak_bytes / 1e6:.0f}"
        shown.add_row(name, f"{1e3 * timing.median:.1f}", f"{timing.spread:.0%}", f"{speed:.2f}", peak)
    return shown


def machine(threads: int, device: torch.device) -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "date": datetime.date.today().isoformat(),
        "device": gpu or cpu_name(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mvitv2": __version__,
    }


def cpu_name() -> str:
    """The processor's name as Linux tells it, or what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def as_json(results: dict[str, dict[str, Timing]]) -> dict[str, dict[str, Any]]:
    """Plain numbers by case and contender."""
    return {case: {name: asdict(timing) for name, timing in rows.items()} for case, rows in results.items()}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
