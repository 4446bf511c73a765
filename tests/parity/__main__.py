"""Fixtures from the command line, also ones that nobody here has seen.

``python -m tests.parity outputs FIXTURE.json OUT.npz``: run a fixture of a backbone and write what it names. Its
configuration, tensors and inputs are all that is used; expected values may be missing.

``python -m tests.parity detector FIXTURE.json ...``: compare everything that fixtures of whole detectors say; a
difference makes the exit status 1.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mvitv2.kernels import BACKENDS

from . import parity_weights as pw
from .build import load
from .detector_compare import compared
from .run import arrays, numpy_arrays


def outputs(arguments: argparse.Namespace) -> int:
    """Write every output of a fixture, and the taps there are, as arrays."""
    case = load(arguments.fixture, dtype=getattr(torch, arguments.precision), attend=BACKENDS[arguments.backend])
    found = numpy_arrays(arrays(case))
    missing = [name for name in case.fixture["outputs"] if name not in found]
    named = {*case.fixture["outputs"], *case.fixture.get("expected", {}).get(arguments.precision, found)}
    arrays_named: dict[str, Any] = {name: value for name, value in found.items() if name in named}
    np.savez(arguments.out, **arrays_named)
    sys.stdout.write(f"{arguments.out}: {len(named & found.keys())} arrays in {arguments.precision}\n")
    if missing:
        sys.stderr.write(f"not produced: {', '.join(missing)}\n")
        return 1
    if arguments.precision not in case.fixture.get("expected", {}):
        return 0
    report = pw.compare(case.fixture, found, precision=arguments.precision)
    sys.stdout.write(f"worst difference from the fixture {report['worst']:.2e}, tolerance {report['tol']:.2e}\n")
    return 0 if report["ok"] else 1


def detector(arguments: argparse.Namespace) -> int:
    """One line for every section of every fixture."""
    wrong = 0
    for path in arguments.fixtures:
        for line in compared(path):
            wrong += not line.ok
            sys.stdout.write(f"{'ok ' if line.ok else 'BAD'} {path.name}: {line.section}: {line.text}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{wrong} sections differ\n" if wrong else "no section differs\n")
    return 1 if wrong else 0


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("outputs", help="write the arrays a fixture names")
    command.add_argument("fixture", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("--precision", choices=("float64", "float32"), default="float64")
    command.add_argument("--backend", choices=sorted(BACKENDS), default="reference")
    command.set_defaults(run=outputs)
    command = commands.add_parser("detector", help="compare whole detectors with their fixtures")
    command.add_argument("fixtures", type=Path, nargs="+")
    command.set_defaults(run=detector)
    arguments = parser.parse_args(argv)
    return arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
