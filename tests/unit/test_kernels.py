"""Backends made of PyTorch's own attention: what they remember, and what they never build."""

import pytest
import torch

from mvitv2.core.attend import reference
from mvitv2.kernels.sdpa import folded, masked, onehot_places, remembered_places


def problem(prefix: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    q, k, v = torch.randn(1, 2, prefix + 12, 4), torch.randn(1, 2, prefix + 6, 4), torch.randn(1, 2, prefix + 6, 4)
    return q, k, v, [torch.randn(1, 2, 12, 2), torch.randn(1, 2, 12, 3)]


def test_places_of_keys() -> None:
    places = onehot_places((2, 3), torch.float32, torch.device("cpu"))
    assert places.shape == (6, 5) and places.sum(1).tolist() == [2] * 6
    assert places[4].tolist() == [0, 1, 0, 1, 0], "key 4 lies in row 1 and column 1"


def test_places_are_computed_once() -> None:
    remembered_places.cache_clear()
    q, k, v, terms = problem()
    folded(q, k, v, terms)
    with torch.profiler.profile() as profile:
        folded(q, k, v, terms)
    assert not [event.key for event in profile.key_averages() if "arange" in event.key]


def test_places_remembered_in_inference_serve_training() -> None:
    remembered_places.cache_clear()
    q, k, v, terms = problem()
    with torch.inference_mode():
        folded(q, k, v, terms)
    k.requires_grad_()
    folded(q, k, v, terms).sum().backward()
    assert k.grad is not None


def test_no_matrix_of_queries_and_keys() -> None:
    """The bias of 512 x 512 tokens alone would be a megabyte; everything made by folding is far smaller."""
    q, k, v = (torch.randn(1, 1, 512, 8) for _ in "qkv")
    terms = [torch.randn(1, 1, 512, 32), torch.randn(1, 1, 512, 16)]
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            largest = max(largest, result.numel() if isinstance(result, torch.Tensor) else 0)
            return result

    with Watch():
        out = folded(q, k, v, terms)
    assert largest <= 512 * (8 + 48)
    torch.testing.assert_close(out, reference(q, k, v, terms))


@pytest.mark.parametrize("attend", [masked, folded])
def test_without_terms_it_is_plain_attention(attend) -> None:
    q, k, v, _ = problem()
    torch.testing.assert_close(attend(q, k, v, []), reference(q, k, v, []))


@pytest.mark.parametrize("attend", [masked, folded])
def test_terms_of_another_precision(attend) -> None:
    """Under autocast queries are normed in float32 while terms come from bfloat16 products."""
    q, k, v, terms = problem()
    rounded = [term.bfloat16() for term in terms]
    expected = reference(q, k, v, [term.float() for term in rounded])
    torch.testing.assert_close(attend(q, k, v, rounded).float(), expected, rtol=0, atol=2e-2)
