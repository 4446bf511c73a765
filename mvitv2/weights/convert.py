"""The same model under other names: state dicts of any dialect to ours and back."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor

from mvitv2.core.config import AXES, MViTConfig, schedule
from mvitv2.core.relpos import table_rows
from mvitv2.weights.dialects import Dialect
from mvitv2.weights.rename import DialectError, Numbering, renamed, reversed_rules

State = dict[str, Tensor]


@dataclass
class Ours:
    """A state dict under our names, and what is beside it."""

    state: State
    beside: State = field(default_factory=dict)
    """Tensors of other parts, under their names."""
    prefix: str = ""


def to_ours(tensors: Mapping[str, Tensor], dialect: Dialect, depths: tuple[int, ...]) -> Ours:
    """Rename a checkpoint of a dialect.

    Args:
        tensors: Names as in the file.
        dialect: Whose names they are.
        depths: Blocks per stage.

    Raises:
        DialectError: Names that no rule fits, or second names whose values differ from the first.
    """
    prefix = prefix_of(tensors, dialect)
    plain = {strip_prefix(name, prefix): value for name, value in tensors.items()}
    aliases = {n for n in plain if _matches(n, dialect.aliases)}
    beside = {n: plain[n] for n in sorted(plain) if _matches(n, dialect.besides)}
    _check_aliases(plain, aliases)
    kept = {n: v for n, v in plain.items() if n not in aliases and n not in beside}
    state = renamed(kept, dialect.rules, Numbering(depths), what=dialect.name)
    unflat = {n: v[(None,) * (3 - v.ndim)] if n in dialect.flat and 0 < v.ndim < 3 else v for n, v in state.items()}
    return Ours(unflat, beside, prefix)


def to_theirs(state: Mapping[str, Tensor], dialect: Dialect, config: MViTConfig, *, prefix: str | None = None) -> State:
    """Rename a state dict of ours for a dialect, shapes included.

    Args:
        state: Ours.
        dialect: Theirs.
        config: The model's, which tells how blocks lie in stages.
        prefix: What stands before every name; the dialect's first if not given.
    """
    state = dict(state)
    for name in dialect.flat:
        if name in state:
            single = name in ("cls_token", "pos_embed_class")
            state[name] = state[name][0, 0] if single else state[name][0]
    theirs = renamed(state, reversed_rules(dialect.rules), Numbering(depths_of(config)), what="own")
    prefix = dialect.prefixes[0] if prefix is None else prefix
    named = {name if _unprefixed(name) else prefix + name: value for name, value in theirs.items()}
    return {**named, **_second_names(named, dialect)}


def _second_names(named: State, dialect: Dialect) -> State:
    """pytorchvideo registers the poolings and their norms twice."""
    if not dialect.aliases:
        return {}
    second: State = {}
    for name, value in named.items():
        if match := re.fullmatch(r"(.+\.attn)\.(pool|norm)_([qkv])\.(.+)", name):
            attn, part, q, x = match.groups()
            second[f"{attn}._attention_pool_{q}.{part}.{x}"] = value
    return second


def _check_aliases(plain: Mapping[str, Tensor], aliases: set[str]) -> None:
    wrong: list[str] = []
    for name in aliases:
        first = re.sub(r"_attention_pool_([qkv])\.(pool|norm)", r"\2_\1", name)
        if first not in plain or not _same(plain[first], plain[name]):
            wrong.append(name)
    if wrong:
        raise DialectError(f"{len(wrong)} second names differ from the first: {', '.join(sorted(wrong))}")


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal, or of equal shape where there are no values to compare."""
    return a.shape == b.shape and (a.is_meta or torch.equal(a.nan_to_num(), b.nan_to_num()))


def prefix_of(tensors: Mapping[str, Tensor], dialect: Dialect) -> str:
    """The prefix that the backbone's names of this file have."""
    for prefix in dialect.prefixes:
        if prefix and any(name.startswith(prefix) for name in tensors):
            return prefix
    return ""


def strip_prefix(name: str, prefix: str) -> str:
    """A name without the prefix; names of heads have none."""
    return name.removeprefix(prefix)


def _unprefixed(name: str) -> bool:
    return name.startswith(("head.", "cls_head.", "proposal_generator.", "roi_heads."))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def depths_of(config: MViTConfig) -> tuple[int, ...]:
    """Blocks per stage."""
    counts = [0] * config.num_stages
    for block in config.blocks:
        counts[block.stage] += 1
    return tuple(counts)


def with_tables_of(config: MViTConfig, state: Mapping[str, Tensor]) -> MViTConfig:
    """The config with the position tables' lengths of a file, where they are not those its grids need."""
    blocks = []
    for index, spec in enumerate(schedule(config)):
        needed = tuple(table_rows(q, k) for q, k in zip(spec.q_grid, spec.kv_grid, strict=True))
        rows = tuple(
            _rows(state, index, axis, default) for axis, default in zip(AXES[config.rank], needed, strict=True)
        )
        blocks.append(replace(config.blocks[index], table_rows=None if rows == needed else rows))
    return replace(config, blocks=tuple(blocks))


def _rows(state: Mapping[str, Tensor], block: int, axis: str, default: int) -> int:
    for trunk in ("blocks", "bottom_up.blocks", "rev_backbone.layers"):
        for part in ("attn", "F.attn"):
            table = state.get(f"{trunk}.{block}.{part}.rel_pos_{axis}")
            if table is not None:
                return table.shape[0]
    return default


def image_kernels(state: Mapping[str, Tensor]) -> State:
    """Pooling kernels of an image model without an axis of time, which SlowFast's have: it trains on one-frame clips.

    Of an axis longer than 1 only the middle ever met a frame, so the middle is taken.
    """
    pools = (".pool_q.weight", ".pool_k.weight", ".pool_v.weight")
    return {n: v[:, :, v.shape[2] // 2] if n.endswith(pools) and v.ndim == 5 else v for n, v in state.items()}


def fitted(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> State:
    """Tensors viewed in the shapes a model wants, where only axes of length 1 tell them apart."""
    flat = any(n.endswith(".pool_k.weight") and len(shape) == 4 for n, shape in shapes.items())
    result: State = {}
    for name, value in (image_kernels(state) if flat else state).items():
        want = shapes.get(name)
        alike = want is not None and value.shape != want and _same_but_for_ones(value.shape, want)
        result[name] = value.reshape(want) if want is not None and alike else value
    return result


def _same_but_for_ones(a: torch.Size, b: torch.Size) -> bool:
    return prod(a) == prod(b) and [n for n in a if n > 1] == [n for n in b if n > 1]


def joined_positions(state: Mapping[str, Tensor]) -> State:
    """Separable positions of a one-frame clip as the joint table of an image: ``space + time``, class token first.

    Summed in float64, because the codebase that has them sums when it runs, in the precision it runs in.
    """
    state = dict(state)
    spatial, temporal = state.pop("pos_embed_spatial").double(), state.pop("pos_embed_temporal").double()
    cls = state.pop("pos_embed_class", None)
    table = spatial + temporal
    return {**state, "pos_embed": table if cls is None else torch.cat((cls.double(), table), dim=1)}
