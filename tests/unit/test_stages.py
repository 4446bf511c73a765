"""The rules by which published models fill in their blocks."""

from dataclasses import replace

import pytest

from mvitv2.core.config import schedule
from mvitv2.core.stages import adaptive, detection, floor_tables, pooling_kernel, stages
from mvitv2.variants import VARIANTS
from tests import tiny


def test_a_stage_opens_with_a_strided_query() -> None:
    blocks = stages(depths=(1, 2, 5, 2))
    assert [i for i, b in enumerate(blocks) if b.q_stride == (2, 2)] == [1, 3, 8]
    assert [b.stage for b in blocks] == [0, 1, 1, *[2] * 5, 3, 3]
    assert [b.kv_stride[0] for b in blocks] == [4, 2, 2, *[1] * 7]
    assert all(b.q_kernel == b.kv_kernel == (3, 3) for b in blocks)


def test_where_channels_double() -> None:
    attention, mlp = stages(depths=(2, 2)), stages(depths=(2, 2), expand_in="mlp")
    assert [(b.dim_in, b.dim_attn, b.dim_out) for b in attention] == [(96,) * 3] * 2 + [(96, 192, 192), (192,) * 3]
    assert [(b.dim_in, b.dim_attn, b.dim_out) for b in mlp] == [(96,) * 3, (96, 96, 192)] + [(192,) * 3] * 2
    assert [b.num_heads for b in mlp] == [1, 1, 2, 2]


def test_numbers_of_each_stage() -> None:
    blocks = stages(
        depths=(1, 1), embed_dim=(8, 24), num_heads=(2, 3), q_stride=((2, 2), (4, 4)), kv_stride=((8, 8), (1, 1))
    )
    assert [(b.dim_attn, b.num_heads, b.q_stride, b.kv_stride) for b in blocks] == [
        (8, 2, (2, 2), (8, 8)),
        (24, 3, (4, 4), (1, 1)),
    ]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"embed_dim": (8, 16, 32)}, r"\(8, 16, 32\) needs 2 numbers, one per stage"),
        ({"num_heads": (1,)}, r"\(1,\) needs 2 numbers, one per stage"),
        ({"q_stride": ((1, 1),)}, r"\(\(1, 1\),\) needs 2 strides, one per stage"),
        ({"kv_stride": ((1, 1), (1, 1), (1, 1))}, "needs 2 strides, one per stage"),
    ],
)
def test_one_number_per_stage(numbers: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stages(depths=(1, 1), **numbers)


def test_adaptive_strides_keep_the_key_grid() -> None:
    assert adaptive((1, 8, 8), ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2), (1, 2, 2))) == (
        (1, 8, 8),
        (1, 4, 4),
        (1, 2, 2),
        (1, 1, 1),
        (1, 1, 1),
    )


def test_kernels_that_do_nothing_are_left_out() -> None:
    assert pooling_kernel((1, 1), (1, 1)) is None and pooling_kernel(None, (2, 2)) is None
    assert pooling_kernel((1, 1), (2, 2)) == (1, 1) and pooling_kernel((3, 1), (1, 1)) == (3, 1)


def test_kernels_one_wider_than_their_strides() -> None:
    blocks = stages(depths=(1, 1, 1, 1), kernel=None, q_stride=(1, 2, 2), kv_stride=(1, 8, 8), pool_every_query=False)
    assert [b.kv_kernel for b in blocks] == [(1, 9, 9), (1, 5, 5), (1, 3, 3), None]
    assert [b.q_kernel for b in blocks] == [None, (1, 3, 3), (1, 3, 3), (1, 3, 3)]


def test_first_version_pools_queries_only_where_the_grid_shrinks() -> None:
    blocks = stages(depths=(1, 2), pool_every_query=False)
    assert [b.q_kernel for b in blocks] == [None, (3, 3), None] and all(b.kv_kernel == (3, 3) for b in blocks)


def test_detection_windows() -> None:
    """Windows everywhere but before a level; the block that opens a stage has the window of the stage before."""
    blocks = detection(stages(depths=(1, 2, 5, 2)), 56)
    assert [b.window for b in blocks] == [56, 56, None, 28, 14, 14, 14, None, 14, None]
    # keys of the global blocks are pooled twice as hard, but for the last stage
    assert [b.kv_stride[0] for b in blocks] == [4, 2, 4, 1, 1, 1, 1, 2, 1, 1]


def test_stage_of_one_block_looks_everywhere() -> None:
    blocks = detection(stages(depths=(1, 1, 1)), 8)
    assert [b.window for b in blocks] == [8, None, None]


def test_tables_of_odd_sizes() -> None:
    """312 pixels are 78, 39 and 20 tokens, but released tables count 78, 39 and 19."""
    config = VARIANTS["mvitv2_l_40x3"]
    needed = schedule(replace(config, blocks=tuple(replace(b, table_rows=None) for b in config.blocks)))
    first_of_stage_two = next(i for i, b in enumerate(config.blocks) if b.stage == 2)
    assert needed[first_of_stage_two].q_grid == (20, 20, 20)
    assert config.blocks[first_of_stage_two + 1].table_rows == (39, 37, 37)
    assert config.blocks[0].table_rows == (39, 155, 155)


def test_tables_of_even_sizes_are_those_that_are_needed() -> None:
    for config in (tiny.image(input_size=(64, 64)), tiny.clip()):
        for block, spec in zip(floor_tables(config).blocks, schedule(config), strict=True):
            rows = tuple(2 * max(q, k) - 1 for q, k in zip(spec.q_grid, spec.kv_grid, strict=True))
            assert block.table_rows == rows
