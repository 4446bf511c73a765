"""Who may import whom, read from the syntax of every file."""

import graphlib
import importlib.metadata
import re
import tomllib

import pytest

from .rules import MAY_IMPORT, foreign_libraries, wrong_directions, wrong_extras
from .source import ROOT, assert_none, package


def canonical(distribution: str) -> str:
    """``PyYAML`` and ``pyyaml``, ``huggingface_hub`` and ``huggingface-hub`` are one name each."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def libraries(requirements: list[str]) -> set[str]:
    """Import names of what some requirements bring, as far as it is installed."""
    names = {canonical(re.split(r"[^\w.-]", line)[0]) for line in requirements}
    return {
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if names & {canonical(name) for name in distributions}
    }


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    name: libraries(lines) for name, lines in PROJECT["optional-dependencies"].items() if name not in {"dev", "docs"}
}
BASE = libraries(PROJECT["dependencies"])


def test_the_table_of_directions_has_no_circle() -> None:
    order = list(graphlib.TopologicalSorter(MAY_IMPORT).static_order())
    assert order.index("core") < order.index("models") < order.index("cli")


def test_imports_go_one_way() -> None:
    assert_none(wrong_directions(package()))


def test_libraries_are_declared_light_or_lazy() -> None:
    assert_none(foreign_libraries(package(), base=BASE, declared=BASE.union(*EXTRAS.values())))


def test_extras_bring_what_is_required_of_them() -> None:
    assert_none(wrong_extras(package(), EXTRAS))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("mvitv2/core/model.py", "from ..weights import files"),
        ("mvitv2/core/model.py", "from ..extras import required"),
        ("mvitv2/core/model.py", "from mvitv2.preprocessing import Preprocessing"),
        ("mvitv2/core/model.py", "def f():\n    from .. import variants"),
        ("mvitv2/weights/files.py", "import mvitv2.train.loop"),
        ("mvitv2/data/images.py", "if True:\n    import mvitv2"),
        ("mvitv2/train/loop.py", "try:\n    pass\nexcept ValueError:\n    from ..cli import main"),
        ("mvitv2/novelty.py", ""),
    ],
)
def test_a_wrong_direction_is_noticed(path: str, text: str) -> None:
    assert len(wrong_directions({path: text})) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("mvitv2/core/model.py", "from .grid import Grid\nfrom . import relpos\nimport torch"),
        ("mvitv2/weights/files.py", "from ..core.config import MViTConfig\nfrom mvitv2 import preprocessing"),
        ("mvitv2/data/images.py", "from mvitv2.extras import required"),
        ("mvitv2/cli/train.py", "import mvitv2\nfrom ..train.loop import train"),
    ],
)
def test_a_right_direction_is_let_through(path: str, text: str) -> None:
    assert wrong_directions({path: text}) == []


KNOWN = {"base": {"torch", "numpy"}, "declared": {"torch", "numpy", "torchvision", "timm"}}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("mvitv2/core/model.py", "import numpy as np"),
        ("mvitv2/core/model.py", "def f():\n    import numpy"),
        ("mvitv2/data/images.py", "import torchvision.transforms.v2"),
        ("mvitv2/data/images.py", "try:\n    import timm\nexcept ImportError:\n    timm = None"),
        ("mvitv2/data/images.py", "def f():\n    import requests"),
    ],
)
def test_a_foreign_library_is_noticed(path: str, text: str) -> None:
    assert len(foreign_libraries({path: text}, **KNOWN)) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("mvitv2/data/images.py", "import numpy as np\ndef f():\n    import torchvision"),
        ("mvitv2/data/images.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import timm"),
        ("mvitv2/core/model.py", "import math\nfrom torch import nn"),
    ],
)
def test_a_light_or_lazy_library_is_let_through(path: str, text: str) -> None:
    assert foreign_libraries({path: text}, **KNOWN) == []


def test_a_wrong_extra_is_noticed() -> None:
    text = "required('torchvision.ops', extra='train')\nrequired('av', extra='train')\nrequired('av', extra='sound')"
    found = wrong_extras({"mvitv2/data/images.py": text}, {"train": {"torchvision"}, "video": {"av"}})
    assert [line.split(":")[1] for line in found] == ["2", "3"]
