"""``python -m tests.faults [--long]``: all faults one after the other, as a table."""

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

from ..e2e.training_job import Child
from .scenarios import SCENARIOS


def main() -> int:
    """Run them; the exit code is the number of those that failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--long", action="store_true", help="each fault many times")
    long = parser.parse_args().long
    failures = 0
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        Child(whole).end()
        for number, (name, (fault, short_times, long_times)) in enumerate(SCENARIOS.items()):
            folder, started = Path(place) / str(number), time.monotonic()
            folder.mkdir()
            try:
                told = fault(folder, whole, long_times if long else short_times)
            except PermissionError as error:
                told = f"left out: {error}"
            except Exception as error:
                told = f"FAILED: {type(error).__name__}: {error} in {traceback.format_exc().splitlines()[-3:-1]}"
                failures += 1
            print(f"| {name} | {told} | {time.monotonic() - started:.0f} s |", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(main())
