"""The configuration of a model from nothing but its parameters' names and shapes.

Widths, heads, depths, kernels, classes and positions follow from shapes. Strides do not: they follow from the lengths
of position tables where there are any, and are otherwise assumed as in the published models; assumptions are reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import isqrt, prod
from typing import Any

from torch import Tensor

from mvitv2.core.config import BlockConfig, MViTConfig, Reversible
from mvitv2.core.grid import Grid, pooled
from mvitv2.weights.dialects import Dialect
from mvitv2.weights.evidence import Evidence, examine
from mvitv2.weights.strides import CLIP, find_strides

PATCH_STRIDES = {7: 4, 3: 2, 1: 1}
"""Strides of the published patch kernels; a kernel of another size is taken for patches that do not overlap."""


@dataclass
class Inferred:
    """A configuration, and what had to be assumed for it."""

    config: MViTConfig
    assumed: list[str] = field(default_factory=list)


def infer(state: Mapping[str, Tensor], dialect: Dialect, *, depths: tuple[int, ...] = ()) -> Inferred:
    """The configuration of a state dict.

    Args:
        state: Our names, as :func:`mvitv2.weights.convert.to_ours` gives them; only shapes are looked at.
        dialect: Where the file comes from; it tells conventions that no tensor shows.
        depths: Blocks per stage, where the file's own names tell.

    Raises:
        ValueError: Tensors every MViT has are missing, or shapes fit no MViT.
    """
    found = examine(state)
    patch = _patch(found)
    tokens = first_grid(found, patch["patch_stride"])
    blocks = numbered(found, tokens, depths)
    size = tuple(n * s for n, s in zip(tokens, patch["patch_stride"], strict=True))
    fields = {**_stream(found), **patch, **dialect.conventions, **_late(found, dialect, tokens)}
    levels = bool(fields["output_norms"]) and not fields["final_norm"]
    if dialect.name == "detectron2" or (dialect.name == "mvitv2" and levels):
        blocks = _windows(found, blocks, tokens)
    config = MViTConfig(blocks=blocks, input_size=size, abs_pos_size=_trained_size(found, size, patch), **fields)
    return Inferred(config, found.assumed)


def stage_depths(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Blocks per stage, a stage being as long as the grid stays."""
    found = examine(state)
    blocks = numbered(found, first_grid(found, _patch(found)["patch_stride"]), ())
    stages = [block.stage for block in blocks]
    return tuple(stages.count(stage) for stage in range(stages[-1] + 1))


