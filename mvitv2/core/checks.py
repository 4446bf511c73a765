"""What is wrong with a configuration, all of it at once, with the values."""

import re
from dataclasses import fields
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from .grid import one_wider

if TYPE_CHECKING:
    from .config import BlockConfig, MViTConfig, Reversible

RATES = ("drop_path", "dropout", "pos_dropout", "head_dropout")
FUSION = re.compile(r"add|avg|max|min|concat|(ln\+)?concat_linear(_\d+(\.\d+)?)?")


def problems_of(config: "MViTConfig") -> list[str]:
    """Every reason why a configuration makes no model."""
    if problems := wrong_ranks(config):
        return problems  # what follows takes one number per axis for granted
    problems = [*wrong_choices(config), *wrong_numbers(config), *wrong_combinations(config), *wrong_chain(config)]
    for index, block in enumerate(config.blocks):
        lands = config.reversible is not None or lands_on_queries(block)
        found = [*wrong_block(block), *([] if lands else [f"q_kernel={block.q_kernel} misses the shortcut's grid"])]
        problems += [f"blocks[{index}]: {text}" for text in found]
    return problems


def wrong_ranks(config: "MViTConfig") -> list[str]:
    """Grids and kernels that do not have one number per axis."""
    named = {name: getattr(config, name) for name in ("patch_kernel", "patch_stride", "patch_padding", "abs_pos_size")}
    for index, block in enumerate(config.blocks):
        for name in ("q_stride", "kv_stride", "q_kernel", "kv_kernel", "table_rows"):
            named[f"blocks[{index}].{name}"] = getattr(block, name)
    expected = f"needs {config.rank} numbers, one per axis of input_size={config.input_size}"
    return [
        f"{name}={value} {expected}" for name, value in named.items() if value is not None and len(value) != config.rank
    ]


def wrong_choices(config: "MViTConfig") -> list[str]:
    """Words that are none of a field's choices."""
    problems: list[str] = []
    for field in fields(config):
        choices = getattr(field.type, "__args__", ())
        value = getattr(config, field.name)
        if getattr(field.type, "__origin__", None) is Literal and value not in choices:
            problems.append(f"{field.name}={value!r} is none of {', '.join(map(repr, choices))}")
    return problems


def wrong_numbers(config: "MViTConfig") -> list[str]:
    """Sizes and rates out of their range."""
    problems = [f"{n}={r} must be at least 0 and below 1" for n in RATES if not 0 <= (r := getattr(config, n)) < 1]
    for name, least in (("num_classes", 0), ("in_channels", 1)):
        if getattr(config, name) < least:
            problems.append(f"{name}={getattr(config, name)} must be at least {least}")
    for name in ("mlp_ratio", "norm_eps"):
        if getattr(config, name) <= 0:
            problems.append(f"{name}={getattr(config, name)} must be above 0")
    for name in ("input_size", "patch_kernel", "patch_stride"):
        if min(getattr(config, name)) < 1:
            problems.append(f"{name}={getattr(config, name)} must be at least 1 along every axis")
    return problems


def wrong_combinations(config: "MViTConfig") -> list[str]:
    """Fields that contradict each other."""
    problems: list[str] = []
    if config.readout == "class_token" and not config.class_token:
        problems.append('readout="class_token" needs class_token=True')
    if config.pool_mode == "conv_unshared" and not config.pool_first:
        problems.append('pool_mode="conv_unshared" needs pool_first=True: its kernels span all heads')
    if config.abs_pos == "separable" and len(config.input_size) != 3:
        problems.append(f'abs_pos="separable" needs a time axis, input_size={config.input_size} has none')
    if config.abs_pos_init == "sincos" and (config.abs_pos != "joint" or len(config.input_size) != 3):
        problems.append('abs_pos_init="sincos" needs abs_pos="joint" and a time axis')
    if any(block.window for block in config.blocks) and (config.class_token or config.reversible is not None):
        problems.append("windows need a model without class token that is not reversible")
    if config.reversible is not None:
        problems += wrong_reversible(config, config.reversible)
    return problems


