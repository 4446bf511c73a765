"""Every attention backend computes what the reference defines: outputs and all gradients, in double precision."""

import math
from collections.abc import Sequence
from functools import partial

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from mvitv2.core.attend import dense_bias, reference
from mvitv2.core.config import MViTConfig
from mvitv2.kernels import BACKENDS, backend
from tests import tiny

# kernels do not take float64, so they have tests of their own
NAMES = [name for name in BACKENDS if name not in ("reference", "cpp", "triton")]
# float64, the same sums in another order
close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-12)
grids = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=2, max_size=3)


def problem(axes: Sequence[tuple[int, int]], *, prefix: int, terms: bool = True) -> tuple[list[Tensor], list[Tensor]]:
    """Queries, keys, values and position terms of a random attention that all want a gradient."""
    queries, keys = (math.prod(sizes) for sizes in zip(*axes, strict=True))
    shapes = [(2, 3, prefix + queries, 5), (2, 3, prefix + keys, 5), (2, 3, prefix + keys, 5)]
    term_shapes = [(2, 3, queries, k) for _, k in axes] if terms else []
    qkv, bias = (
        [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in group] for group in (shapes, term_shapes)
    )
    return qkv, bias


def results(name: str, qkv: list[Tensor], terms: list[Tensor]) -> list[Tensor]:
    """The output and the gradient of everything that went in."""
    q, k, v = qkv
    out = backend(name)(q, k, v, terms)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad((out * weights).sum(), [*qkv, *terms])]


@pytest.mark.parametrize("name", NAMES)
@hypothesis.settings(max_examples=25)
@hypothesis.given(grids, st.integers(0, 1), st.booleans())
def test_outputs_and_gradients(name: str, axes: Sequence[tuple[int, int]], prefix: int, terms: bool) -> None:
    qkv, bias = problem(axes, prefix=prefix, terms=terms)
    for found, expected in zip(results(name, qkv, bias), results("reference", qkv, bias), strict=True):
        close(found, expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_precision_of_the_output_is_that_of_the_input(name: str, dtype: torch.dtype) -> None:
    (q, k, v), terms = problem([(3, 2), (4, 3)], prefix=1)
    with torch.no_grad():
        exact = reference(q, k, v, terms)
        found = backend(name)(q.to(dtype), k.to(dtype), v.to(dtype), [t.to(dtype) for t in terms])
    assert found.dtype == dtype
    # a few roundings of the inputs and of every product
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=60 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", NAMES)
def test_without_gradients(name: str) -> None:
    (q, k, v), terms = problem([(3, 2), (4, 3)], prefix=1)
    with torch.inference_mode():
        close(backend(name)(q, k, v, terms), reference(q, k, v, terms))


@hypothesis.given(grids, st.integers(0, 1))
def test_dense_bias_is_the_sum_over_axes(axes: Sequence[tuple[int, int]], prefix: int) -> None:
    """Written with loops: key ``j`` of the grid gets, from every axis, the term of its place along it."""
    qkv, terms = problem(axes, prefix=prefix)
    bias = dense_bias(qkv[0], terms)
    sizes = [k for _, k in axes]
    assert bias.shape == (2, 3, qkv[0].shape[2], qkv[1].shape[2])
    assert not bias[:, :, :prefix].any() and not bias[:, :, :, :prefix].any()
    for j in range(math.prod(sizes)):
        left, total = j, torch.zeros_like(terms[0][..., 0])
        for axis in reversed(range(len(sizes))):
            left, place = divmod(left, sizes[axis])
            total = total + terms[axis][..., place]
        close(bias[:, :, prefix:, prefix + j], total)


MODELS: dict[str, MViTConfig] = {
    "image": tiny.image(),
    "image with class token": tiny.image(**tiny.CLASS_TOKEN),
    "clip": tiny.clip(),
    "clip, tables in time only": tiny.clip(rel_pos_spatial=False),
    "clip, tables in space only": tiny.clip(rel_pos_temporal=False),
    "no tables": tiny.image(rel_pos_spatial=False),
    "scaled positions": tiny.image(position_scale="paper"),
    "windows": tiny.detector(),
    "masked windows": tiny.detector(window_padding="masked"),
    "masked windows, no tables": tiny.detector(window_padding="masked", rel_pos_spatial=False),
    "anchored": tiny.image(table_resampling="anchored"),
    "reversible": tiny.reversible(),
}


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("name", NAMES)
def test_models(name: str, config: MViTConfig) -> None:
    """Whole models at an odd size: maps and the gradient of every parameter, position tables included."""
    x = torch.randn(2, 3, *(n - 5 if n > 8 else n for n in config.input_size), dtype=torch.float64)
    expected_model = tiny.model(config, dtype=torch.float64)
    model = tiny.model(config, name=name, dtype=torch.float64)
    model.load_state_dict(expected_model.state_dict())
    found, expected = (
        torch.stack([y.square().sum() for y in m.maps(x, range(m.config.num_stages))]).sum()
        for m in (model, expected_model)
    )
    close(found, expected)
    found.backward()
    expected.backward()
    for (key, p), (_, r) in zip(model.named_parameters(), expected_model.named_parameters(), strict=True):
        assert (p.grad is None) == (r.grad is None), key
        if p.grad is not None and r.grad is not None:
            torch.testing.assert_close(p.grad, r.grad, rtol=1e-8, atol=1e-9 * float(r.grad.abs().max() + 1), msg=key)


def test_unknown_backend_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"backend='flash' is none of .*reference"):
        backend("flash")
