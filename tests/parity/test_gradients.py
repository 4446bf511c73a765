"""Gradients of every parameter, where a fixture has them."""

import json

import pytest
import torch

from mvitv2.core.pyramid import PyramidBackbone
from mvitv2.weights.convert import to_theirs

from . import fixtures
from . import parity_weights as pw
from .build import load, peer_dialect
from .run import arrays

WITH_GRADIENTS = [n for n in fixtures.names(large=False) if "gradient" in json.loads(fixtures.path(n).read_text())]


@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_gradients(name: str) -> None:
    case = load(fixtures.path(name), dtype=torch.float64)
    wanted = case.fixture["gradient"]
    found = arrays(case, grad=True)
    loss = torch.zeros((), dtype=torch.float64)
    for output in wanted["outputs"]:
        weights = pw.loss_weights(f"{case.fixture['id']}/{output}", found[output].shape)
        loss = loss + (torch.from_numpy(weights) * found[output]).sum()
    assert loss.item() == pytest.approx(wanted["loss_value"], rel=1e-9)
    loss.backward()
    target = case.model if isinstance(case.model, PyramidBackbone) else case.backbone
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in target.named_parameters()}
    theirs = to_theirs(gradients, peer_dialect(case.peer, case.config), case.config, prefix="")
    # softmax cancels the bias of the keys' norm: its gradient is rounding, in the peer as here
    rounding = 1e-12 * max(summary["l2"] for summary in wanted["tensors"].values())
    for tensor, summary in wanted["tensors"].items():
        result = pw.compare_array(theirs[tensor].numpy(), summary, wanted["tolerance"])
        cancelled = max(summary["l2"], theirs[tensor].norm().item()) < rounding
        assert result["ok"] or cancelled, (tensor, result["why"])
    assert set(wanted["tensors"]) == set(theirs)
