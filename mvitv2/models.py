"""Models by name, with the arguments that users of timm and torchvision have in their fingers."""

from collections.abc import Sequence
from dataclasses import fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from torch import nn

from mvitv2.aliases import ALIASES, variant_name
from mvitv2.core.attend import reference
from mvitv2.core.config import MViTConfig
from mvitv2.core.model import MViT
from mvitv2.core.pyramid import Features
from mvitv2.core.reversible import build
from mvitv2.kernels import use
from mvitv2.tasks.detect.config import DetectorConfig
from mvitv2.tasks.detect.detector import Detector
from mvitv2.tasks.detect.variants import DETECTORS, detector_name
from mvitv2.variants import VARIANTS

TIMM_FIELDS = {"drop_rate": "head_dropout", "drop_path_rate": "drop_path", "in_chans": "in_channels"}


def list_models(
    pattern: str = "*", *, aliases: bool = False, task: str | None = None, pretrained: bool = False
) -> list[str]:
    """Names of models.

    Args:
        pattern: As in a shell; ``"*video*"``, ``"*image*"`` and ``"*det*"`` also match tasks.
        aliases: The names people know from other codebases too.
        task: ``"image"``, ``"video"`` or ``"detection"`` only.
        pretrained: Only those with published weights that ``create_model(name, pretrained=True)`` can fetch.
    """
    names = [*VARIANTS, *(ALIASES if aliases else ())]
    tasks = {name: task_of(VARIANTS[variant_name(name)]) for name in names}
    matched = [n for n in names if fnmatch(n, pattern) or fnmatch(f"{n} {tasks[n]}", pattern)]
    found = [n for n in matched if task in (None, tasks[n])]
    if not pretrained:
        return found
    from mvitv2.weights.releases import RELEASES

    there = {entry.variant for entry in RELEASES.values() if entry.url or entry.hub}
    return [n for n in found if variant_name(n) in there]


def task_of(config: MViTConfig) -> str:
    """What a configuration is for: ``"image"``, ``"video"`` or ``"detection"``."""
    if any(block.window for block in config.blocks):
        return "detection"
    return "image" if config.rank == len(("H", "W")) else "video"


def model_config(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | Sequence[int] | None = None,
    num_frames: int | None = None,
    drop_path_rate: float | None = None,
    **fields: Any,
) -> MViTConfig:
    """The configuration of a named model with some of its numbers changed; see :func:`create_model`."""
    config = VARIANTS[variant_name(name)]
    if num_frames is not None and config.rank == len(("H", "W")):
        raise ValueError(
            f"{name} is a model for images; num_frames={num_frames} needs one for clips, such as mvitv2_s_16x4"
        )
    size = config.input_size
    if img_size is not None:
        side = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        size = (*size[:-2], *side)
    if num_frames is not None:
        size = (num_frames, *size[1:])
    given = {"num_classes": num_classes, "in_channels": in_chans, "drop_path": drop_path_rate}
    fields = {TIMM_FIELDS.get(k, k): v for k, v in fields.items()}
    changes = {k: v for k, v in given.items() if v is not None} | fields
    if size != config.input_size:
        blocks = tuple(replace(block, table_rows=None) for block in config.blocks)
        changes = {"input_size": size, "blocks": blocks, **changes}
    unknown = set(changes) - set(config.to_dict())
    if unknown:
        raise TypeError(f"{sorted(unknown)} are neither arguments of create_model nor fields of MViTConfig")
    return replace(config, **changes)


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    checkpoint_path: str | Path | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    backend: str = "auto",
    **changes: Any,
) -> MViT | Features | Detector:
    """A model by name, ours or one people know from timm, torchvision, SlowFast, detectron2 or OpenMMLab.

    Args:
        name: See :func:`list_models`; that of a detector, such as ``"cascade_mask_rcnn_mvitv2_t_3x"``, gives a
            :class:`~mvitv2.tasks.detect.detector.Detector`.
        pretrained: Load the published weights of that name, downloaded once; tables are resampled to another size.
        checkpoint_path: Load weights from a file instead; a detector starts from a file of its backbone as well.
        features_only: A backbone whose output is a list of feature maps, also for a detector's name.
        out_indices: Which stages those are; all if not given.
        backend: What computes it, one of :data:`mvitv2.kernels.BACKENDS`.
        **changes: ``num_classes`` (0: features), ``in_chans``, ``img_size``, ``num_frames``, ``drop_path_rate``,
            ``drop_rate``, and any field of :class:`~mvitv2.core.config.MViTConfig`; for a detector also those of
            :class:`~mvitv2.tasks.detect.config.DetectorConfig`.

    Raises:
        ValueError: There is no such model, or the changes make none.
    """
    if out_indices is not None and not features_only:
        raise ValueError(f"out_indices={out_indices} needs features_only=True")
    whole = None if features_only else detector_name(name)
    built = build(model_config(name, **changes), reference) if whole is None else Detector(detector(whole, **changes))
    model = use(built, backend)
    # reading weights needs libraries that building a model does not
    if checkpoint_path is not None:
        from mvitv2.weights.load import load_into

        load_into(model, checkpoint_path)
    elif pretrained:
        from mvitv2.weights.pretrained import load_pretrained

        load_pretrained(model, name)
    return Features(model, out_indices) if isinstance(model, MViT) and features_only else model


def detector(name: str, **changes: Any) -> DetectorConfig:
    """The configuration of a published detector with some of its numbers, or its backbone's, changed."""
    config = DETECTORS[name]
    own = {k: v for k, v in changes.items() if k in {entry.name for entry in fields(DetectorConfig)}}
    backbone = model_config(name, **{k: v for k, v in changes.items() if k not in own})
    return replace(config, **{**own, "backbone": backbone})


def backbone(model: nn.Module) -> MViT:
    """The MViT in a model of this package.

    Raises:
        TypeError: It holds none.
    """
    for module in model.modules():
        if isinstance(module, MViT):
            return module
    raise TypeError(f"{type(model).__name__} holds no MViT")
