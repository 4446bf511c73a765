"""Names other codebases give to the parameters of an MViT, as tables.

A rule is a pair of patterns, theirs left and ours right, and reads both ways. ``{block}`` is the block number counted
through all stages, ``{stage}`` and ``{place}`` the same block counted per stage, ``{level}`` a pyramid level and
``{scale}`` its stage, ``{last}`` the last stage; ``{q}`` one of q, k, v; ``{x}`` any one name; ``{rest}`` anything.
Rules are tried in order, one per key.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from mvitv2.weights.rename import DialectError, Rules


@dataclass(frozen=True)
class Dialect:
    """One codebase's way to name and shape parameters."""

    name: str
    hallmarks: tuple[str, ...]
    """Patterns of which a key of every file of this dialect matches one, and no key of another dialect does."""
    rules: Rules
    prefixes: tuple[str, ...] = ("",)
    """What may stand before every name, likeliest first when written."""
    aliases: tuple[str, ...] = ()
    """Second names of parameters; left out on reading, written again on writing."""
    besides: tuple[str, ...] = ()
    """Keys of other parts, decoders of pre-training or heads of detectors; left out, and said so."""
    flat: tuple[str, ...] = ()
    """Our names of parameters that lie there without leading axes of length 1."""
    container: tuple[str, str] = ("torch zip", "")
    """How its files are written: container and the key under which the state dict lies."""
    extension: str = ".pth"
    conventions: Mapping[str, object] = field(default_factory=dict)
    """Fields of :class:`~mvitv2.core.config.MViTConfig` that follow from the codebase."""


TRUNK: Rules = (
    ("cls_token", "cls_token"),
    ("pos_embed", "pos_embed"),
    ("patch_embed.proj.{x}", "patch_embed.proj.{x}"),
)
BLOCKS: Rules = (("blocks.{block}.{rest}", "blocks.{block}.{rest}"),)
NATIVE: Rules = (
    *TRUNK,
    ("pos_embed_{x}", "pos_embed_{x}"),
    ("norm_stem.{x}", "norm_stem.{x}"),
    *BLOCKS,
    ("rev_backbone.layers.{block}.{rest}", "rev_backbone.layers.{block}.{rest}"),
    ("norm.{x}", "norm.{x}"),
    ("head.projection.{x}", "head.projection.{x}"),
)

PRETRAINING = (r"mask_token", r"pred_head\..+")
"""MaskFeat's mask token and head, of SlowFast and of ours."""
OFFICIAL = Dialect(
    name="official",
    hallmarks=(r"patch_embed\.proj\.weight",),
    rules=NATIVE,
    container=("torch zip", "model_state"),
    extension=".pyth",
    conventions={"residual_pooling": "grid", "head_activation": "softmax"},
)
SLOWFAST = Dialect(
    name="slowfast",
    hallmarks=(r"patch_embed\.proj\.weight", r"rev_backbone\..+"),
    rules=NATIVE,
    besides=(*PRETRAINING, r"hogs\..+", r"decoder_.+"),
    container=("torch zip", "model_state"),
    extension=".pyth",
    conventions={"residual_pooling": "grid", "head_activation": "softmax", "init": "video"},
)
DETECTRON2 = Dialect(
    name="detectron2",
    hallmarks=(r"(backbone\.)?(bottom_up\.)?scale\d_norm\.weight", r"backbone\.bottom_up\..+"),
    prefixes=("backbone.", ""),
    rules=(
        ("bottom_up.scale{level}_norm.{x}", "bottom_up.output_norms.{scale}.{x}"),
        ("bottom_up.{rest}", "bottom_up.{rest}"),
        ("fpn_lateral{level}.{rest}", "fpn_lateral{level}.{rest}"),
        ("fpn_output{level}.{rest}", "fpn_output{level}.{rest}"),
        ("proposal_generator.rpn_head.{rest}", "proposal_generator.rpn_head.{rest}"),
        ("roi_heads.{rest}", "roi_heads.{rest}"),
        ("scale{level}_norm.{x}", "output_norms.{scale}.{x}"),
        *TRUNK,
        *BLOCKS,
    ),
    besides=(r"proposal_generator\.(?!rpn_head\.).+", r"pixel_(mean|std)"),
    container=("raw pickle", "model"),
    extension=".pkl",
    conventions={"residual_pooling": "grid", "final_norm": False, "rel_pos_zero_init": True},
)


