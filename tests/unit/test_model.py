"""The model as a whole: what it refuses, how it travels, what training does to it, and how blocks are put together."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mvitv2.core.attend import reference
from mvitv2.core.init import init_weights
from mvitv2.core.model import MultiScaleBlock, MViT
from mvitv2.core.relpos import remembered_displacement
from mvitv2.core.reversible import build
from mvitv2.core.stages import stages
from mvitv2.core.windows import remembered_hidden_places
from mvitv2.kernels import use
from mvitv2.kernels.sdpa import remembered_places
from tests import tiny

IMAGE, CLIP = tiny.image(), tiny.clip()


@pytest.mark.parametrize(
    ("config", "given", "error", "message"),
    [
        (IMAGE, [torch.zeros(1, 3, 32, 48)], TypeError, "expected a tensor (B, C, H, W), got list; SlowFast's list"),
        (CLIP, "a.mp4", TypeError, "expected a tensor (B, C, T, H, W), got str"),
        (IMAGE, torch.zeros(3, 32, 48), ValueError, "expected (B, C, H, W) with C = 3, got (3, 32, 48)"),
        (IMAGE, torch.zeros(1, 3, 4, 32, 48), ValueError, "expected (B, C, H, W) with C = 3, got (1, 3, 4, 32, 48)"),
        (IMAGE, torch.zeros(1, 32, 48, 3), ValueError, "with C = 3, got (1, 32, 48, 3)"),
        (CLIP, torch.zeros(1, 3, 32, 32), ValueError, "expected (B, C, T, H, W) with C = 3, got (1, 3, 32, 32)"),
        (CLIP, torch.zeros(1, 4, 3, 32, 32), ValueError, "with C = 3, got (1, 4, 3, 32, 32)"),
        (tiny.image(in_channels=5), torch.zeros(1, 3, 32, 48), ValueError, "with C = 5, got (1, 3, 32, 48)"),
        (IMAGE, torch.zeros(1, 3, 0, 48), ValueError, "an input of (0, 48) is smaller than one patch; at least (1, 1)"),
        (
            tiny.image(patch_kernel=(8, 8), patch_padding=(0, 0)),
            torch.zeros(1, 3, 7, 48),
            ValueError,
            "an input of (7, 48) is smaller than one patch; at least (8, 8) is needed",
        ),
    ],
)
def test_what_is_no_input(config: Any, given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        tiny.model(config)(given)
    assert message in str(caught.value)


@pytest.mark.parametrize("form", tiny.FORMS)
def test_copies_and_pickles(form: str) -> None:
    config = tiny.FORMS[form]()
    model, x = tiny.model(config, name="auto"), tiny.pixels(config)
    model.card["classes"] = ["cat", "dog"]
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(x), model(x)) and copied.config == model.config and copied.card == model.card
        assert all(a is not b for a, b in zip(copied.parameters(), model.parameters(), strict=True))
    copied.card["classes"].append("cow")
    assert model.card["classes"] == ["cat", "dog"]


@pytest.mark.parametrize("form", tiny.FORMS)
def test_made_without_memory_and_filled_later(form: str) -> None:
    config = tiny.FORMS[form]()
    filled = tiny.model(config)
    with torch.device("meta"):
        empty = build(config, reference)
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    empty = empty.to_empty(device="cpu").eval()
    empty.load_state_dict(filled.state_dict())
    x = tiny.pixels(config)
    assert torch.equal(empty(x), filled(x))


def test_made_without_memory_and_drawn_later() -> None:
    config = tiny.clip(abs_pos="joint", abs_pos_init="sincos", blocks=tiny.wide(CLIP.blocks), layer_scale=0.1)
    torch.manual_seed(3)
    expected = build(config, reference)
    with torch.device("meta"):
        model = build(config, reference)
    model = model.to_empty(device="cpu")
    torch.manual_seed(3)
    init_weights(model, config)
    found = model.state_dict()
    for name, value in expected.state_dict().items():
        if value.unique().numel() == 1 or name == "pos_embed":
            assert torch.equal(found[name], value), name
        else:
            assert found[name].std() == pytest.approx(value.std(), rel=0.5), name


def test_state_dict_holds_parameters_alone() -> None:
    for config in (IMAGE, CLIP, tiny.detector()):
        model = tiny.model(config)
        assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_functional_call_and_gradients_per_sample() -> None:
    """torch.func puts plain tensors where parameters were."""
    model, x = tiny.model(IMAGE, dtype=torch.float64), tiny.pixels(IMAGE, 3, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(values: dict[str, Tensor], sample: Tensor) -> Tensor:
        return torch.func.functional_call(model, values, (sample[None],)).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    model(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(per_sample[name].sum(0), parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["reference", "folded"])
@pytest.mark.parametrize("form", tiny.FORMS)
def test_inference_first_and_training_later(form: str, name: str) -> None:
    """Tables remembered under inference mode are ordinary tensors."""
    for memory in (remembered_displacement, remembered_hidden_places, remembered_places):
        memory.cache_clear()
    config = tiny.FORMS[form](window_padding="masked")
    model, x = tiny.model(config, name=name), tiny.pixels(config)
    with torch.inference_mode():
        expected = model.forward_features(x)
    found = model.train().forward_features(x)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if not n.startswith(("head.", "output_norms.0")))


def block_of(model: MViT, index: int) -> MultiScaleBlock:
    block = model.blocks[index]
    assert isinstance(block, MultiScaleBlock)
    return block


def gradients(model: MViT, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(5)
    model(x).square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def saved_bytes(model: MViT, x: Tensor) -> int:
    """Bytes of activations that a forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held = model(x)
    del held
    return sum(kept.values())