def _patch(found: Evidence) -> dict[str, Any]:
    weight = found.state["patch_embed.proj.weight"]
    kernel = tuple(weight.shape[2:])
    stride = tuple(PATCH_STRIDES.get(k, k) for k in kernel)
    padding = tuple(k // 2 if k > s else 0 for k, s in zip(kernel, stride, strict=True))
    found.assumed.append(f"patch stride {stride} of kernel {kernel}")
    return {"patch_kernel": kernel, "patch_stride": stride, "patch_padding": padding, "in_channels": weight.shape[1]}


def first_grid(found: Evidence, patch_stride: Grid) -> Grid:
    """Tokens the model was made for: from the first block's tables, or from absolute positions."""
    rows = found.blocks[0].rows
    spatial = tuple((rows[a] + 1) // 2 for a in "hw" if a in rows)
    frames = ((rows["t"] + 1) // 2,) if "t" in rows else ()
    count = _joint_tokens(found)
    if found.has("pos_embed_spatial"):
        spatial = spatial or _square(_length(found, "pos_embed_spatial"))
        frames = frames or (_length(found, "pos_embed_temporal"),)
    elif count and found.rank == CLIP:
        frames, spatial = _clip_grid(count, frames, spatial, patch_stride)
        found.assumed.append(f"{frames[0] * patch_stride[0]} frames")
    elif count and not spatial:
        spatial = _square(count)
    if not spatial:
        spatial = tuple(224 // s for s in patch_stride[-2:])
        found.assumed.append("input of 224 x 224 pixels")
    if found.rank == CLIP and not frames:
        frames = (max(16 // patch_stride[0], 1),)
        found.assumed.append(f"{frames[0] * patch_stride[0]} frames")
    return (*frames, *spatial) if found.rank == CLIP else spatial


def _joint_tokens(found: Evidence) -> int:
    """Grid tokens a joint table of absolute positions is for; 0 without one.

    detectron2 keeps the class token's position of pre-training in a model that has no class token.
    """
    if not found.has("pos_embed"):
        return 0
    count = _length(found, "pos_embed")
    left_over = found.rank == len("hw") and isqrt(count) ** 2 != count and isqrt(count - 1) ** 2 == count - 1
    return count - 1 if found.has("cls_token") or left_over else count


def _length(found: Evidence, name: str) -> int:
    """Rows of a table of absolute positions, ``(1, rows, C)``."""
    if not found.has(name) or found.state[name].ndim != 3:
        raise ValueError(f"expected a table {name} of shape (1, rows, channels); is the file whole?")
    return found.state[name].shape[1]


def _clip_grid(count: int, frames: Grid, spatial: Grid, patch_stride: Grid) -> tuple[Grid, Grid]:
    """Time and space of a joint table: what is known of them, else 224 pixels, else 16 or so frames of a square."""
    if spatial or frames:
        known = prod(frames or spatial)
        return (frames, spatial or _square(count // known)) if frames else ((count // known,), spatial)
    usual = tuple(224 // s for s in patch_stride[-2:])
    if count % prod(usual) == 0:
        return (count // prod(usual),), usual
    for time in (8, 16, 4, 2, 32, 1):
        if count % time == 0 and isqrt(count // time) ** 2 == count // time:
            return (time,), _square(count // time)
    raise ValueError(f"{count} absolute positions are no clip of squares; give the configuration")


def _square(count: int) -> Grid:
    side = isqrt(count)
    if side * side != count:
        raise ValueError(f"{count} absolute positions are no square grid; give the configuration")
    return (side, side)


def _trained_size(found: Evidence, size: Grid, patch: Mapping[str, Any]) -> Grid | None:
    """Size the absolute positions are for, where it is not the one the relative ones are for."""
    count = _joint_tokens(found)
    tokens = pooled(size, patch["patch_kernel"], patch["patch_stride"], patch["patch_padding"])
    if not count or count == prod(tokens) or found.rank == CLIP:
        return None
    return tuple(n * s for n, s in zip(_square(count), patch["patch_stride"], strict=True))


def numbered(found: Evidence, tokens: Grid, depths: tuple[int, ...]) -> tuple[BlockConfig, ...]:
    """Blocks with strides, stage by stage."""
    if all(b.kv_kernel is None for b in found.blocks) and all(b.q_kernel is None for b in found.blocks):
        raise ValueError(
            "this file pools without weights (average or maximum, or not at all); names and shapes cannot tell its "
            "kernels: give the configuration"
        )
    starts = set(accumulate(depths))
    opens = [i in starts for i in range(len(found.blocks))] if depths else found.opens
    strides = find_strides(found, tokens, opens)
    found.assumed += strides.assumed
    blocks: list[BlockConfig] = []
    stage, width, reversible = 0, found.blocks[0].dim_in, found.trunk.startswith("rev_")
    for i, (shapes, q_stride, kv_stride) in enumerate(zip(found.blocks, strides.q, strides.kv, strict=True)):
        stage += i > 0 and (opens[i] if depths else max(q_stride) > 1)
        blocks.append(
            BlockConfig(
                stage=stage,
                dim_in=width if reversible else shapes.dim_in,
                dim_attn=shapes.dim_attn,
                dim_out=shapes.dim_out,
                num_heads=shapes.dim_attn // found.head_dims[i],
                q_stride=q_stride,
                kv_stride=kv_stride,
                q_kernel=shapes.q_kernel,
                kv_kernel=shapes.kv_kernel,
            )
        )
        width = shapes.dim_out
    return tuple(blocks)


def _stream(found: Evidence) -> dict[str, Any]:
    """Everything between patches and classifier that names and shapes show."""
    block = f"{found.trunk}0." + ("F.attn." if found.trunk.startswith("rev_") else "attn.")
    relative = {axis for block in found.blocks for axis in block.rows}
    cls = found.has("cls_token")
    absolute = "separable" if found.has("pos_embed_spatial") else "joint" if found.has("pos_embed") else "none"
    return {
        "class_token": cls,
        "readout": "class_token" if cls else "norm_mean",
        # an image's one frame has a table of its own in pytorchvideo; summed with space it is a joint one
        "abs_pos": "joint" if absolute == "separable" and found.rank < CLIP else absolute,
        "rel_pos_spatial": "h" in relative,
        "rel_pos_temporal": "t" in relative,
        "separate_qkv": found.separate and not found.pool_first,
        "pool_first": found.pool_first,
        "pool_mode": _pool_mode(found),
        "qkv_bias": found.has(f"{block}q.bias") or found.has(f"{block}qkv.bias"),
        "linear_bias": found.has(f"{block}proj.bias"),
        "mlp_ratio": found.blocks[0].hidden / found.blocks[0].dim_attn,
        "norm": "batch" if found.has("blocks.0.norm1.running_mean") else "layer",
        "norm_stem": found.has("norm_stem.weight"),
        "layer_scale": 1.0 if found.has("blocks.0.gamma_1") else None,
    }


def _pool_mode(found: Evidence) -> str:
    kernels = (
        found.state.get(f"{found.trunk}{i}.attn.pool_{q}.weight") for i in range(len(found.blocks)) for q in "kq"
    )
    if any(kernel is not None and kernel.shape[1] > 1 for kernel in kernels):
        return "conv_dense"
    many = [b for b, d in zip(found.blocks, found.head_dims, strict=True) if b.pool_dim and b.dim_attn > d]
    return "conv_unshared" if found.pool_first and many and all(b.pool_dim == b.dim_in for b in many) else "conv"


def _late(found: Evidence, dialect: Dialect, tokens: Grid) -> dict[str, Any]:
    """The end of the model, and what depends on the dialect or on there being relative positions."""
    fields: dict[str, Any] = {"final_norm": found.has("norm.weight")}
    if dialect.name == "mmaction2" and found.has("cls_token"):
        # the parameter is there also where it is not used; a table of absolute positions shows whether it is
        if found.has("pos_embed") and _length(found, "pos_embed") == prod(tokens):
            fields |= {"class_token": False, "readout": "norm_mean"}
        elif not found.has("pos_embed"):
            found.assumed.append("a class token that is used")
    head = found.state.get("head.projection.weight")
    fields["num_classes"] = 0 if head is None else head.shape[0]
    stages = sorted({int(n.split(".")[1]) for n in found.state if n.startswith("output_norms.")})
    fields["output_norms"] = tuple(stages)
    widens_in_mlp = any(b.dim_out != b.dim_attn for b in found.blocks)
    if dialect.name == "slowfast" and found.has("cls_token") and "t" in found.blocks[0].rows and widens_in_mlp:
        fields["readout"] = "mean_norm"
        found.assumed.append("readout by the norm of the mean, as in MaskFeat's models")
    if not found.blocks[0].rows and dialect.name != "timm":
        fields["residual_pooling"] = "none"
        found.assumed.append("no residual pooling, as in every model without relative positions")
    if found.trunk.startswith("rev_"):
        fields |= {"reversible": _reversible(found), "residual_pooling": "none"}
    return fields


def _reversible(found: Evidence) -> Reversible:
    transitions = tuple(i for i, opens in enumerate(found.opens) if opens)
    fuse = f"{found.trunk}{transitions[0] if transitions else 0}.pre_q_fuse.fuse_fn."
    mode = "avg"
    for prefix, inner in (("", f"{fuse}fc1.weight"), ("ln+", f"{fuse}1.fc1.weight")):
        if found.has(inner):
            hidden, dim = found.state[inner].shape
            mode = f"{prefix}concat_linear_{hidden / dim:g}"
    if mode == "avg" and transitions:
        found.assumed.append("transitions that average their two streams")
    last = next((found.state[n] for n in ("norm.weight", "head.projection.weight") if found.has(n)), None)
    doubled = last is None or last.shape[-1] == 2 * found.blocks[-1].dim_out
    if not doubled:
        found.assumed.append("two streams that are averaged in the end")
    return Reversible(transitions=transitions, pre_q_fusion=mode, path_fusion="concat" if doubled else "avg")


def _windows(found: Evidence, blocks: tuple[BlockConfig, ...], tokens: Grid) -> tuple[BlockConfig, ...]:
    """Detection: windows of the first grid's size halve with the grid; blocks that end stages are global."""
    last = blocks[-1].stage
    whole = max(*blocks[0].kv_stride, 2**last)
    side = tokens[-1] // whole * whole
    found.assumed.append(f"attention windows of {side} tokens in the first stage")
    detector: list[BlockConfig] = []
    for i, block in enumerate(blocks):
        ends = block.stage > 0 and (i == len(blocks) - 1 or blocks[i + 1].stage > block.stage)
        opens = i > 0 and blocks[i - 1].stage < block.stage
        harder = 2 if ends and block.stage < last else 1
        kv_stride = tuple(harder * s for s in block.kv_stride)
        window = None if ends or not side else side >> (block.stage - opens)
        detector.append(replace(block, kv_stride=kv_stride, window=window))
    return tuple(detector)
