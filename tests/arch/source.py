"""The files that the architecture tests read: the package's own, and everything that git tracks."""

import subprocess
from pathlib import Path

import pytest

from .rules import Sources

ROOT = Path(__file__).parents[2]


def package() -> Sources:
    """Every Python file of the package, by its path from the repository root."""
    return {file.relative_to(ROOT).as_posix(): file.read_text() for file in sorted((ROOT / "mvitv2").rglob("*.py"))}


def tracked() -> dict[str, Path]:
    """Every file that git tracks or would track, by its path from the repository root."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files belong to the project")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return {name: ROOT / name for name in names if name and (ROOT / name).is_file()}


def texts() -> Sources:
    """Those tracked files that are text."""
    found = {}
    for name, file in tracked().items():
        content = file.read_bytes()
        if b"\0" not in content[:8192]:
            found[name] = content.decode("utf-8", errors="replace")
    return found


def assert_none(found: list[str]) -> None:
    """Fail with every sentence found, one a line."""
    if found:
        pytest.fail("\n".join([f"{len(found)} found:", *found]), pytrace=False)