def _timm_rules(shortcut: str) -> Rules:
    return (
        *TRUNK,
        (f"stages.{{stage}}.blocks.{{place}}.{shortcut}.{{x}}", "blocks.{block}.proj.{x}"),
        ("stages.{stage}.blocks.{place}.{rest}", "blocks.{block}.{rest}"),
        ("stages_{stage}.blocks.{place}." + shortcut + ".{x}", "blocks.{block}.proj.{x}"),
        ("stages_{stage}.blocks.{place}.{rest}", "blocks.{block}.{rest}"),
        ("norm.{x}", "norm.{x}"),
        ("head.fc.{x}", "head.projection.{x}"),
    )


TIMM = Dialect(
    name="timm",
    hallmarks=(r"(model\.)?stages[._]\d+\.blocks\.\d+\.norm1\.weight",),
    rules=_timm_rules("shortcut_proj_attn"),
    prefixes=("", "model."),
    container=("safetensors", ""),
    extension=".safetensors",
    conventions={"residual_pooling": "all"},
)
TIMM_MLP = replace(
    TIMM,
    hallmarks=(r"(model\.)?stages[._]\d+\.blocks\.\d+\.shortcut_proj_mlp\.weight",),
    rules=_timm_rules("shortcut_proj_mlp"),
)
TORCHVISION = Dialect(
    name="torchvision",
    hallmarks=(r"conv_proj\.weight",),
    rules=(
        ("conv_proj.{x}", "patch_embed.proj.{x}"),
        ("pos_encoding.class_token", "cls_token"),
        ("pos_encoding.spatial_pos", "pos_embed_spatial"),
        ("pos_encoding.temporal_pos", "pos_embed_temporal"),
        ("pos_encoding.class_pos", "pos_embed_class"),
        ("blocks.{block}.project.{x}", "blocks.{block}.proj.{x}"),
        ("blocks.{block}.attn.project.0.{x}", "blocks.{block}.attn.proj.{x}"),
        ("blocks.{block}.attn.pool_{q}.pool.{x}", "blocks.{block}.attn.pool_{q}.{x}"),
        ("blocks.{block}.attn.pool_{q}.norm_act.0.{x}", "blocks.{block}.attn.norm_{q}.{x}"),
        ("blocks.{block}.mlp.0.{x}", "blocks.{block}.mlp.fc1.{x}"),
        ("blocks.{block}.mlp.3.{x}", "blocks.{block}.mlp.fc2.{x}"),
        *BLOCKS,
        ("norm.{x}", "norm.{x}"),
        ("head.1.{x}", "head.projection.{x}"),
    ),
    flat=("cls_token", "pos_embed_spatial", "pos_embed_temporal", "pos_embed_class"),
    conventions={"residual_pooling": "grid", "displacement_order": "torchvision"},
)


def _openmmlab_rules(head: str) -> Rules:
    return (
        ("cls_token", "cls_token"),
        ("pos_embed", "pos_embed"),
        ("patch_embed.projection.{x}", "patch_embed.proj.{x}"),
        *BLOCKS,
        ("norm{last}.{x}", "norm.{x}"),
        ("norm{scale}.{x}", "output_norms.{scale}.{x}"),
        (head + ".{x}", "head.projection.{x}"),
    )


