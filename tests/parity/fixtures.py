"""Where fixtures lie, and which are large."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "fixtures"
LARGE = 1_000_000
"""Parameters from which a fixture is run behind the ``slow`` marker."""


@lru_cache
def index() -> dict[str, dict[str, Any]]:
    """Every fixture's line of the index, by file name."""
    return {entry["file"]: entry for entry in json.loads((HERE / "index.json").read_text())}


def names(*, large: bool) -> list[str]:
    """Files of all large, or of all small fixtures."""
    return sorted(name for name, entry in index().items() if (entry["parameters"] >= LARGE) == large)


def path(name: str) -> Path:
    """A fixture's file."""
    return HERE / name