def wrong_reversible(config: "MViTConfig", form: "Reversible") -> list[str]:
    """What the reversible form has not, and names of fusions that nobody knows."""
    problems: list[str] = []
    if config.class_token:
        problems.append("the reversible form has no class token (SlowFast video_model_builder.py:967)")
    if config.layer_scale is not None:
        problems.append("the reversible form has no layer_scale")
    if config.norm == "batch":
        problems.append('norm="batch" would count every batch twice: the reversible form runs its blocks again')
    if config.output_norms:
        problems.append("output_norms are for backbones that are not reversible")
    if form.path_fusion not in ("add", "avg", "max", "min", "concat"):
        problems.append(f"path_fusion={form.path_fusion!r} is none of add, avg, max, min, concat")
    if not FUSION.fullmatch(form.pre_q_fusion):
        known = "add, avg, max, min, concat, concat_linear_R, ln+concat_linear_R with a number R"
        problems.append(f"pre_q_fusion={form.pre_q_fusion!r} is none of {known}")
    if beyond := [t for t in form.transitions if not 0 <= t < len(config.blocks)]:
        problems.append(f"transitions {beyond} are none of the {len(config.blocks)} blocks")
    return problems


def wrong_chain(config: "MViTConfig") -> list[str]:
    """Blocks that do not follow each other, and norms of stages that do not exist."""
    problems: list[str] = []
    for index, (block, after) in enumerate(pairwise(config.blocks)):
        if config.reversible is None and block.dim_out != after.dim_in:
            problems.append(f"blocks[{index}].dim_out={block.dim_out} is not blocks[{index + 1}].dim_in={after.dim_in}")
    stages = [block.stage for block in config.blocks]
    if stages[0] != 0 or any(b - a not in (0, 1) for a, b in pairwise(stages)):
        problems.append(f"stages of blocks {stages} must count up from 0")
    if unknown := sorted(set(config.output_norms) - set(stages)):
        problems.append(f"output_norms of stages {unknown}: there are {stages[-1] + 1} stages, from 0")
    if config.pool_first and config.pool_mode != "conv_unshared":
        problems += [
            f"blocks[{i}].dim_in={b.dim_in} does not divide by num_heads={b.num_heads}, which pool_first needs"
            for i, b in enumerate(config.blocks)
            if b.dim_in % b.num_heads
        ]
    return problems


def lands_on_queries(block: "BlockConfig") -> bool:
    """Whether the shortcut's max-pooling leaves the grid of the pooled queries, whatever its size.

    Both kernels must be odd or both even; along axes that are not strided, the shortcut's is 1.
    """
    return block.q_kernel is None or all(
        (q - skip) % 2 == 0 for q, skip in zip(block.q_kernel, one_wider(block.q_stride), strict=True)
    )


def wrong_block(block: "BlockConfig") -> list[str]:
    """What is wrong with one block by itself."""
    problems: list[str] = []
    if block.dim_attn % block.num_heads:
        problems.append(f"dim_attn={block.dim_attn} does not divide by num_heads={block.num_heads}")
    for name in ("q", "kv"):
        stride, kernel = getattr(block, f"{name}_stride"), getattr(block, f"{name}_kernel")
        if kernel is None and max(stride) > 1:
            problems.append(f"{name}_stride={stride} needs a {name}_kernel")
        if block.window is not None and any(block.window % s for s in stride):
            problems.append(f"window={block.window} does not divide by {name}_stride={stride}")
        if block.window is not None and any(k % 2 == 0 for k in kernel or ()):
            problems.append(f"{name}_kernel={kernel} must be odd, or windows of queries and keys fall apart")
    if block.dim_attn not in (block.dim_in, block.dim_out):
        problems.append(f"dim_attn={block.dim_attn} is neither dim_in={block.dim_in} nor dim_out={block.dim_out}")
    return problems
