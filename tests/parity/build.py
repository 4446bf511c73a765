"""From a fixture to a model of ours: the peer's configuration, its weights, its names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mvitv2.core.attend import Attend, reference
from mvitv2.core.config import MViTConfig
from mvitv2.core.model import MViT
from mvitv2.core.pyramid import PyramidBackbone
from mvitv2.core.reversible import build
from mvitv2.tasks.actions import RoIClassifier
from mvitv2.weights import dialects
from mvitv2.weights.adapt import Adaptation, adapted
from mvitv2.weights.convert import depths_of, fitted, joined_positions, to_ours, with_tables_of
from mvitv2.weights.peers.detectron2 import SCALES, detectron2_config
from mvitv2.weights.peers.openmmlab import mmaction2_config, mmpretrain_config
from mvitv2.weights.peers.slowfast import official_config, pytorchvideo_config, slowfast_config
from mvitv2.weights.peers.timm import timm_config
from mvitv2.weights.peers.torchvision import torchvision_config

from . import parity_weights as pw


@dataclass(frozen=True)
class Case:
    """A fixture's model with its weights, and how to run it."""

    fixture: dict[str, Any]
    peer: str
    config: MViTConfig
    model: nn.Module
    """What the peer's model is: an MViT, a pyramid, or an action detector."""

    @property
    def backbone(self) -> MViT:
        """The MViT in it."""
        return next(m for m in self.model.modules() if isinstance(m, MViT))


READERS: dict[str, Callable[[Mapping[str, Any]], MViTConfig]] = {
    "official": official_config,
    "slowfast": slowfast_config,
    "timm": lambda theirs: timm_config(theirs["MultiScaleVitCfg"], theirs["kwargs"]),
    "torchvision": lambda theirs: torchvision_config(theirs["name"], theirs["kwargs"]),
    "detectron2": lambda theirs: detectron2_config(theirs["MViT"]),
    "mmpretrain": lambda theirs: mmpretrain_config(theirs["MViT"], theirs["num_classes"]),
    "mmaction2": lambda theirs: mmaction2_config(theirs["MViT"], theirs["num_classes"]),
    "pytorchvideo": lambda theirs: pytorchvideo_config(theirs["create_multiscale_vision_transformers"]),
}


def peer_config(peer: str, theirs: Mapping[str, Any]) -> MViTConfig:
    """A fixture's ``peer_config`` as a config of ours."""
    return READERS[peer](theirs)


def peer_dialect(peer: str, config: MViTConfig) -> dialects.Dialect:
    """The dialect of a peer's state dict."""
    in_mlp = any(b.dim_out != b.dim_attn for b in config.blocks)
    return dialects.TIMM_MLP if peer == "timm" and in_mlp else dialects.DIALECTS[peer]


def load(path: str | Path, *, dtype: torch.dtype = torch.float32, attend: Attend = reference) -> Case:
    """The model of a fixture in eval mode."""
    fixture = pw.load(str(path))
    tensors = {name: torch.from_numpy(values) for name, values in pw.state_arrays(fixture)}
    peer, theirs = fixture["peer"]["name"], fixture["peer_config"]
    config = peer_config(peer, theirs)
    if "convert" in fixture:
        state = converted_state(fixture, tensors, config)
    else:
        state = our_state(tensors, peer_dialect(peer, config), config, theirs)
    config = with_tables_of(config, state)
    model = whole_model(config, attend, peer, theirs)
    case = Case(fixture, peer, config, model.to(dtype).eval())
    target = model if isinstance(model, PyramidBackbone) else case.backbone
    shapes = {name: value.shape for name, value in target.state_dict().items()}
    target.load_state_dict(fitted(state, shapes))
    return case


def our_state(
    tensors: Mapping[str, Tensor], dialect: dialects.Dialect, config: MViTConfig, theirs: Mapping[str, Any]
) -> dict[str, Tensor]:
    """A peer's state dict under our names, with the few changes of meaning that a configuration asks for."""
    state = to_ours(tensors, dialect, depths_of(config)).state
    if config.rank == 2 and "pos_embed_spatial" in state:
        # summed in double precision: the peer sums at run time, in whatever precision it runs
        state = joined_positions({name: value.double() for name, value in state.items()})
    if config.abs_pos_init == "sincos":
        state["pos_embed"] = doubled_positions(state["pos_embed"])
    if dialect is dialects.DETECTRON2 and theirs["MViT"].get("use_abs_pos"):
        state = without_class_position(state, config)
    if dialect is dialects.MMACTION2 and not config.class_token:
        state.pop("cls_token", None)
    return state


def doubled_positions(table: Tensor) -> Tensor:
    """SlowFast adds a fixed table to patches and class token, and then all of it once more."""
    return 2 * table


def without_class_position(state: dict[str, Tensor], config: MViTConfig) -> dict[str, Tensor]:
    """detectron2 keeps the class token's position of pre-training in a model that has no class token."""
    name = next(n for n in state if n.endswith("pos_embed"))
    tokens = torch.Size(config.abs_pos_grid).numel()
    return {**state, name: state[name][:, -tokens:]}


def converted_state(fixture: dict[str, Any], tensors: Mapping[str, Tensor], config: MViTConfig) -> dict[str, Tensor]:
    """Weights that belong to another configuration, carried over as the peer's own loader does."""
    source_peer = fixture["source_build"]["peer"]
    source = peer_config(source_peer, fixture["source_peer_config"])
    state = our_state(tensors, peer_dialect(source_peer, source), source, fixture["source_peer_config"])
    source = with_tables_of(source, state)
    shapes = {name: value.shape for name, value in build(source, reference).state_dict().items()}
    return adapted(fitted(state, shapes), source, config, Adaptation(inflation="repeat"))[0]


def whole_model(config: MViTConfig, attend: Attend, peer: str, theirs: Mapping[str, Any]) -> nn.Module:
    """The MViT, and what the peer puts around it."""
    if peer == "slowfast" and theirs["DETECTION"]["ENABLE"]:
        detection = theirs["DETECTION"]
        return RoIClassifier(
            build(replace(config, readout="tokens"), attend),
            scale=1 / detection["SPATIAL_SCALE_FACTOR"],
            resolution=detection["ROI_XFORM_RESOLUTION"],
            aligned=detection["ALIGNED"],
        )
    model = build(config, attend)
    fpn = theirs.get("FPN") if peer == "detectron2" else None
    if fpn is None:
        return model
    wanted = theirs["MViT"].get("out_features", SCALES)
    stages = [SCALES.index(name) for name in wanted]
    options = {"norm": fpn.get("norm", ""), "fuse": fpn.get("fuse_type", "sum")}
    return PyramidBackbone(model, fpn["out_channels"], stages=stages, **options)
