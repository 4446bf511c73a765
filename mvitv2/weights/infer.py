"""The configuration of a model from nothing but its parameters' names and shapes.

Widths, heads, depths, kernels, classes and positions follow from shapes. Strides do not: they follow from the lengths
of position tables where there are any, and are otherwise assumed as in the published models; assumptions are reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isqrt, prod
from typing import Any

from torch import Tensor

from mvitv2.core.config import BlockConfig, MViTConfig, Reversible
from mvitv2.core.grid import Grid
from mvitv2.core.stages import pooling_kernel
from mvitv2.weights.dialects import Dialect
from mvitv2.weights.evidence import Evidence, examine

PATCH_STRIDES = {7: 4, 3: 2, 1: 1}
"""Strides of the published patch kernels; a kernel of another size is taken for patches that do not overlap."""
IMAGE_KEYS = 4
"""Key stride of the first stage of all published image models."""


@dataclass
class Inferred:
    """A configuration, and what had to be assumed for it."""

    config: MViTConfig
    assumed: list[str] = field(default_factory=list)


def infer(state: Mapping[str, Tensor], dialect: Dialect) -> Inferred:
    """The configuration of a state dict.

    Args:
        state: Our names, as :func:`mvitv2.weights.convert.to_ours` gives them.
        dialect: Where the file comes from; it tells conventions that no tensor shows.

    Raises:
        ValueError: Tensors every MViT has are missing, or shapes fit no MViT.
    """
    found = examine(state)
    patch = _patch(found)
    tokens = first_grid(found, patch["patch_stride"])
    blocks = numbered(found, tokens)
    size = tuple(n * s for n, s in zip(tokens, patch["patch_stride"], strict=True))
    fields = {**_stream(found, dialect), **patch, **dialect.conventions, **_late(found, dialect)}
    if dialect.name == "detectron2":
        blocks = _windows(found, blocks, tokens)
    config = MViTConfig(blocks=blocks, input_size=size, **fields)
    return Inferred(config, found.assumed)


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
    state, prefix = found.state, int(found.has("cls_token"))
    if found.has("pos_embed_spatial"):
        spatial = spatial or _square(state["pos_embed_spatial"].shape[1])
        frames = frames or (state["pos_embed_temporal"].shape[1],)
    elif found.has("pos_embed") and not spatial and found.rank == len("hw"):
        spatial = _square(state["pos_embed"].shape[1] - prefix)
    if not spatial:
        spatial = tuple(224 // s for s in patch_stride[-2:])
        found.assumed.append("input of 224 x 224 pixels")
    if found.rank == len("thw") and not frames:
        count = state["pos_embed"].shape[1] - prefix if found.has("pos_embed") else 0
        frames = (count // prod(spatial),) if count else (16 // patch_stride[0],)
        found.assumed.append(f"{frames[0] * patch_stride[0]} frames")
    return (*frames, *spatial) if found.rank == len("thw") else spatial


def _square(count: int) -> Grid:
    side = isqrt(count)
    if side * side != count:
        raise ValueError(f"{count} absolute positions are no square grid; give the configuration")
    return (side, side)


def numbered(found: Evidence, tokens: Grid) -> tuple[BlockConfig, ...]:
    """Blocks with strides, stage by stage."""
    still = (1,) * found.rank
    q_strides = [_q_stride(found, i, tokens) if opens else still for i, opens in enumerate(found.opens)]
    keys = _key_stride(found, q_strides, tokens)
    reversible = found.trunk.startswith("rev_")
    blocks: list[BlockConfig] = []
    stage, kv_stride, width = 0, keys, found.blocks[0].dim_in
    for shapes, opens, q_stride in zip(found.blocks, found.opens, q_strides, strict=True):
        stage += opens
        kv_stride = tuple(max(k // q, 1) for k, q in zip(kv_stride, q_stride, strict=True))
        weights = shapes.kv_kernel is not None or found.blocks[0].kv_kernel is not None
        kv_kernel = shapes.kv_kernel if weights else tuple(s + 1 if s > 1 else 1 for s in kv_stride)
        blocks.append(
            BlockConfig(
                stage=stage,
                dim_in=width if reversible else shapes.dim_in,
                dim_attn=shapes.dim_attn,
                dim_out=shapes.dim_out,
                num_heads=shapes.dim_attn // shapes.head_dim,
                q_stride=q_stride,
                kv_stride=kv_stride if kv_kernel is not None else still,
                q_kernel=shapes.q_kernel,
                kv_kernel=pooling_kernel(kv_kernel, kv_stride),
            )
        )
        width = shapes.dim_out
    if all(b.kv_kernel is None for b in found.blocks):
        raise ValueError(
            "this file pools without weights (average or maximum); names and shapes cannot tell its kernels"
        )
    return tuple(blocks)


def _q_stride(found: Evidence, index: int, tokens: Grid) -> Grid:
    """Two in space, unless the next table of the stage shows that the grid did not shrink; one in time."""
    halved = (*(1,) * (found.rank - 2), 2, 2)
    later = [found.blocks[j] for j in range(index + 1, len(found.blocks)) if not any(found.opens[index + 1 : j + 1])]
    before = found.blocks[index - 1]
    if not later or "h" not in before.rows or found.opens[index - 1]:
        return halved
    return halved if later[0].rows["h"] < before.rows["h"] else (1,) * found.rank


def _key_stride(found: Evidence, q_strides: list[Grid], tokens: Grid) -> Grid:
    """Key stride of the first stage: the one whose tables have the file's lengths, the published one among several."""
    stages = 1 + sum(found.opens)
    usual = 2 ** (stages - 1) if found.rank == len("thw") else min(IMAGE_KEYS, 2 ** (stages - 1))
    candidates = sorted((1, 2, 4, 8, 16), key=lambda s: s != usual)
    fitting = [s for s in candidates if _tables_fit(found, q_strides, tokens, s)] or [usual]
    if len(fitting) > 1 or not found.blocks[0].rows:
        found.assumed.append(f"key stride {fitting[0]} in the first stage")
    return (*(1,) * (found.rank - 2), fitting[0], fitting[0])


