"""Weights that are followed back add up to what they started from, and lie where a model really looks."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import mvitv2
from mvitv2.core.model import MViT
from mvitv2.core.stages import detection, stages
from mvitv2.explain import (
    BlockAttention,
    attention_map,
    block_attention,
    block_map,
    grad_cam,
    on_pixels,
    overlay,
    readout_weights,
    rollout,
)
from mvitv2.explain.rollout import Pooling, back_through, pooling_of, spread
from mvitv2.explain.scores import read, score_gradient

KINDS: dict[str, dict[str, Any]] = {
    "image": {},
    "class token": {"class_token": True, "readout": "class_token"},
    "class token in the mean": {"class_token": True, "readout": "mean_norm", "residual_pooling": "all"},
    "no residual pooling": {"residual_pooling": "none", "pool_mode": "max"},
    "average pooling": {"pool_mode": "avg"},
    "pool first": {"pool_first": True, "separate_qkv": True},
}


def small(**changes: Any) -> Any:
    blocks = stages(depths=(1, 2, 1), embed_dim=8, kv_stride=(4, 4))
    model = mvitv2.create_model("mvitv2_t", **{"blocks": blocks, "img_size": 32, "num_classes": 5, **changes})
    assert isinstance(model, MViT)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (37, 51), (64, 20)])
def test_rows_sum_to_one_and_nothing_is_lost_on_the_way_back(kind: str, size: tuple[int, int]) -> None:
    model = small(**KINDS[kind])
    pixels = torch.randn(2, 3, *size)
    records = block_attention(model, pixels)
    assert len(records) == 4
    assert not any("mix_grids" in vars(block.attn) for block in model.blocks)
    weight = readout_weights(model, pixels)
    for record in reversed(records):
        torch.testing.assert_close(record.weights.sum(dim=-1), torch.ones(record.weights.shape[:-1]))
        torch.testing.assert_close(weight.sum(dim=1), torch.ones(2))
        weight = back_through(record, weight)
        assert (weight >= 0).all()
    patches = rollout(records, readout_weights(model, pixels))
    torch.testing.assert_close(patches.flatten(1).sum(dim=1), torch.ones(2))
    assert attention_map(model, pixels).shape == grad_cam(model, pixels).shape == (2, *size)


def test_recording_changes_no_output() -> None:
    from mvitv2.explain.rollout import recording

    model = small().eval()
    pixels = torch.randn(1, 3, 40, 24)
    expected = model(pixels)
    with recording(list(model.blocks)) as records:
        assert torch.equal(model(pixels), expected)
    assert len(records) == 4
    assert torch.equal(model(pixels), expected)


def test_weights_are_those_of_the_attention() -> None:
    model = small().eval()
    with torch.no_grad():
        x, grid = model.embed(torch.randn(1, 3, 32, 32))
        attn = model.blocks[0].attn
        y = model.blocks[0].norm1(x)
        (q, q_grid), (k, k_grid), (v, _) = attn.queries_keys_values(y, grid)
        weights = block_attention(model, torch.zeros(1, 3, 32, 32))[0].weights
        assert weights.shape == (1, 1, 64, 4)
        record = _first_record(model, x, grid)
        torch.testing.assert_close(record.weights @ v, attn.mix(q, k, v, q_grid, k_grid))


def _first_record(model: Any, x: torch.Tensor, grid: tuple[int, ...]) -> BlockAttention:
    from mvitv2.explain.rollout import recording

    with recording([model.blocks[0]]) as records:
        model.blocks[0](x, grid)
    return records[0]


def test_clips_and_windows() -> None:
    clip: Any = mvitv2.create_model("mvitv2_s_16x4", num_frames=4, img_size=32, num_classes=3)
    assert attention_map(clip, torch.randn(1, 3, 4, 32, 48)).shape == (1, 4, 32, 48)
    windowed = small(blocks=detection(stages(depths=(1, 2, 1), embed_dim=8, kv_stride=(4, 4)), 4))
    records = block_attention(windowed, torch.randn(1, 3, 64, 64))
    assert records[0].weights.shape == (1, 1, 256, 16)
    far = records[0].weights[0, 0, 0].unflatten(0, (4, 4))
    assert far[0, 0] > 0
    assert far[1:, 1:].abs().max() == 0
    maps = rollout(records, readout_weights(windowed, torch.randn(1, 3, 64, 64)))
    torch.testing.assert_close(maps.sum(), torch.ones(()))


@pytest.mark.parametrize(
    "grid, kernel, stride", [((7, 9), (3, 3), (2, 2)), ((8, 5), (3, 3), (4, 2)), ((6, 6), (1, 1), (1, 1))]
)
def test_spreading_is_the_transpose_of_a_normed_pooling(
    grid: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int]
) -> None:
    padding = (kernel[0] // 2, kernel[1] // 2)
    pooling = Pooling(torch.rand(kernel) + 0.1, stride, padding)
    mean = nn.Conv2d(1, 1, kernel, stride, padding, bias=False)
    mean.weight.data[:] = pooling.window
    rows = torch.stack([mean(one.view(1, 1, *grid)).flatten() for one in torch.eye(grid[0] * grid[1])], dim=1)
    rows = rows / rows.sum(dim=1, keepdim=True)
    q_grid = tuple(mean(torch.zeros(1, 1, *grid)).shape[2:])
    weight = torch.rand(2, q_grid[0] * q_grid[1])
    torch.testing.assert_close(spread(weight, q_grid, grid, pooling), weight @ rows.detach())


def test_windows_of_poolings() -> None:
    conv = nn.Conv2d(4, 4, 3, 2, 1, groups=4, bias=False)
    conv.weight.data.zero_()
    conv.weight.data[:, :, 1, 1] = -2.0
    found = pooling_of(conv)
    assert found is not None
    assert found.window[1, 1] == pytest.approx(1.0, abs=1e-5)
    assert found.window.sum() == pytest.approx(1.0, abs=1e-4)
    assert pooling_of(None) is None


def test_a_model_that_attends_to_one_place_is_followed_there() -> None:
    grid, place = (6, 8), 3 * 8 + 5
    weights = torch.full((1, 1, 48, 48), 1e-6)
    weights[..., place] = 1.0
    record = BlockAttention(weights / weights.sum(dim=-1, keepdim=True), grid, grid, grid)
    maps = rollout([record, record], torch.full((1, 48), 1 / 48))
    assert maps.shape == (1, 6, 8)
    assert maps[0].argmax() == place
    assert maps[0].max() > 0.7
    pooled = replace(
        record, weights=record.weights[..., :12], k_grid=(3, 4), v_pooling=Pooling(torch.ones(3, 3), (2, 2), (1, 1))
    )
    pooled.weights[:] = 1e-9
    pooled.weights[..., 11] = 1.0
    maps = rollout([pooled], torch.full((1, 48), 1 / 48))
    assert maps[0, 3:, 5:].min() > 5 * maps[0, :3].max()


def looking_at_red() -> Any:
    """A model whose blocks leave the stream as it is, whose tokens say how red a patch is, and whose class 1 is red."""
    model = small(blocks=stages(depths=(1,), embed_dim=8, kv_stride=(2, 2)), num_classes=2).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.patch_embed.proj.weight[0, 0] = 1 / 49
        model.patch_embed.proj.weight[1, 1] = 1 / 49
        model.norm.weight.fill_(1.0)
        model.head.projection.weight[1, 0] = 1.0
        model.head.projection.weight[0, 1] = 1.0
    return model


@pytest.mark.parametrize("size", [(32, 32), (45, 67)])
def test_a_model_whose_score_depends_on_one_region_shows_that_region(size: tuple[int, int]) -> None:
    model, pixels = looking_at_red(), torch.zeros(1, 3, *size)
    pixels[:, 1] = 0.2
    pixels[:, 0, 16:28, 4:16] = 3.0
    for found in (grad_cam(model, pixels, 1)[0], attention_map(model, pixels, 1)[0]):
        outside = found.clone()
        outside[10:36, :24] = 0  # as far as patches reach that see some of the region
        assert found[16:28, 4:16].mean() > 2 * outside.max()
    other = attention_map(model, pixels, 0)[0]
    assert 2 * other[18:26, 6:14].mean() < other[:, 24:].mean()


@pytest.mark.parametrize("kind", KINDS)
def test_what_tokens_add_is_the_score(kind: str) -> None:
    model = small(**KINDS[kind])
    found = read(model, torch.randn(2, 3, 32, 32))
    if model.config.readout == "norm_mean":
        gradient = score_gradient(found.scores, found.tokens, torch.tensor([1, 4]))
        added = (found.tokens * gradient).sum(dim=(1, 2)) + model.head.projection.bias[[1, 4]]
        above = found.scores[[0, 1], [1, 4]] - found.scores.mean(dim=1) + model.head.projection.bias.mean()
        torch.testing.assert_close(added, above)
    weights = readout_weights(model, torch.randn(2, 3, 32, 32), 2)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    if model.config.readout == "class_token":
        assert (weights[:, 0] == 1).all()


def test_targets_may_differ_by_image() -> None:
    model, pixels = small(), torch.randn(3, 3, 32, 32)
    many = grad_cam(model, pixels, torch.tensor([0, 1, 2]))
    for i in range(3):
        torch.testing.assert_close(many[i], grad_cam(model, pixels[i : i + 1], i)[0], rtol=1e-4, atol=1e-7)
    assert not many.requires_grad
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("stage, side", [(0, 8), (1, 4), (-1, 2)])
def test_grad_cam_of_every_stage(stage: int, side: int) -> None:
    model = small()
    assert grad_cam(model, torch.randn(1, 3, 32, 32), stage=stage).shape == (1, 32, 32)
    with pytest.raises(ValueError, match="must name stages of 3"):
        grad_cam(model, torch.randn(1, 3, 32, 32), stage=3)


def test_one_block_head_and_query() -> None:
    model = small(**KINDS["class token"])
    record = block_attention(model, torch.randn(2, 3, 32, 32))[1]
    assert record.k_grid == (4, 4)
    assert block_map(record).shape == block_map(record, head=1).shape == (2, 4, 4)
    torch.testing.assert_close(block_map(record, head=0)[0].flatten(), record.weights[0, 0, 0, 1:])
    torch.testing.assert_close(
        block_map(record, query=(1, 2)), record.weights.mean(1)[:, 1 + 6, 1:].unflatten(1, (4, 4))
    )
    with pytest.raises(ValueError, match="head=2 is none of 2: 0 to 1"):
        block_map(record, head=2)
    with pytest.raises(ValueError, match=r"query=\(4, 0\) is no place on a grid of \(4, 4\)"):
        block_map(record, query=(4, 0))


def test_what_cannot_be_explained() -> None:
    reversible = mvitv2.create_model("mvitv1_b_rev" if "mvitv1_b_rev" in mvitv2.list_models() else _reversible())
    with pytest.raises(ValueError, match="the reversible form has none, use grad_cam"):
        block_attention(reversible, torch.zeros(1, 3, 32, 32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no classifier"):
        grad_cam(small(num_classes=0), torch.zeros(1, 3, 32, 32))


def _reversible() -> str:
    return next(name for name in mvitv2.list_models() if mvitv2.model_config(name).reversible and "x" not in name)


def test_overlays_are_pictures() -> None:
    image = Image.new("L", (50, 30), 128)
    weights = torch.zeros(3, 5)
    weights[1, 1] = 1.0
    drawn = overlay(image, weights)
    assert (drawn.size, drawn.mode) == ((50, 30), "RGB")
    lightness = np.asarray(drawn.convert("L"))
    assert lightness[14, 14] > lightness[5, 45]
    assert overlay(image, torch.ones(2, 2)).getpixel((3, 3)) == overlay(image, torch.zeros(2, 2)).getpixel((40, 20))
    assert on_pixels(torch.rand(2, 3, 4), (9, 8)).shape == (2, 9, 8)
