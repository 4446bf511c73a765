"""What is wrong with a configuration, all of it at once, with the values."""

from dataclasses import fields
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .config import BlockConfig, MViTConfig


def problems_of(config: "MViTConfig") -> list[str]:
    """Every reason why a configuration makes no model."""
    return [*wrong_ranks(config), *wrong_choices(config), *wrong_combinations(config)]


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


def wrong_combinations(config: "MViTConfig") -> list[str]:
    """Fields that contradict each other, and blocks that do not fit together."""
    problems: list[str] = []
    if config.readout == "class_token" and not config.class_token:
        problems.append('readout="class_token" needs class_token=True')
    if config.pool_mode == "conv_unshared" and not config.pool_first:
        problems.append('pool_mode="conv_unshared" needs pool_first=True: its kernels span all heads')
    if config.abs_pos == "separable" and len(config.input_size) != 3:
        problems.append(f'abs_pos="separable" needs a time axis, input_size={config.input_size} has none')
    if config.abs_pos_init == "sincos" and (config.abs_pos != "joint" or len(config.input_size) != 3):
        problems.append('abs_pos_init="sincos" needs abs_pos="joint" and a time axis')
    if config.reversible is not None and config.class_token:
        problems.append("the reversible form has no class token (SlowFast video_model_builder.py:967)")
    windowed = any(block.window for block in config.blocks)
    if windowed and (config.class_token or config.reversible is not None):
        problems.append("windows need a model without class token that is not reversible")
    for index, block in enumerate(config.blocks):
        problems += [f"blocks[{index}]: {text}" for text in wrong_block(block)]
    for index, (block, after) in enumerate(zip(config.blocks, config.blocks[1:], strict=False)):
        if config.reversible is None and block.dim_out != after.dim_in:
            problems.append(f"blocks[{index}].dim_out={block.dim_out} is not blocks[{index + 1}].dim_in={after.dim_in}")
    return problems


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
    if block.dim_in != block.dim_out and block.dim_attn not in (block.dim_in, block.dim_out):
        problems.append(f"dim_attn={block.dim_attn} is neither dim_in={block.dim_in} nor dim_out={block.dim_out}")
    return problems
