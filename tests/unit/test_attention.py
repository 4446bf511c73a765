"""Pooling attention: conventions, pooling modes, projections, and where dropout and norms belong."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvitv2.core.attend import reference
from mvitv2.core.attention import MultiScaleAttention, add_pooled_queries, attention
from mvitv2.core.config import schedule
from mvitv2.core.layers import DropPath, norm_then_pool, token_pool
from tests import tiny


def opening(config: Any = None, **changes: Any) -> MultiScaleAttention:
    """The attention of a block that opens a stage, its parameters large, in double precision."""
    config = config or tiny.image(**changes)
    attn = attention(config, schedule(config)[1], reference).double().eval()
    for parameter in attn.parameters():
        nn.init.normal_(parameter)
    return attn


def stream(prefix: int = 0) -> Tensor:
    return torch.randn(2, prefix + 8 * 12, 8, dtype=torch.float64)


def by_hand(attn: MultiScaleAttention, x: Tensor, grid: tuple[int, int], prefix: int, scale: float) -> Tensor:
    """Queries, keys, values, pooling, norm, logits with positions, sum, pooled queries: eq. 1 to 5, nothing shared."""
    parts: list[Tensor] = []
    heads = attn.spec.num_heads
    pools = ((attn.pool_q, attn.norm_q), (attn.pool_k, attn.norm_k), (attn.pool_v, attn.norm_v))
    for weight, bias, (pool, norm) in zip(attn.qkv.weight.chunk(3), attn.qkv.bias.chunk(3), pools, strict=True):
        assert pool is not None and norm is not None
        flat = (x @ weight.T + bias).unflatten(2, (heads, -1))
        lattice = flat[:, prefix:].permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, grid)
        tokens = pool(lattice).flatten(2).transpose(1, 2).unflatten(0, (-1, heads))
        parts.append(norm(torch.cat((flat[:, :prefix].transpose(1, 2), tokens), dim=2)))
    q, k, v = parts
    (rows, cols), (k_rows, k_cols) = attn.spec.q_grid, attn.spec.kv_grid
    logits = torch.einsum("bhid,bhjd->bhij", q, k) / q.shape[-1] ** 0.5
    tall, wide = attn.rows("h", (rows, cols), (k_rows, k_cols)), attn.rows("w", (rows, cols), (k_rows, k_cols))
    for i in range(rows * cols):
        for j in range(k_rows * k_cols):
            relative = tall[i // cols, j // k_cols] + wide[i % cols, j % k_cols]
            logits[:, :, prefix + i, prefix + j] += scale * (q[:, :, prefix + i] @ relative)
    y = logits.softmax(-1) @ v
    y = torch.cat((y[:, :, :prefix], y[:, :, prefix:] + q[:, :, prefix:]), dim=2)
    return attn.proj(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("convention", ["code", "paper"])
def test_equations_one_to_five(prefix: int, convention: str) -> None:
    """The paper divides position logits by ``sqrt(d)``, the released code does not."""
    attn = opening(position_scale=convention, **(tiny.CLASS_TOKEN if prefix else {}))
    x = stream(prefix)
    scale = 1.0 if convention == "code" else attn.spec.head_dim**-0.5
    with torch.no_grad():
        found, grid = attn(x, (8, 12))
        expected = by_hand(attn, x, (8, 12), prefix, scale)
    assert grid == (4, 6)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_residual_pooling() -> None:
    y, q = torch.randn(1, 2, 13, 4), torch.randn(1, 2, 13, 4)
    assert add_pooled_queries(y, q, (3, 4), "none") is y
    assert torch.equal(add_pooled_queries(y, q, (3, 4), "all"), y + q)
    on_grid = add_pooled_queries(y, q, (3, 4), "grid")
    assert torch.equal(on_grid[:, :, :1], y[:, :, :1]) and torch.equal(on_grid[:, :, 1:], y[:, :, 1:] + q[:, :, 1:])
    assert torch.equal(add_pooled_queries(y, q, (1, 13), "grid"), y + q)


def test_residual_pooling_of_the_class_token_is_a_convention() -> None:
    x = stream(1)
    results = {}
    for where in ("none", "grid", "all"):
        torch.manual_seed(1)
        results[where] = opening(residual_pooling=where, **tiny.CLASS_TOKEN)(x, (8, 12))[0]
    assert torch.equal(results["none"][:, 0], results["grid"][:, 0])
    assert torch.equal(results["all"][:, 1:], results["grid"][:, 1:])
    assert not torch.allclose(results["all"][:, 0], results["grid"][:, 0])
    assert not torch.allclose(results["none"][:, 1:], results["grid"][:, 1:])


def test_three_linear_layers_are_one_in_parts() -> None:
    fused, separate = opening(), opening(separate_qkv=True)
    state = fused.state_dict()
    weights, biases = state.pop("qkv.weight").chunk(3), state.pop("qkv.bias").chunk(3)
    for name, weight, bias in zip("qkv", weights, biases, strict=True):
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    separate.load_state_dict(state)
    x = stream()
    torch.testing.assert_close(separate(x, (8, 12))[0], fused(x, (8, 12))[0], rtol=1e-12, atol=1e-12)


def test_pooling_first() -> None:
    """Averages and projections commute; biases would not, for the average counts zeros around the grid."""
    late = opening(pool_mode="avg", separate_qkv=True, qkv_bias=False)
    early = opening(pool_mode="avg", pool_first=True, qkv_bias=False)
    early.load_state_dict(late.state_dict())
    x = stream()
    torch.testing.assert_close(early(x, (8, 12))[0], late(x, (8, 12))[0], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("changes", "kernels"),
    [
        ({"pool_mode": "conv"}, (8, 1, 3, 3)),
        ({"pool_mode": "conv_dense"}, (8, 8, 3, 3)),
        ({"pool_mode": "conv", "pool_first": True}, (4, 1, 3, 3)),
        ({"pool_mode": "conv_unshared", "pool_first": True}, (8, 1, 3, 3)),
    ],
)
def test_kernels(changes: dict[str, Any], kernels: tuple[int, ...]) -> None:
    """Shared by the heads' slices of what is pooled; 8 channels enter, 16 in 2 heads attend."""
    attn = opening(**changes)
    assert isinstance(attn.pool_k, nn.Conv2d) and attn.pool_k.weight.shape == kernels and attn.pool_k.bias is None
    assert isinstance(attn.norm_k, nn.LayerNorm) and attn.norm_k.normalized_shape == kernels[:1]
    assert attn(stream(), (8, 12))[0].shape == (2, 24, 16)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_pooling_without_weights_has_no_norm(mode: str) -> None:
    attn = opening(pool_mode=mode)
    assert attn.norm_q is None and not any("pool" in n or "norm" in n for n, _ in attn.named_parameters())
    q = attn.queries_keys_values(stream(), (8, 12))[0][0]
    assert q.shape == (2, 2, 24, 8)


