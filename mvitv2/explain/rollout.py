"""Attention followed back through the pooling strides, from what the classifier reads to the patches.

A block of MViT mixes tokens along four paths, each a row of weights that sums to 1: attention over pooled values, the
pooling that made those values, the pooled queries that are added again (eq. 5), and the pooled shortcut.
:func:`rollout` walks them backwards, from what the classifier reads to the patches (after Abnar and Zuidema 2020, arXiv
2005.00928, whose blocks all have one grid). It carries one weight per token, never a matrix of tokens by tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvitv2.core.attend import reference
from mvitv2.core.attention import pooling_attention
from mvitv2.core.grid import Grid, num_prefix
from mvitv2.core.model import MultiScaleBlock, MViT

CONV = {2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {2: F.conv_transpose2d, 3: F.conv_transpose3d}
UPSAMPLING = {2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Pooling:
    """How a pooled token is made of the tokens under a window."""

    window: Tensor
    """Weight of every place, none negative, ``(*kernel)``."""
    stride: Grid
    padding: Grid


@dataclass(frozen=True)
class BlockAttention:
    """What one block did with its tokens; a class token stands before those of the grid."""

    weights: Tensor
    """``(B, h, L', L'')``: pooled queries by pooled keys; rows sum to 1, or less where zero keys fill up a window."""
    grid: Grid
    """Tokens that entered."""
    q_grid: Grid
    """Pooled queries, which are the tokens that left."""
    k_grid: Grid
    """Pooled keys and values."""
    residual: str = "none"
    """Residual pooling: ``"none"``, ``"grid"`` or ``"all"``."""
    q_pooling: Pooling | None = None
    v_pooling: Pooling | None = None
    skip_pooling: Pooling | None = None
    """``None`` where that path keeps its grid."""


@torch.no_grad()
def block_attention(model: MViT, pixels: Tensor) -> list[BlockAttention]:
    """The attention of every block for some images or clips, first block first.

    Args:
        model: Any MViT but the reversible form, whose blocks carry two streams.
        pixels: ``(B, C, H, W)`` or ``(B, C, T, H, W)``, any size.

    Raises:
        ValueError: The model is reversible.
    """
    blocks = [block for block in model.modules() if isinstance(block, MultiScaleBlock)]
    if not blocks:
        raise ValueError("attention is followed through MultiScaleBlocks; the reversible form has none, use grad_cam")
    with eval_mode(model), recording(blocks) as records:
        model.trunk(pixels)
    return records


@contextmanager
def recording(blocks: Sequence[MultiScaleBlock]) -> Iterator[list[BlockAttention]]:
    """Inside, every forward pass of these blocks appends what their attention did; after, they are as before."""
    records: list[BlockAttention] = []
    entered: list[Grid] = []
    hooks = [block.register_forward_pre_hook(lambda _, given: entered.append(given[1])) for block in blocks]
    wholes = [block.attn.run for block in blocks]
    try:
        for block in blocks:
            vars(block.attn)["mix_grids"] = _recorder(block, entered, records)
            block.attn.run = pooling_attention  # a fused whole has no step to record
        yield records
    finally:
        for hook, block, whole in zip(hooks, blocks, wholes, strict=True):
            hook.remove()
            vars(block.attn).pop("mix_grids", None)
            block.attn.run = whole


def _recorder(block: MultiScaleBlock, entered: list[Grid], records: list[BlockAttention]) -> Any:
    """``mix_grids`` of a block's attention that notes its weights as well."""
    attn, mix_grids = block.attn, type(block.attn).mix_grids
    poolings = (pooling_of(attn.pool_q), pooling_of(attn.pool_v), pooling_of(block.pool_skip))

    def mix(q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, k_grid: Grid) -> Tensor:
        # attention is linear in the values: what it makes of the identity are its weights, windows and all
        backend, keys = attn.attend, k.shape[2]
        attn.attend = reference
        try:
            identity = torch.eye(keys, dtype=v.dtype, device=v.device).expand(*v.shape[:2], keys, keys)
            weights = mix_grids(attn, q, k, identity, q_grid, k_grid)
        finally:
            attn.attend = backend
        records.append(BlockAttention(weights, entered[-1], q_grid, k_grid, attn.residual, *poolings))
        return mix_grids(attn, q, k, v, q_grid, k_grid)

    return mix


def pooling_of(layer: Any) -> Pooling | None:
    """The window of a pooling layer: how large a convolution's kernel is at each place, or the same everywhere."""
    if layer is None:
        return None
    if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
        window = layer.weight.detach().float().abs().mean(dim=(0, 1))
    else:
        window = torch.ones(layer.kernel_size)
    # a place that weighs nothing keeps a trace, so that a window cut off at the border is never empty
    window = window / window.sum().clamp_min(1e-12) + 1e-6
    return Pooling(window, tuple(layer.stride), tuple(int(n) for n in layer.padding))


def spread(weight: Tensor, q_grid: Grid, grid: Grid, pooling: Pooling | None) -> Tensor:
    """Weights of pooled tokens, given back to the tokens they were made of; sums are kept.

    Args:
        weight: ``(B, P + N')``.
        q_grid: Their grid.
        grid: The grid before pooling.
        pooling: ``None`` where nothing was pooled.

    Returns:
        ``(B, P + N)``.
    """
    if pooling is None:
        return weight
    rank, p = len(grid), num_prefix(weight[..., None], q_grid)
    window = pooling.window.to(weight)[None, None]
    inside = CONV[rank](weight.new_ones(1, 1, *grid), window, stride=pooling.stride, padding=pooling.padding)
    least = [
        (n - 1) * s - 2 * d + k
        for n, s, d, k in zip(q_grid, pooling.stride, pooling.padding, window.shape[2:], strict=True)
    ]
    missing = [n - m for n, m in zip(grid, least, strict=True)]
    lattice = weight[:, p:].unflatten(1, q_grid)[:, None] / inside
    given = CONV_TRANSPOSE[rank](lattice, window, None, pooling.stride, pooling.padding, missing)
    return torch.cat((weight[:, :p], given.flatten(1)), dim=1)


def back_through(record: BlockAttention, weight: Tensor) -> Tensor:
    """Weights ``(B, L')`` of the tokens that left a block, as weights ``(B, L)`` of those that entered; sums are kept.

    Half goes along the shortcut, half through the attention; with residual pooling, half of that along the queries.
    """
    p = num_prefix(weight[..., None], record.q_grid)
    rows = record.weights.float().mean(dim=1)
    rows = rows / rows.sum(dim=-1, keepdim=True).clamp_min(1e-12)
    kept = torch.zeros_like(weight)
    if record.residual != "none":
        kept = weight * 0.25
        kept[:, : p if record.residual == "grid" else 0] = 0.0
    attended = torch.einsum("bq,bqk->bk", weight * 0.5 - kept, rows)
    return (
        spread(weight * 0.5, record.q_grid, record.grid, record.skip_pooling)
        + spread(kept, record.q_grid, record.grid, record.q_pooling)
        + spread(attended, record.k_grid, record.grid, record.v_pooling)
    )


def rollout(records: Sequence[BlockAttention], start: Tensor) -> Tensor:
    """How much each patch weighs in what the classifier reads.

    Args:
        records: Of all blocks, first block first.
        start: Weight of each token that left the last block, ``(B, L')``; see :func:`readout_weights`.

    Returns:
        ``(B, *grid)`` of the patches, sum 1; what a class token holds of its own start is left out.
    """
    weight = start
    for record in reversed(records):
        weight = back_through(record, weight)
    grid = records[0].grid
    patches = weight[:, num_prefix(weight[..., None], grid) :]
    return (patches / patches.sum(dim=1, keepdim=True).clamp_min(1e-12)).unflatten(1, grid)


def block_map(record: BlockAttention, *, head: int | None = None, query: Grid | None = None) -> Tensor:
    """What one block attends to, ``(B, *k_grid)``: on average, or one head's, or what one query attends to.

    Args:
        record: Of the block.
        head: Which head; ``None`` for the mean of all.
        query: Place on the grid of pooled queries; ``None`` for the class token where there is one, else for the mean.

    Raises:
        ValueError: There is no such head or place.
    """
    heads, p = (
        record.weights.shape[1],
        num_prefix(record.weights.new_empty(1, record.weights.shape[2], 0), record.q_grid),
    )
    if head is not None and not 0 <= head < heads:
        raise ValueError(f"head={head} is none of {heads}: 0 to {heads - 1}")
    weights = record.weights.mean(dim=1) if head is None else record.weights[:, head]
    keys = weights[..., weights.shape[2] - torch.Size(record.k_grid).numel() :].unflatten(-1, record.k_grid)
    if query is not None:
        if len(query) != len(record.q_grid) or any(not 0 <= i < n for i, n in zip(query, record.q_grid, strict=True)):
            raise ValueError(f"query={query} is no place on a grid of {record.q_grid}")
        return keys[:, p:].unflatten(1, record.q_grid)[(slice(None), *query)]
    return keys[:, 0] if p else keys.mean(dim=1)


def on_pixels(weights: Tensor, size: Grid) -> Tensor:
    """A map ``(B, *grid)`` drawn out to the size of the pixels, ``(B, *size)``."""
    return F.interpolate(weights[:, None].float(), size=size, mode=UPSAMPLING[len(size)], align_corners=False)[:, 0]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; after, the mode that was."""
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)
