"""Outputs and taps of every fixture: the same function in float64, within tolerance in float32."""

import pytest
import torch

from . import fixtures
from . import parity_weights as pw
from .build import load
from .run import arrays, numpy_arrays

SMALL = fixtures.names(large=False)
LARGE = fixtures.names(large=True)


def compare(name: str, precision: str) -> None:
    """Every array the fixture names is produced, and equal to the peer's."""
    case = load(fixtures.path(name), dtype=getattr(torch, precision))
    pw.assert_match(case.fixture, numpy_arrays(arrays(case)), precision=precision, strict=True)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("name", SMALL)
def test_small(name: str, precision: str) -> None:
    compare(name, precision)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("name", LARGE)
def test_large(name: str, precision: str) -> None:
    compare(name, precision)


def test_no_fixture_is_forgotten() -> None:
    on_disk = {str(p.relative_to(fixtures.HERE)) for p in fixtures.HERE.glob("*/*.json")}
    tables = {n for n in on_disk if n.startswith(("tables/", "checkpoints/", "detectors/"))}
    assert on_disk - tables == {*SMALL, *LARGE}
