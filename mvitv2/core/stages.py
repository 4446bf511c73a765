"""The rules by which published models fill in their blocks: stages, adaptive strides, windows for detection."""

from dataclasses import replace
from typing import Literal

from .config import BlockConfig, MViTConfig
from .grid import Grid, one_wider

TIME_AND_SPACE = 3


def stages(
    *,
    depths: tuple[int, ...],
    embed_dim: int | tuple[int, ...] = 96,
    num_heads: int | tuple[int, ...] = 1,
    kernel: Grid | None = (3, 3),
    q_stride: Grid | tuple[Grid, ...] = (2, 2),
    kv_stride: Grid | tuple[Grid, ...] = (4, 4),
    expand_in: Literal["attention", "mlp"] = "attention",
    pool_every_query: bool = True,
) -> tuple[BlockConfig, ...]:
    """Blocks in stages: a stage opens with a strided query pooling and twice the channels and heads (paper Table 1).

    Args:
        depths: Blocks per stage.
        embed_dim: Channels of the first stage, which double, or of each.
        num_heads: Heads of the first stage, which double, or of each.
        kernel: Kernel of all poolings; ``None`` for kernels one wider than their strides.
        q_stride: Query stride of the block that opens any stage but the first, or of each stage.
        kv_stride: Key stride of the first stage, which ``q_stride`` divides stage by stage ("adaptive"), or of each.
        expand_in: Where channels double: in the attention that opens a stage, or in the MLP that closes the one before.
        pool_every_query: MViTv2 pools queries in every block, MViTv1 only where the grid shrinks.
    """
    count = len(depths)
    dims, heads = _per_stage(embed_dim, count), _per_stage(num_heads, count)
    q_strides = _each(q_stride, count) or opening(_one(q_stride), count)
    kv_strides = _each(kv_stride, count) or adaptive(_one(kv_stride), q_strides)
    still = (1,) * len(q_strides[0])
    blocks: list[BlockConfig] = []
    for stage, depth in enumerate(depths):
        for place in range(depth):
            opens, closes = place == 0, place == depth - 1
            stride, kv = q_strides[stage] if opens else still, kv_strides[stage]
            pools_query = pool_every_query or max(stride) > 1
            dim_in = blocks[-1].dim_out if blocks else dims[0]
            widened = dims[min(stage + 1, count - 1)] if closes else dims[stage]
            blocks.append(
                BlockConfig(
                    stage=stage,
                    dim_in=dim_in,
                    dim_attn=dims[stage],
                    dim_out=dims[stage] if expand_in == "attention" else widened,
                    num_heads=heads[stage],
                    q_stride=stride,
                    kv_stride=kv,
                    q_kernel=pooling_kernel(kernel or one_wider(stride), stride) if pools_query else None,
                    kv_kernel=pooling_kernel(kernel or one_wider(kv), kv),
                )
            )
    return tuple(blocks)


def opening(q_stride: Grid, count: int) -> tuple[Grid, ...]:
    """Query strides of the first block of every stage; the first stage keeps the grid of the patches."""
    return ((1,) * len(q_stride), *[q_stride] * (count - 1))


def adaptive(kv_stride: Grid, q_strides: tuple[Grid, ...]) -> tuple[Grid, ...]:
    """Key strides that keep the key grid of one size: every query stride divides what is left, down to 1."""
    strides: list[Grid] = []
    for q_stride in q_strides:
        kv_stride = tuple(max(kv // q, 1) for kv, q in zip(kv_stride, q_stride, strict=True))
        strides.append(kv_stride)
    return tuple(strides)


def pooling_kernel(kernel: Grid | None, stride: Grid) -> Grid | None:
    """The kernel, or ``None`` where it would do nothing: the peers leave out pooling by 1 with stride 1."""
    if kernel is None or (max(kernel) == 1 and max(stride) == 1):
        return None
    return kernel


def detection(blocks: tuple[BlockConfig, ...], window: int) -> tuple[BlockConfig, ...]:
    """Hybrid window attention for large images (paper Sec. 4.3, detectron2 ``mvit.py:366-410``).

    Blocks attend inside windows, except the last block of every stage but the first: it feeds the pyramid, looks
    everywhere and, except in the last stage, pools keys twice as hard to afford it. A stage's first block still has the
    window of the stage before, because its input does.

    Args:
        blocks: What :func:`stages` made.
        window: Side of the first stage's windows in tokens; halves with every stage.
    """
    last = blocks[-1].stage
    detector: list[BlockConfig] = []
    for block, after in zip(blocks, (*blocks[1:], None), strict=True):
        opens = block.stage > 0 and detector[-1].stage != block.stage
        side = window >> (block.stage - opens)
        looks_everywhere = block.stage > 0 and (after is None or after.stage != block.stage)
        harder = 2 if looks_everywhere and block.stage < last else 1
        kv_stride = tuple(harder * s for s in block.kv_stride)
        detector.append(replace(block, kv_stride=kv_stride, window=None if looks_everywhere else side))
    return tuple(detector)


def floor_tables(config: MViTConfig) -> MViTConfig:
    """Position tables of the lengths that peers' files have: sizes by ``size // stride``, not by what the layers leave.

    The two differ where a size is odd, as for clips of 312 pixels (78, 39, then 19 by division and 20 by pooling).
    """
    grid = tuple(n // s for n, s in zip(config.input_size, config.patch_stride, strict=True))
    blocks: list[BlockConfig] = []
    for block in config.blocks:
        q_grid, kv_grid = (
            tuple(n // s for n, s in zip(grid, stride, strict=True)) for stride in (block.q_stride, block.kv_stride)
        )
        rows = [2 * max(q, k) - 1 for q, k in zip(q_grid, kv_grid, strict=True)]
        if config.rank == TIME_AND_SPACE:
            rows[0] = 2 * grid[0] - 1
        blocks.append(replace(block, table_rows=tuple(rows)))
        grid = q_grid
    return replace(config, blocks=tuple(blocks))


def _per_stage(first: int | tuple[int, ...], count: int) -> tuple[int, ...]:
    values = first if isinstance(first, tuple) else tuple(first * 2**stage for stage in range(count))
    if len(values) != count:
        raise ValueError(f"{values} needs {count} numbers, one per stage")
    return values


def _each(strides: Grid | tuple[Grid, ...], count: int) -> tuple[Grid, ...]:
    each = tuple(stride for stride in strides if isinstance(stride, tuple))
    if each and len(each) != count:
        raise ValueError(f"{strides} needs {count} strides, one per stage")
    return each


def _one(stride: Grid | tuple[Grid, ...]) -> Grid:
    return tuple(step for step in stride if isinstance(step, int))
