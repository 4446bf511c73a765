"""``python -m benchmarks``: our backends beside the peers, in one run; nothing is reported while parity is red."""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch

from .cases import SETS, Case, candidates, step_of
from .machine import describe
from .measure import Timing, interleaved

ROOT = Path(__file__).parents[1]
PARITY = (
    "-q",
    "-m",
    "not slow",
    "-p",
    "no:cacheprovider",
    "tests/parity/test_outputs.py",
    "tests/parity/test_gradients.py",
)


def parity_is_green() -> bool:
    """Run the quick parity tests."""
    sys.stdout.write("parity first ... ")
    sys.stdout.flush()
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *PARITY], cwd=ROOT, capture_output=True, text=True, check=False
    )
    sys.stdout.write(f"{result.stdout.strip().splitlines()[-1]}\n")
    return result.returncode == 0


def measured(case: Case, arguments: argparse.Namespace) -> dict[str, Timing]:
    """All candidates of a case, in turns."""
    torch.manual_seed(0)
    steps = {name: step_of(case, model, arguments.device) for name, model in candidates(case).items()}
    return interleaved(steps, rounds=arguments.rounds, device=arguments.device, clock=arguments.clock)


def table(case: Case, timings: dict[str, Timing]) -> str:
    """One case for a reader: milliseconds per step, inputs per second, and how much faster than the fastest peer."""
    peers = [t.median for name, t in timings.items() if not name.startswith("mvitv2")]
    lines = [case.name]
    for name, t in sorted(timings.items(), key=lambda item: item[1].median):
        ratio = f"{min(peers) / t.median:5.2f}x" if peers else ""
        spread = f"{t.low * 1e3:8.1f} .. {t.high * 1e3:8.1f}"
        memory = "" if t.peak_bytes is None else f"{t.peak_bytes / 2**20:9.0f} MiB"
        lines.append(f"  {name:20} {t.median * 1e3:9.1f} ms ({spread}) {case.batch / t.median:9.2f}/s {ratio}{memory}")
    return "\n".join(lines)


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--set", choices=SETS, default="quick", help="which cases (default: quick)")
    parser.add_argument("--rounds", type=int, default=7, help="times each candidate is measured (default: 7)")
    parser.add_argument("--threads", type=int, help="threads of every candidate (default: torch's own)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: the process's own time")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON file")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print and store."""
    arguments = parsed(argv)
    if not parity_is_green():
        sys.stderr.write("parity is red: a fast wrong number is not reported\n")
        return 1
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    record: dict[str, Any] = {
        "date": str(date.today()),
        "machine": describe(),
        "settings": _settings(arguments),
        "cases": [],
    }
    for case in SETS[arguments.set]:
        timings = measured(case, arguments)
        sys.stdout.write(f"\n{table(case, timings)}\n")
        record["cases"].append({**asdict(case), "timings": {name: asdict(t) for name, t in timings.items()}})
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{record['date']}-{arguments.set}-{arguments.device}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    sys.stdout.write(f"\n{path}\n")
    return 0


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"set": arguments.set, "rounds": arguments.rounds, "device": arguments.device, "clock": arguments.clock}


if __name__ == "__main__":
    sys.exit(main())
