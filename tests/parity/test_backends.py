"""Every fixture once per backend, in float32: a fast path is the same function as the readable one."""

import pytest

from mvitv2.kernels import BACKENDS, runs_here, use

from . import fixtures
from . import parity_weights as pw
from .build import load
from .run import arrays, numpy_arrays

SMALL = fixtures.names(large=False)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "reference"])
@pytest.mark.parametrize("name", SMALL)
def test_small(name: str, backend: str) -> None:
    if reason := runs_here(backend):
        pytest.skip(reason)
    case = load(fixtures.path(name))
    use(case.model, backend)
    pw.assert_match(case.fixture, numpy_arrays(arrays(case)), precision="float32", strict=True)