@pytest.mark.parametrize("form", tiny.FORMS)
def test_checkpointing_gives_the_same_gradients(form: str) -> None:
    """Stochastic depth and dropouts are drawn again as they were."""
    config = tiny.FORMS[form](drop_path=0.5, dropout=0.2)
    model, x = tiny.model(config, dtype=torch.float64).train(), tiny.pixels(config, 4, dtype=torch.float64)
    if config.num_classes == 0:
        model.norm = nn.Identity()
    kept = gradients(model, x)
    model.set_grad_checkpointing()
    recomputed = gradients(model, x)
    assert kept.keys() == recomputed.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-9, atol=1e-9)


def test_checkpointing_keeps_less() -> None:
    model, x = tiny.model(IMAGE).train(), tiny.pixels(IMAGE)
    before = saved_bytes(model, x)
    model.set_grad_checkpointing()
    assert saved_bytes(model, x) < before / 4
    model.set_grad_checkpointing(enable=False)
    assert saved_bytes(model, x) == before
    model.set_grad_checkpointing()
    assert saved_bytes(model.eval(), x) > before / 2, "in training only"


def test_layer_scale() -> None:
    config = tiny.image(layer_scale=0.25)
    model = tiny.model(config)
    block = block_of(model, 1)
    assert block.gamma_1 is not None and block.gamma_2 is not None
    assert (block.gamma_1.shape, block.gamma_2.shape) == ((16,), (16,))
    initial = build(config, reference).state_dict()["blocks.0.gamma_1"]
    assert initial.unique().tolist() == [0.25]
    x = torch.randn(1, 96, 8)
    with torch.no_grad():
        block.gamma_1.zero_()
        block.gamma_2.zero_()
    y, grid = block(x, (8, 12))
    assert grid == (4, 6)
    shortcut = block.proj(block.norm1(x)).transpose(1, 2).unflatten(2, (8, 12))
    torch.testing.assert_close(y, nn.functional.max_pool2d(shortcut, 3, 2, 1).flatten(2).transpose(1, 2))


@pytest.mark.parametrize("expand_in", ["attention", "mlp"])
def test_shortcut_starts_from_the_normed_stream_where_channels_double(expand_in: Any) -> None:
    """facebookresearch/mvit#15."""
    blocks = stages(depths=(1, 1), embed_dim=8, expand_in=expand_in)
    model = tiny.model(tiny.image(blocks=blocks, layer_scale=0.1))
    block = block_of(model, 1 if expand_in == "attention" else 0)
    for name, parameter in block.named_parameters():
        if "gamma" in name:
            nn.init.zeros_(parameter)
    x = torch.randn(1, 96, 8)
    y, _ = block(x, (8, 12))
    normed = (block.norm1 if expand_in == "attention" else block.norm2)(x)
    expected = block.proj(normed)
    if expand_in == "attention":
        lattice = expected.transpose(1, 2).unflatten(2, (8, 12))
        expected = nn.functional.max_pool2d(lattice, 3, 2, 1).flatten(2).transpose(1, 2)
    torch.testing.assert_close(y, expected)


