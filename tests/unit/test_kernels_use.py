"""A backend is put into a model by name, and taken out again; linear layers change their products, not their names."""

import pytest
import torch
from torch import nn

from mvitv2.core.attention import MultiScaleAttention, pooling_attention
from mvitv2.core.model import MViT
from mvitv2.explain.rollout import block_attention
from mvitv2.kernels import Linear, choice, use
from mvitv2.kernels import linear as products
from mvitv2.kernels.constant import constant
from mvitv2.models import create_model


def tiny(backend: str) -> MViT:
    model = create_model("mvitv2_t", img_size=32, num_classes=3, backend=backend).eval()
    assert isinstance(model, MViT)
    return model


def attentions(model: nn.Module) -> list[MultiScaleAttention]:
    return [module for module in model.modules() if isinstance(module, MultiScaleAttention)]


def test_names_of_parameters_stay() -> None:
    model = tiny("reference")
    before = {name: value.data_ptr() for name, value in model.state_dict().items()}
    use(model, "auto")
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == before


def test_the_reference_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvitv2.kernels.pays", lambda: True)
    model = tiny("auto")
    assert {type(m) for m in model.modules() if isinstance(m, nn.Linear)} == {Linear}
    use(model, "reference")
    assert {type(m) for m in model.modules() if isinstance(m, nn.Linear)} == {nn.Linear}
    assert all(attn.run is pooling_attention for attn in attentions(model))


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match="'fast' is none of auto, reference"):
        create_model("mvitv2_t", img_size=32, backend="fast")


@pytest.mark.parametrize("name", ["auto", "cpp"])
def test_attention_can_be_explained_whatever_computes_it(name: str) -> None:
    model, pixels = tiny("reference"), torch.randn(1, 3, 32, 32)
    wanted = block_attention(model, pixels)
    run = attentions(use(model, name))[0].run
    found = block_attention(model, pixels)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.weights, theirs.weights, rtol=1e-4, atol=1e-5)
    assert attentions(model)[0].run is run


def test_the_rule_can_be_asked() -> None:
    assert choice(device="mps", trains=False).backend == "folded"
    assert choice(device="cpu", trains=True, dtype=torch.float64).backend == "reference"
    assert choice(device="cpu", trains=False, dtype=torch.float64).backend == "masked"


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12), (1, 1, 1, 12)])
def test_products_and_gradients(shape: tuple[int, ...], bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "by_onednn", lambda: True)
    layer = nn.Linear(12, 7, bias)
    x, upstream = torch.randn(*shape, requires_grad=True), torch.randn(*shape[:-1], 7)
    inputs = [x, *layer.parameters()]
    wanted = torch.autograd.grad(layer(x), inputs, upstream)
    layer.__class__ = Linear
    assert type(layer(x).grad_fn).__name__ == "ProductBackward"
    for ours, theirs in zip(torch.autograd.grad(layer(x), inputs, upstream), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_what_is_not_float32_on_a_cpu_goes_the_usual_way() -> None:
    layer = Linear(12, 7)
    assert layer(torch.randn(0, 12)).shape == (0, 7)
    assert layer.double()(torch.randn(2, 12, dtype=torch.float64)).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(torch.randn(2, 12)).dtype == torch.bfloat16


def test_an_exported_graph_holds_torch_operators_alone() -> None:
    model = tiny("auto")
    graph = torch.export.export(model, (torch.randn(1, 3, 32, 32),)).graph
    names = [str(node.target) for node in graph.nodes]
    assert not [name for name in names if "mvitv2_cpu" in name or "mkldnn" in name]


def test_a_constant_is_marked_as_torch_marks_one() -> None:
    assert vars(constant(lambda: 1)) == vars(torch.compiler.assume_constant_result(lambda: 1))
