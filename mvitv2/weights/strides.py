"""Strides of the poolings, which no tensor has the shape of: told by the lengths of the position tables.

A table has ``2 * max(q, k) - 1`` rows for ``q`` queries and ``k`` keys along its axis, both of them the size that
enters the block divided by a stride and rounded down (mvit ``attention.py:199-204``). So a table tells the size that
enters its block, and the next one whether the block halved it. Where tables are silent, a block that opens a stage is
taken to halve the grid, as in every published model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from math import prod

from mvitv2.core.grid import Grid
from mvitv2.weights.evidence import BlockShapes, Evidence, without_tables

IMAGE_KEYS = 4
"""Key stride of the first stage of all published image models; that of clip models is the product of query strides."""
SPACE, CLIP = 2, 3


@dataclass(frozen=True)
class Strides:
    """Strides of every block, and what had to be assumed for them."""

    q: tuple[Grid, ...]
    kv: tuple[Grid, ...]
    assumed: tuple[str, ...]


def find_strides(found: Evidence, tokens: Grid, opens: Sequence[bool]) -> Strides:
    """Strides that give every position table its length.

    Args:
        found: What the file's tensors say of every block.
        tokens: The first grid.
        opens: Blocks that open a stage as far as widths or names tell, which decides where tables do not.
    """
    space, notes = _in_space(found, tokens[-SPACE:], tuple(opens))
    if found.rank == SPACE:
        return Strides(tuple((q, q) for q, _ in space), tuple((k, k) for _, k in space), tuple(notes))
    times = _in_time(found)
    if max(times) > 1:
        notes.append("keys are not strided in time beyond the queries")
    queries = tuple((t, q, q) for t, (q, _) in zip(times, space, strict=True))
    return Strides(queries, tuple((1, k, k) for _, k in space), tuple(notes))


def _in_space(found: Evidence, sides: Grid, opens: tuple[bool, ...]) -> tuple[list[tuple[int, int]], list[str]]:
    """Query and key stride of every block; of several explanations the one with the published key stride."""
    usual = published_keys(found.rank, 2 ** sum(opens))
    for freedom in Freedom:
        walks = {s: walk for s in (1, 2, 4, 8, 16) if (walk := explanation(found.blocks, sides, s, opens, freedom))}
        if walks:
            keys = min(walks, key=lambda s: (s != published_keys(found.rank, prod(q for q, _ in walks[s])), s))
            silent = len(walks) > 1 or freedom is Freedom.KEYS
            return list(walks[keys]), [f"key stride {keys} in the first stage"] if silent else []
    walk = explanation(without_tables(found.blocks), sides, usual, opens, Freedom.NONE)
    if walk is None:
        raise ValueError(f"a first grid of {sides} tokens cannot be halved {sum(opens)} times; give the configuration")
    return list(walk), ["strides of the published models, which these position tables do not fit"]


def published_keys(rank: int, shrinkage: int) -> int:
    """Key stride of the first stage of the published models, from the product of all query strides."""
    return shrinkage if rank == CLIP else min(IMAGE_KEYS, shrinkage)


class Freedom(Enum):
    """What an explanation of the tables may depart from."""

    NONE = "blocks that open a stage halve the grid, others do not, and query strides divide key strides"
    QUERIES = "any block may halve the grid"
    KEYS = "and key strides may drop to 1 anywhere"


Walk = tuple[tuple[int, int], ...]


def explanation(
    blocks: Sequence[BlockShapes], sides: Grid, keys: int, opens: Sequence[bool], freedom: Freedom
) -> Walk | None:
    """Query and key strides in space that give every table its length; ``None`` if there are none.

    Args:
        blocks: What the tensors tell.
        sides: Height and width of the first grid.
        keys: Key stride of the first stage.
        opens: Blocks that open a stage.
        freedom: What may be otherwise than in published models.
    """

    @cache
    def onwards(i: int, sides: Grid, keys: int) -> Walk | None:
        if i == len(blocks):
            return ()
        usual, other = (2, 1) if opens[i] and blocks[i].q_kernel is not None else (1, 2)
        for q in (usual,) if freedom is Freedom.NONE else (usual, other):
            left = max(keys // q, 1)
            for key in dict.fromkeys((left, 1) if freedom is Freedom.KEYS else (left,)):
                kv = 1 if blocks[i].kv_kernel is None else key
                if (q > 1 and blocks[i].q_kernel is None) or not _fits(blocks[i], sides, q, kv):
                    continue
                rest = onwards(i + 1, tuple(n // q for n in sides), key)
                if rest is not None:
                    return ((q, kv), *rest)
        return None

    return onwards(0, sides, keys)


def _fits(block: BlockShapes, sides: Grid, q: int, kv: int) -> bool:
    """Whether a block's tables have the lengths these strides ask for."""
    if min(sides) < q:
        return False
    wanted = {axis: 2 * max(n // q, n // kv) - 1 for axis, n in zip("hw", sides, strict=True)}
    return all(block.rows.get(axis, rows) == rows for axis, rows in wanted.items())


def _in_time(found: Evidence) -> list[int]:
    """Query strides in time: a table in time has ``2 * T - 1`` rows for the ``T`` that enters its block."""
    frames = [(b.rows["t"] + 1) // 2 if "t" in b.rows else None for b in found.blocks]
    strides: list[int] = []
    for before, after in zip(frames, [*frames[1:], None], strict=True):
        halved = before is not None and after is not None and after < before and after == before // 2
        strides.append(2 if halved else 1)
    return strides
