"""``python -m benchmarks``: our backends beside the peers, in one run; nothing is reported while parity is red.

Candidates take turns in one process with equal threads, after one round that is not timed; medians, percentiles and
ratios are reported. A candidate that is not installed, or fails, stays in the table with the reason.
"""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch

from . import memory
from .candidates import Step, Unfit, candidates
from .cases import SETS, Case
from .compare import REFERENCE, falls, last_result, measure_of, read
from .limits import Limits, limits, operations, parameter_bytes
from .machine import describe
from .measure import interleaved

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PARITY = (
    "-q",
    "-m",
    "not slow",
    "-p",
    "no:cacheprovider",
    "tests/parity/test_outputs.py",
    "tests/parity/test_gradients.py",
)


def say(text: str) -> None:
    """To whoever reads along; the stream is the one of now, not that of the import."""
    sys.stdout.write(text)


def parity_is_green() -> bool:
    """Run the quick parity tests."""
    say("parity first ... ")
    sys.stdout.flush()
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *PARITY], cwd=ROOT, capture_output=True, text=True, check=False
    )
    say(f"{result.stdout.strip().splitlines()[-1]}\n")
    return result.returncode == 0


def entered(case: Case, arguments: argparse.Namespace) -> tuple[dict[str, Step], dict[str, str], dict[str, str]]:
    """The steps of those who can run a case, why others cannot, and the kind of each."""
    steps: dict[str, Step] = {}
    unfit: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for candidate in candidates(case):
        if not re.search(arguments.only, candidate.name):
            continue
        torch.manual_seed(0)
        try:
            step = candidate.step(arguments.device)
            step()
        except Unfit as error:
            unfit[candidate.name] = str(error)
        except (RuntimeError, ValueError, NotImplementedError, TypeError, ImportError) as error:
            unfit[candidate.name] = f"failed: {type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
        else:
            steps[candidate.name], kinds[candidate.name] = step, candidate.kind
    return steps, unfit, kinds


def measured(case: Case, arguments: argparse.Namespace, limit: Limits) -> dict[str, Any]:
    """One case as it is stored."""
    steps, unfit, kinds = entered(case, arguments)
    timings = interleaved(steps, rounds=arguments.rounds, device=arguments.device, clock=arguments.clock)
    on_cpu = arguments.memory and arguments.device == "cpu"
    rows: dict[str, dict[str, Any]] = {}
    for name, t in timings.items():
        peak = memory.added(case, name) if on_cpu else t.peak_bytes
        ours = kinds[name] != "context"
        rows[name] = {
            **asdict(t),
            "kind": kinds[name],
            "peak_bytes": peak,
            "per_second": case.batch / t.median,
            "flops_fraction": operations(case) / t.median / limit.flops[case.dtype] if ours else None,
            "bandwidth_fraction": parameter_bytes(case) / t.median / limit.bandwidth if ours else None,
        }
    return {"name": case.name, **asdict(case), "timings": rows, "unfit": unfit}


def table(case: dict[str, Any]) -> str:
    """One case for a reader."""
    rows = case["timings"]
    peer = measure_of(rows)
    fastest = None if peer is None else rows[peer]["median"]
    beside = "x ref." if peer == REFERENCE else "x peer"
    head = f"  {'':24} {'median':>10} {'p10 .. p90 (p99)':>30} {'per s':>8} {beside:>7} {'of peak':>8} {'memory':>10}"
    lines = [case["name"], head]
    for name, row in sorted(rows.items(), key=lambda item: item[1]["median"]):
        low, high, slow = (1e3 * row[key] for key in ("low", "high", "slowest"))
        ratio = f"{fastest / row['median']:6.2f}x" if fastest else ""
        share = "" if row["flops_fraction"] is None else f"{row['flops_fraction']:7.1%}"
        peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:6.0f} MiB"
        spread = f"{low:9.1f} .. {high:.1f} ({slow:.1f})"
        line = f"  {name:24} {row['median'] * 1e3:7.1f} ms {spread:>30} {row['per_second']:8.2f}"
        lines.append(f"{line} {ratio:>7} {share:>8} {peak:>10}")
    lines += [f"  {name:24} not measured: {reason}" for name, reason in case["unfit"].items()]
    return "\n".join(lines)


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--set", choices=SETS, default="quick", help="which cases (default: quick)")
    parser.add_argument("--case", default="", help="only cases whose name this pattern finds")
    parser.add_argument("--only", default="", help="only candidates whose name this pattern finds")
    parser.add_argument("--rounds", type=int, default=7, help="times each candidate is measured (default: 7)")
    parser.add_argument("--threads", type=int, help="threads of every candidate (default: torch's own)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: the process's own time")
    parser.add_argument("--memory", action="store_true", help="peak memory on a CPU, each candidate in its own process")
    parser.add_argument("--compare", nargs="?", const="last", help="a stored result (default: the last); 1 if slower")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON file and the table")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, store, and compare with what was stored before."""
    arguments = parsed(argv)
    name = f"{arguments.set}-{arguments.device}"
    earlier = last_result(arguments.output, name) if arguments.compare == "last" else arguments.compare
    before = read(Path(earlier)) if earlier else None
    if arguments.compare and before is None:
        sys.stderr.write(f"there is no result of {name} in {arguments.output} to compare with\n")
        return 2
    chosen = [case for case in SETS[arguments.set] if re.search(arguments.case, case.name)]
    if not chosen:
        sys.stderr.write(f"no case of the set {arguments.set} is found by {arguments.case!r}\n")
        return 2
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("torch sees no CUDA device; measure on one, or with --device cpu\n")
        return 2
    if not parity_is_green():
        sys.stderr.write("parity is red: a fast wrong number is not reported\n")
        return 1
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    limit = limits(arguments.device, arguments.clock)
    keys = ("set", "case", "only", "rounds", "device", "clock")
    record: dict[str, Any] = {
        "date": str(date.today()),
        "machine": describe(),
        "settings": {key: getattr(arguments, key) for key in keys},
        "limits": asdict(limit),
        "cases": [],
    }
    path = arguments.output / f"{record['date']}-{name}.json"
    text = [heading(record)]
    say(f"\n{text[0]}\n")
    for case in chosen:
        record["cases"].append(measured(case, arguments, limit))
        text.append(table(record["cases"][-1]))
        say(f"\n{text[-1]}\n")
        sys.stdout.flush()
        stored(record, text, path)  # a long run that is stopped keeps what it measured
    say(f"\n{path}\n")
    worse = list(falls(before, record)) if before else []
    for fall in worse:
        sys.stderr.write(f"slower: {fall}\n")
    return 1 if worse else 0


def heading(record: dict[str, Any]) -> str:
    """Hardware, versions and limits in two lines."""
    machine, limit = record["machine"], record["limits"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    devices = ", ".join(machine["devices"]) or f"{machine['processor']} ({machine['products']})"
    rates = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in limit["flops"].items() if name != "autocast")
    threads = f"{machine['threads']} threads, {record['settings']['clock']} time, {record['date']}"
    return f"{devices}; {threads}; {versions}\nmeasured: {rates}, copying {limit['bandwidth'] / 1e9:.1f} GB/s"


def stored(record: dict[str, Any], text: list[str], path: Path) -> None:
    """Write the record, and the table beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".txt").write_text("\n\n".join(text) + "\n")


if __name__ == "__main__":
    sys.exit(main())