def _tables_fit(found: Evidence, q_strides: list[Grid], tokens: Grid, stride: int) -> bool:
    side = tokens[-2]
    for shapes, opens, q_stride in zip(found.blocks, found.opens, q_strides, strict=True):
        stride = max(stride // q_stride[-2], 1)
        q_size, k_size = side // q_stride[-2], side // stride
        if opens and shapes.rows.get("h", 2 * max(q_size, k_size) - 1) != 2 * max(q_size, k_size) - 1:
            return False
        side = q_size
    return True


def _stream(found: Evidence, dialect: Dialect) -> dict[str, Any]:
    """Everything between patches and classifier that names and shapes show."""
    block = f"{found.trunk}0." + ("F.attn." if found.trunk.startswith("rev_") else "attn.")
    relative = set(found.blocks[0].rows)
    separate = found.has(f"{block}q.weight")
    pool_first = separate and any(_pools_stream(found, i) for i in range(len(found.blocks)))
    cls = found.has("cls_token")
    absolute = "separable" if found.has("pos_embed_spatial") else "joint" if found.has("pos_embed") else "none"
    batch = found.has("blocks.0.norm1.running_mean")
    pool = found.state.get(f"{block}pool_k.weight")
    return {
        "class_token": cls,
        "readout": "class_token" if cls else "norm_mean",
        "abs_pos": absolute,
        "rel_pos_spatial": "h" in relative,
        "rel_pos_temporal": "t" in relative,
        "separate_qkv": separate and not pool_first,
        "pool_first": pool_first,
        "pool_mode": "conv_dense" if pool is not None and pool.shape[1] > 1 else "conv",
        "qkv_bias": found.has(f"{block}q.bias") or found.has(f"{block}qkv.bias"),
        "linear_bias": found.has(f"{block}proj.bias"),
        "mlp_ratio": found.blocks[0].hidden / found.blocks[0].dim_attn,
        "norm": "batch" if batch else "layer",
        "norm_stem": found.has("norm_stem.weight"),
        "layer_scale": 1.0 if found.has("blocks.0.gamma_1") else None,
    }


def _pools_stream(found: Evidence, index: int) -> bool:
    """Whether a block's pooling has the width of a slice of the stream that enters, not of a head."""
    shapes = found.blocks[index]
    attn = f"{found.trunk}{index}.attn."
    pool = found.state.get(f"{attn}pool_k.weight")
    return pool is not None and pool.shape[0] != shapes.head_dim


def _late(found: Evidence, dialect: Dialect) -> dict[str, Any]:
    """The end of the model, and what depends on there being relative positions."""
    fields: dict[str, Any] = {"final_norm": found.has("norm.weight")}
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
    fuse = f"{found.trunk}{transitions[0]}.pre_q_fuse.fuse_fn."
    mode = "avg"
    for prefix, inner in (("", f"{fuse}fc1.weight"), ("ln+", f"{fuse}1.fc1.weight")):
        if found.has(inner):
            hidden, dim = found.state[inner].shape
            mode = f"{prefix}concat_linear_{hidden / dim:g}"
    if mode == "avg":
        found.assumed.append("transitions that average their two streams")
    doubled = found.state["norm.weight"].shape[0] == 2 * found.blocks[-1].dim_out
    return Reversible(transitions=transitions, pre_q_fusion=mode, path_fusion="concat" if doubled else "avg")


def _windows(found: Evidence, blocks: tuple[BlockConfig, ...], tokens: Grid) -> tuple[BlockConfig, ...]:
    """Detection: windows of the first grid's size halve with the grid; blocks that end stages are global."""
    found.assumed.append(f"attention windows of {tokens[-1]} tokens in the first stage")
    last, detector, window = blocks[-1].stage, [], tokens[-1]
    for i, block in enumerate(blocks):
        ends = block.stage > 0 and (i + 1 == len(blocks) or found.opens[i + 1])
        stage = block.stage - found.opens[i]
        harder = 2 if ends and block.stage < last else 1
        kv_stride = tuple(harder * s for s in block.kv_stride)
        detector.append(replace(block, kv_stride=kv_stride, window=None if ends else window >> stage))
    return tuple(detector)