OPENMMLAB_BESIDES = (r"mask_token", r"neck\..+", r"target_generator\..+", r"data_preprocessor\..+")
MMPRETRAIN = Dialect(
    name="mmpretrain",
    hallmarks=(r"(backbone\.)?patch_embed\.projection\.weight",),
    prefixes=("backbone.", ""),
    rules=_openmmlab_rules("head.fc"),
    besides=OPENMMLAB_BESIDES,
    container=("torch zip", "state_dict"),
    conventions={"residual_pooling": "grid", "feed_output_norms": True, "abs_pos_float32": True},
)
MMACTION2 = Dialect(
    name="mmaction2",
    hallmarks=(r"(backbone\.)?patch_embed\.projection\.weight",),
    prefixes=("backbone.", ""),
    rules=_openmmlab_rules("cls_head.fc_cls"),
    besides=OPENMMLAB_BESIDES,
    container=("torch zip", "state_dict"),
    conventions={"residual_pooling": "grid", "feed_output_norms": True, "init": "video"},
)
PYTORCHVIDEO = Dialect(
    name="pytorchvideo",
    hallmarks=(r"patch_embed\.patch_model\.weight",),
    rules=(
        ("patch_embed.patch_model.{x}", "patch_embed.proj.{x}"),
        ("cls_positional_encoding.cls_token", "cls_token"),
        ("cls_positional_encoding.pos_embed", "pos_embed"),
        ("cls_positional_encoding.pos_embed_{x}", "pos_embed_{x}"),
        *BLOCKS,
        ("norm_embed.{x}", "norm.{x}"),
        ("head.proj.{x}", "head.projection.{x}"),
    ),
    aliases=(r"blocks\.(\d+)\.attn\._attention_pool_([qkv])\.(pool|norm)\.(.+)",),
    container=("torch zip", "model_state"),
    extension=".pyth",
    conventions={"residual_pooling": "all", "init": "video"},
)
OWN = Dialect(
    name="mvitv2",
    hallmarks=(r"(bottom_up\.)?output_norms\.\d+\..+",),  # without levels, our names are those of the released files
    rules=(("{rest}", "{rest}"),),
    besides=PRETRAINING,
    container=("safetensors", ""),
    extension=".safetensors",
)

DIALECTS: dict[str, Dialect] = {
    d.name: d for d in (OWN, OFFICIAL, SLOWFAST, DETECTRON2, TIMM, TORCHVISION, MMPRETRAIN, MMACTION2, PYTORCHVIDEO)
}
IMAGE_WEIGHT = 4
"""Axes of a 2-D convolution's weight; a clip's has one more."""


def detect(tensors: Mapping[str, Tensor]) -> Dialect:
    """The dialect of a file, by its names and, where two share names, by shapes.

    Raises:
        DialectError: No dialect has such names; a few of them are shown.
    """
    names = list(tensors)
    for dialect in (TORCHVISION, PYTORCHVIDEO, TIMM_MLP, TIMM, DETECTRON2, OWN):
        if _has(names, dialect.hallmarks):
            return dialect
    if _has(names, MMPRETRAIN.hallmarks):
        name = next(n for n in names if n.endswith("patch_embed.projection.weight"))
        video = tensors[name].ndim > IMAGE_WEIGHT or any(n.startswith("cls_head.") for n in names)
        return MMACTION2 if video else MMPRETRAIN
    if _has(names, SLOWFAST.hallmarks):
        clips = "patch_embed.proj.weight" in tensors and tensors["patch_embed.proj.weight"].ndim > IMAGE_WEIGHT
        return SLOWFAST if clips or _has(names, (r"rev_backbone\..+",)) else OFFICIAL
    raise DialectError(
        f"none of {len(names)} names is an MViT's in any known codebase ({', '.join(DIALECTS)}), first {names[:5]}"
    )


def _has(names: Iterable[str], patterns: tuple[str, ...]) -> bool:
    return any(re.fullmatch(pattern, name) for name in names for pattern in patterns)
