"""``python -m benchmarks.memory CASE CANDIDATE``: how much memory a step adds to a process, in a process of its own.

Prints bytes: the most that the process held during two steps, less what it held when the model was there. Linux only.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from .candidates import candidates
from .cases import Case

ROOT = Path(__file__).parents[1]
PROC = Path("/proc/self")


def held(name: str) -> int:
    """A line of ``/proc/self/status``, in bytes."""
    for line in (PROC / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{PROC / 'status'} has no line {name}")


def added(case: Case, name: str) -> int | None:
    """Peak bytes of a candidate, measured in a child process; ``None`` where that cannot be done."""
    if not (PROC / "clear_refs").exists():
        return None
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps(asdict(case)), name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return int(done.stdout.split()[-1]) if done.returncode == 0 and done.stdout.strip() else None


def main(argv: list[str]) -> int:
    """Run one candidate and print what it took."""
    import torch

    torch.set_num_threads(1)
    fields = json.loads(argv[0])
    case = Case(**{**fields, "shape": tuple(fields["shape"])})
    (candidate,) = (c for c in candidates(case) if c.name == argv[1])
    step = candidate.step("cpu")
    before = held("VmRSS")
    (PROC / "clear_refs").write_text("5")  # the peak begins again here
    step()
    step()
    sys.stdout.write(f"{held('VmHWM') - before}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