def test_class_token_and_positions_come_before_dropout_and_norm() -> None:
    config = tiny.clip(abs_pos="separable", norm_stem=True, pos_dropout=0.5)
    model, x = tiny.model(config), tiny.pixels(config)
    patches, grid = model.patch_embed(x)
    token = model.cls_token.expand(2, -1, -1) + model.pos_embed_class
    places = (model.pos_embed_temporal[:, :, None] + model.pos_embed_spatial[:, None]).flatten(1, 2)
    expected = model.norm_stem(torch.cat((token, patches + places), dim=1))
    found, found_grid = model.embed(x)
    assert found_grid == grid == (2, 8, 8)
    torch.testing.assert_close(found, expected)
    model.norm_stem = nn.Identity()
    dropped = model.train().embed(x)[0]
    assert 0.4 < (dropped == 0).float().mean() < 0.6


def test_dropouts_are_off_in_eval_mode() -> None:
    config = tiny.clip(drop_path=0.5, dropout=0.5, pos_dropout=0.5, head_dropout=0.5)
    model, x = tiny.model(config), tiny.pixels(config)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_each_dropout_is_somewhere() -> None:
    config = tiny.clip(dropout=0.1, pos_dropout=0.2, head_dropout=0.3)
    rates = {name: m.p for name, m in tiny.model(config).named_modules() if isinstance(m, nn.Dropout)}
    blocks = {f"blocks.{i}.{part}.drop": 0.1 for i in range(3) for part in ("attn", "mlp")}
    assert rates == {**blocks, "pos_drop": 0.2, "head.dropout": 0.3}


@pytest.mark.parametrize("name", ["reference", "masked", "folded"])
@pytest.mark.parametrize("form", tiny.FORMS)
def test_mixed_precision(form: str, name: str) -> None:
    """Forward and backward under autocast give finite numbers near those of float32."""
    config = tiny.FORMS[form](window_padding="masked")
    model = use(build(config, reference), name).train()
    x = tiny.pixels(config)
    exact = model.forward_features(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.forward_features(x)
        rounded.float().square().mean().backward()
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0.15)
    # PyTorch 2.14's own bfloat16 gradient of small depthwise 3-D kernels reads memory it never wrote, on a CPU
    sound = {n: p.grad for n, p in model.named_parameters() if not (config.rank == len("thw") and ".pool_" in n)}
    assert all(grad.isfinite().all() for grad in sound.values() if grad is not None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("form", tiny.FORMS)
def test_other_precisions(form: str, dtype: torch.dtype) -> None:
    config = tiny.FORMS[form](window_padding="masked", abs_pos="joint")
    model = build(config, reference).to(dtype).eval()
    sizes = (config.input_size, tuple(n + 4 for n in config.input_size))
    for size in sizes:
        y = model.forward_features(torch.randn(1, 3, *size, dtype=dtype))
        assert y.dtype == dtype and y.isfinite().all()


def test_windows_do_not_touch_the_rest_of_the_model() -> None:
    model = tiny.model(tiny.detector())
    assert [block_of(model, index).attn.spec.windows for index in range(5)] == [
        ((4, 4), (2, 2)),
        ((4, 4), (2, 2)),
        ((2, 2), (4, 4)),
        ((2, 2), (2, 2)),
        None,
    ]


def test_normed_levels_feed_the_next_block_only_where_asked() -> None:
    """mmpretrain and mmaction2 do, detectron2 does not."""
    beside, fed = (
        tiny.model(tiny.image(output_norms=(0, 2))),
        tiny.model(tiny.image(output_norms=(0, 2), feed_output_norms=True)),
    )
    fed.load_state_dict(beside.state_dict())
    x = tiny.pixels(IMAGE)
    first, second = beside.trunk(x), fed.trunk(x)
    assert torch.equal(first[0][0], second[0][0]) and not torch.allclose(first[1][0], second[1][0])
    assert first[1][0].std() > 0
    assert sorted(n for n, _ in beside.named_parameters() if "output_norms" in n) == [
        f"output_norms.{s}.{p}" for s in (0, 2) for p in ("bias", "weight")
    ]
