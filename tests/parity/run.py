"""Run a fixture's model on its inputs and collect every array the fixture names."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mvitv2.core.grid import num_prefix
from mvitv2.core.heads import TransformerBasicHead
from mvitv2.core.layers import DropPath
from mvitv2.core.model import MViT
from mvitv2.core.pyramid import PyramidBackbone
from mvitv2.core.reversible import ReversibleMViT
from mvitv2.tasks.actions import RoIClassifier
from mvitv2.weights.convert import depths_of
from mvitv2.weights.rename import Numbering

from . import parity_weights as pw
from .build import Case

Arrays = dict[str, Tensor]


def arrays(case: Case, *, grad: bool = False) -> Arrays:
    """Outputs and taps of a case, under the fixture's names, in the peer's own layout."""
    dtype = next(case.model.parameters()).dtype
    inputs = {n: torch.from_numpy(a).to(dtype) for n, a in pw.inputs(case.fixture).items()}
    with taps(case) as found, torch.set_grad_enabled(grad):
        PEERS[case.peer](case, inputs, found)
    return found


def numpy_arrays(found: Arrays) -> dict[str, np.ndarray]:
    """The same as arrays of NumPy."""
    return {name: value.detach().numpy() for name, value in found.items()}


@contextmanager
def taps(case: Case) -> Iterator[Arrays]:
    """Collect what the patch embedding, the blocks, norms and the classifier see and give."""
    found: Arrays = {}
    handles = [module.register_forward_hook(_recorder(found, name, case)) for name, module in tapped(case)]
    head = case.backbone.head
    if isinstance(head, TransformerBasicHead):
        handles.append(head.projection.register_forward_hook(_head_recorder(found)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def tapped(case: Case) -> list[tuple[str, nn.Module]]:
    """Modules whose output a fixture may name, with the peer's name."""
    backbone = case.backbone
    names = [entry[0] for entry in case.fixture["tensors"]]
    prefix = next((p for p in ("backbone.", "bottom_up.") if any(n.startswith(p) for n in names)), "")
    patch = "conv_proj" if case.peer == "torchvision" else "patch_embed"
    norm = "norm_embed" if case.peer == "pytorchvideo" else "norm"
    pairs = [(prefix + patch, backbone.patch_embed), (norm, backbone.norm), ("norm_stem", backbone.norm_stem)]
    if isinstance(backbone, ReversibleMViT):
        layers = list(backbone.rev_backbone["layers"].children())
        return [*pairs, *((f"rev_backbone.layers.{i}", layer) for i, layer in enumerate(layers))]
    numbering = Numbering(depths_of(case.config))
    for i, block in enumerate(backbone.blocks):
        stage, place = numbering.stage_and_place(i)
        name = f"stages.{stage}.blocks.{place}" if case.peer == "timm" else f"blocks.{i}"
        pairs.append((prefix + name, block))
    return pairs


def _recorder(found: Arrays, name: str, case: Case) -> Callable[..., None]:
    def record(module: nn.Module, _inputs: Any, output: Any) -> None:
        x, grid = output if isinstance(output, tuple) else (output, None)
        if case.peer == "detectron2" and grid is not None:
            x = x.unflatten(1, grid)
        if name == "conv_proj":
            x = x.transpose(1, 2).unflatten(2, grid)
        found[name] = x

    return record


def _head_recorder(found: Arrays) -> Callable[..., None]:
    def record(module: nn.Module, inputs: Any, output: Tensor) -> None:
        found["pre_logits"], found["logits"] = inputs[0], output

    return record


def classify(case: Case, inputs: Arrays, found: Arrays) -> None:
    """official, SlowFast, torchvision, pytorchvideo: a classifier, or a detector of actions."""
    clips = inputs["image"] if "image" in inputs else inputs["video"]
    backbone = case.backbone
    if isinstance(case.model, RoIClassifier):
        found["output"] = case.model(clips, inputs["boxes"])
        return
    embedded, _ = backbone.embed(clips)
    found["pos_encoding"] = found["cls_positional_encoding"] = embedded
    if isinstance(backbone, ReversibleMViT):
        reversible(backbone, clips, found)
    trained = trained_output(backbone, clips) if case.fixture.get("train_mode") else None
    found["output"] = backbone(clips)
    if trained is not None:
        found["train_output"] = trained


def trained_output(backbone: MViT, clips: Tensor) -> Tensor:
    """What the model gives in train mode when nothing is dropped."""
    rates = [m for m in backbone.modules() if isinstance(m, (DropPath, nn.Dropout))]
    saved = [vars(m).copy() for m in rates]
    for module in rates:
        setattr(module, "rate" if isinstance(module, DropPath) else "p", 0.0)
    backbone.train()
    with torch.no_grad():
        output = backbone(clips)
    backbone.eval()
    for module, values in zip(rates, saved, strict=True):
        vars(module).update(values)
    return output


def reversible(model: ReversibleMViT, clips: Tensor, found: Arrays) -> None:
    """The two streams that leave the trunk, and what becomes of them."""
    found["rev_backbone"] = torch.cat(model.streams(clips)[-1][0], dim=-1)
    x, _ = model.trunk(clips)[-1]
    found["fuse"] = x if model.config.readout == "mean_norm" else model.norm(x)


def timm(case: Case, inputs: Arrays, found: Arrays) -> None:
    """timm: a classifier with its intermediates, or a pyramid of features."""
    backbone, pixels = case.backbone, inputs["image"]
    final, maps = backbone.forward_intermediates(pixels)
    for i, feature in enumerate(maps):
        found[f"intermediates.{i}"] = found[f"features.{i}"] = feature
    found["forward_features"] = final
    features = backbone.forward_head(final, pre_logits=True)
    logits = backbone(pixels)
    found.update(pre_logits=features, logits=logits)


def detectron2(case: Case, inputs: Arrays, found: Arrays) -> None:
    """detectron2: normed maps of stages, and the levels of the feature pyramid."""
    backbone = case.backbone
    stages = backbone.config.output_norms
    for stage, feature in zip(stages, backbone.maps(inputs["image"], stages), strict=True):
        found[f"scale{stage + 2}"] = feature
    if isinstance(case.model, PyramidBackbone):
        found.update(case.model(inputs["image"]))


def openmmlab(case: Case, inputs: Arrays, found: Arrays) -> None:
    """mmpretrain and mmaction2: normed maps of scales, patches and class token apart, and a classifier."""
    backbone = case.backbone
    pixels = inputs["image"] if "image" in inputs else inputs["video"]
    levels = backbone.trunk(pixels)
    levels[-1] = (backbone.norm(levels[-1][0]), levels[-1][1])
    for stage, (x, grid) in enumerate(levels):
        p = num_prefix(x, grid)
        lattice = x[:, p:].transpose(1, 2).unflatten(2, grid)
        found[f"scale{stage}"] = found[f"scale{stage}.patch"] = lattice
        if p:
            found[f"scale{stage}.cls"] = x[:, 0]
    if backbone.config.num_classes:
        backbone(pixels)


PEERS: dict[str, Callable[[Case, Arrays, Arrays], None]] = {
    "official": classify,
    "slowfast": classify,
    "torchvision": classify,
    "pytorchvideo": classify,
    "timm": timm,
    "detectron2": detectron2,
    "mmpretrain": openmmlab,
    "mmaction2": openmmlab,
}
