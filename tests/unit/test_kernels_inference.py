"""A model optimised for inference gives the same outputs; the given one, and what is saved, stay as they were."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mvitv2.kernels import optimize_for_inference
from mvitv2.kernels.cpp.remembered import Remembering, RememberingAttention
from mvitv2.kernels.inference import FusedBlock
from mvitv2.kernels.packed import PackedLinear
from mvitv2.models import create_model

CASES = {
    "mvitv2_t": ({"img_size": 64}, (2, 3, 64, 64)),
    "mvitv2_b_cls": ({"img_size": 32}, (1, 3, 32, 32)),
    "mvitv2_s_16x4": ({"img_size": 32, "num_frames": 4}, (1, 3, 4, 32, 32)),
    "rev_mvit_b": ({"img_size": 32}, (1, 3, 32, 32)),
}


def small(name: str) -> tuple[nn.Module, torch.Tensor]:
    changes, shape = CASES[name]
    return create_model(name, num_classes=7, backend="reference", **changes), torch.randn(*shape)


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_the_same(name: str) -> None:
    model, pixels = small(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fast = optimize_for_inference(model)
    assert model.training and not fast.training
    with torch.inference_mode():
        torch.testing.assert_close(fast(pixels), model.eval()(pixels), rtol=0, atol=1e-5)
    assert list(fast.state_dict()) == list(before)
    for key, value in fast.state_dict().items():
        assert torch.equal(value, before[key]) and torch.equal(model.state_dict()[key], before[key])
    assert all(type(m) is nn.Linear for m in model.modules() if isinstance(m, nn.Linear))


def test_bfloat16_is_within_its_rounding() -> None:
    """Squared errors against float32, summed over models: one alone is off by twice or half as much by chance."""
    ours = plain = 0.0
    for seed in range(12):
        torch.manual_seed(seed)
        model, pixels = small("mvitv2_t")
        fast = optimize_for_inference(model, dtype=torch.bfloat16)
        with torch.inference_mode():
            wanted, found = model.eval()(pixels), fast(pixels.bfloat16())
            rounded = copy.deepcopy(model).bfloat16()(pixels.bfloat16())
        assert found.dtype == torch.bfloat16
        ours += (found - wanted).square().mean().item()
        plain += (rounded - wanted).square().mean().item()
    assert ours <= 1.25 * plain


def test_a_packed_weight_follows_its_model() -> None:
    model, pixels = small("mvitv2_t")
    fast = optimize_for_inference(model)
    with torch.no_grad():
        wanted = fast(pixels)
        for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
            torch.testing.assert_close(twin(pixels), wanted, rtol=0, atol=0)
        doubled = copy.deepcopy(fast).double()(pixels.double())
        torch.testing.assert_close(doubled.float(), wanted, rtol=1e-4, atol=1e-5)
        other, _ = small("mvitv2_t")
        fast.load_state_dict(other.state_dict())
        torch.testing.assert_close(fast(pixels), other.eval()(pixels), rtol=1e-4, atol=1e-5)


def test_gradients_of_inputs_still_flow() -> None:
    model, pixels = small("mvitv2_t")
    fast = optimize_for_inference(model)
    inputs = pixels.requires_grad_()
    (ours,) = torch.autograd.grad(fast(inputs).sum(), inputs)
    (theirs,) = torch.autograd.grad(model.eval()(inputs).sum(), inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_packed_layers_say_so() -> None:
    model, _ = small("mvitv2_t")
    fast = optimize_for_inference(model)
    assert {type(m) for m in fast.modules() if isinstance(m, nn.Linear)} == {PackedLinear}
    assert "activation=gelu" in repr(fast)


def test_the_copy_is_for_inference_alone() -> None:
    model, pixels = small("mvitv2_t")
    with pytest.raises(RuntimeError, match=r"call eval\(\), or train the original"):
        optimize_for_inference(model).train()(pixels)


def test_what_is_remembered_follows_size_and_weights() -> None:
    """Rows of positions and weights of poolings are kept per size, until other weights come."""
    model, pixels = small("mvitv2_t")
    fast, larger = optimize_for_inference(model), torch.randn(1, 3, 96, 64)
    attention = next(m for m in fast.modules() if isinstance(m, RememberingAttention))
    for given in (pixels, larger, pixels):
        torch.testing.assert_close(fast(given), model.eval()(given), rtol=0, atol=1e-5)
    assert len([key for key in attention.made if key[0] != "call"]) == 4  # two axes of two sizes
    other, _ = small("mvitv2_t")
    with torch.no_grad():
        for name, value in other.named_parameters():
            value.add_(0.5 if "rel_pos" in name or "pool" in name else 0)
    fast.load_state_dict(other.state_dict())
    torch.testing.assert_close(fast(larger), other.eval()(larger), rtol=0, atol=1e-5)
    assert not any(m.made for m in pickle.loads(pickle.dumps(fast)).modules() if isinstance(m, Remembering))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pictures_of_a_batch_are_answered_as_each_alone(dtype: torch.dtype) -> None:
    """Where they are large, attention takes some of them after others."""
    fast = optimize_for_inference(create_model("mvitv2_t", num_classes=7), dtype=dtype)
    pixels = torch.randn(3, 3, 224, 224, dtype=dtype)
    with torch.inference_mode():
        together, alone = fast(pixels), torch.cat([fast(one) for one in pixels.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_gradients_of_parameters_flow_where_they_are_asked_for_again() -> None:
    model, pixels = small("mvitv2_t")
    fast = optimize_for_inference(model)
    attention = next(m for m in fast.modules() if isinstance(m, RememberingAttention))
    fast(pixels)
    attention.requires_grad_(True)
    fast(pixels).square().sum().backward()
    model.eval()(pixels).square().sum().backward()
    wanted = dict(model.named_parameters())
    names = {name for name, p in fast.named_parameters() if p.requires_grad and "qkv" not in name}
    assert any("pool_q" in name for name in names) and any("rel_pos" in name for name in names)
    for name, parameter in fast.named_parameters():
        if name in names:
            torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-4, atol=1e-4)


def test_norms_are_read_where_products_begin_with_them() -> None:
    """The norm before attention is a part of its first product; where tokens are pooled first, it stays a layer."""
    fast = optimize_for_inference(small("mvitv2_t")[0])
    blocks = [module for module in fast.modules() if isinstance(module, FusedBlock)]
    assert blocks and all(block.first_norm_moved and block.attn.qkv.before == (block.norm1,) for block in blocks)
    assert not any("before" in name for name in fast.state_dict())
