"""A line of a comparison, and the fixtures' own tools."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from . import parity_weights as pw

HERE = Path(__file__).parent
PHOTOS = HERE.parents[2] / "shared" / "data" / "coco_small" / "val"
"""Photographs that some fixtures are cut from; they do not come with the project."""


class Line(NamedTuple):
    """One section of a fixture."""

    section: str
    ok: bool
    text: str


def tools(folder: Path) -> ModuleType:
    """``det_parity.py`` of the fixture's own folder, or the copy that lies here."""
    os.environ.setdefault("COCO_SMALL_VAL", str(PHOTOS))
    home = next((p for p in (folder, folder.parent) if (p / "det_parity.py").exists()), HERE)
    spec = importlib.util.spec_from_file_location("det_parity", home / "det_parity.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{home / 'det_parity.py'} is no module")
    module, path, known = importlib.util.module_from_spec(spec), list(sys.path), sys.modules.get("parity_weights")
    sys.modules["parity_weights"] = pw
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path  # it puts its own folder first
        sys.modules.pop("parity_weights")
        if known is not None:
            sys.modules["parity_weights"] = known
    return module