def test_average_counts_the_zeros_around() -> None:
    pool, _ = token_pool(tiny.image(pool_mode="avg"), 1, (3, 3), (1, 1))
    assert pool is not None
    torch.testing.assert_close(pool(torch.ones(1, 1, 3, 3))[0, 0, 0], torch.tensor([4, 6, 4]) / 9)


def test_batch_norm_comes_before_pooling() -> None:
    config = tiny.image(norm="batch", final_norm=False)
    pool, norm = token_pool(config, 4, (3, 3), (2, 2))
    assert isinstance(pool, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    x = torch.randn(2, 3, 12, 4)
    tokens, grid = norm_then_pool(x, (3, 4), pool, norm.eval())
    lattice = x.flatten(0, 1).transpose(1, 2).unflatten(2, (3, 4))
    expected = pool(F.gelu(norm(lattice))).flatten(2).transpose(1, 2).unflatten(0, (2, 3))
    assert grid == (2, 2)
    torch.testing.assert_close(tokens, expected)


def test_batch_norm_without_weights_to_pool_with() -> None:
    pool, norm = token_pool(tiny.image(norm="batch", final_norm=False, pool_mode="avg"), 4, (3, 3), (2, 2))
    x = torch.randn(2, 3, 12, 4)
    assert pool is not None and norm is None
    expected = pool(x.flatten(0, 1).transpose(1, 2).unflatten(2, (3, 4))).flatten(2).transpose(1, 2)
    assert torch.equal(norm_then_pool(x, (3, 4), pool, norm)[0], expected.unflatten(0, (2, 3)))


def test_batch_norm_counts_while_training() -> None:
    config = tiny.image(norm="batch", final_norm=False)
    model = tiny.model(config).train()
    model(tiny.pixels(config))
    counted = [n for n, b in model.named_buffers() if n.endswith("num_batches_tracked") and b == 1]
    assert any("norm1" in n for n in counted) and any("norm_q" in n for n in counted)


def test_biases_are_choices() -> None:
    names = {n for n, _ in opening(qkv_bias=False).named_parameters()}
    assert "qkv.bias" not in names and "proj.bias" in names
    model = tiny.model(tiny.image(linear_bias=False))
    biased = {n.split(".", 2)[-1] for n, _ in model.blocks.named_parameters(prefix="blocks") if n.endswith("bias")}
    assert biased == {"norm1.bias", "norm2.bias", "attn.qkv.bias", *(f"attn.norm_{x}.bias" for x in "qkv")}


def test_dropout_follows_the_projection() -> None:
    attn = opening(dropout=0.5).train()
    y, _ = attn(stream(), (8, 12))
    zeros = (y == 0).double().mean()
    assert 0.4 < zeros < 0.6
    undropped = attn.eval()(torch.zeros(1, 96, 8, dtype=torch.float64), (8, 12))[0]
    assert (undropped != 0).all()


def test_tables_of_the_axes_that_are_asked_for() -> None:
    tables = {}
    for space, time in itertools.product((True, False), repeat=2):
        attn = opening(tiny.clip(rel_pos_spatial=space, rel_pos_temporal=time))
        tables[space, time] = [name for name, _ in attn.named_parameters() if name.startswith("rel_pos")]
    assert tables[True, True] == ["rel_pos_t", "rel_pos_h", "rel_pos_w"]
    assert tables[True, False] == ["rel_pos_h", "rel_pos_w"]
    assert tables[False, True] == ["rel_pos_t"] and tables[False, False] == []


def test_axes_without_a_table_add_nothing() -> None:
    spatial = opening(tiny.clip(rel_pos_temporal=False))
    everything = opening(tiny.clip())
    everything.load_state_dict({**spatial.state_dict(), "rel_pos_t": torch.zeros(3, 8)})
    x = torch.randn(2, 1 + 2 * 8 * 8, 8, dtype=torch.float64)
    torch.testing.assert_close(spatial(x, (2, 8, 8))[0], everything(x, (2, 8, 8))[0], rtol=1e-12, atol=1e-12)


def test_tables_of_other_lengths_are_resampled() -> None:
    config = tiny.image()
    blocks = tuple(replace(b, table_rows=(9, 11)) for b in config.blocks)
    attn = opening(replace(config, blocks=blocks))
    assert attn.rel_pos_h.shape == (9, 8) and attn.rel_pos_w.shape == (11, 8)
    assert attn(stream(), (8, 12))[0].isfinite().all()


def test_first_rows_refuse_larger_inputs() -> None:
    attn = opening(table_resampling="first_rows")
    assert attn(torch.randn(1, 24, 8, dtype=torch.float64), (4, 6))[1] == (2, 3)
    with pytest.raises(ValueError, match='table_resampling="first_rows" cannot grow: use "linear" or "anchored"'):
        attn(torch.randn(1, 192, 8, dtype=torch.float64), (16, 12))


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean() -> None:
    drop = DropPath(0.3)
    kept = drop(torch.ones(20_000, 1, 1))
    assert sorted(kept.unique().tolist()) == pytest.approx([0, 1 / 0.7])
    assert kept.mean().item() == pytest.approx(1, abs=0.02)
    several = drop(torch.ones(50, 3, 4))
    assert torch.equal(several, several[:, :1, :1].expand_as(several))
    x = torch.randn(2, 3)
    assert drop.eval()(x) is x and DropPath(0.0)(x) is x
    assert repr(drop) == "DropPath(rate=0.300)"
