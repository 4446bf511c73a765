"""A weights file understood: our names, the configuration, where it comes from, and what had to be assumed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from mvitv2.core.config import MViTConfig
from mvitv2.weights import dialects, files
from mvitv2.weights.convert import Ours, State, depths_of, fitted, joined_positions, prefix_of, to_ours, with_tables_of
from mvitv2.weights.dialects import Dialect
from mvitv2.weights.evidence import examine
from mvitv2.weights.infer import infer
from mvitv2.weights.peers.slowfast import official_config, slowfast_config
from mvitv2.weights.rename import DialectError

Source = str | os.PathLike[str] | Mapping[str, Any]


@dataclass
class Opened:
    """A checkpoint under our names."""

    state: State
    """Names of an MViT, or of a :class:`~mvitv2.core.pyramid.PyramidBackbone` where there is a pyramid."""
    config: MViTConfig
    dialect: Dialect
    container: str
    card: dict[str, Any] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    """The training configuration stored in the file, where there is one."""

    @property
    def has_pyramid(self) -> bool:
        """Whether there is a feature pyramid network around the backbone."""
        return any(name.startswith("bottom_up.") for name in self.state)

    @property
    def backbone(self) -> State:
        """The MViT's part of the state dict."""
        return backbone_part(self.state)


def backbone_part(state: State) -> State:
    """The MViT's part of a state dict that may have a pyramid around it."""
    inner = {n.removeprefix("bottom_up."): v for n, v in state.items() if n.startswith("bottom_up.")}
    return inner or state


def open_weights(source: Source, *, config: MViTConfig | None = None, dialect: str | None = None) -> Opened:
    """Read a file or a state dict of any dialect.

    Args:
        source: A path, or names and tensors; a mapping may have the state dict under ``model_state``, ``state_dict`` or
            ``model``.
        config: What the model is, where names and shapes cannot tell; its conventions are kept.
        dialect: Whose names they are, instead of looking.

    Raises:
        mvitv2.weights.files.WeightsFileError: The file cannot be read.
        DialectError: Names fit no dialect, or some of them do not; all of those are named.
    """
    tensors, metadata, container = _content(source)
    own = metadata.get("mvitv2")
    if own is not None:
        stored = MViTConfig.from_dict(own["config"])
        return Opened(dict(tensors), config or stored, dialects.OWN, container, card=dict(own["card"]))
    settings = _settings(metadata)
    kind = _dialect(tensors, settings, dialect)
    ours = _renamed(tensors, kind, config)
    found, assumed = (config, []) if config is not None else _config(ours.state, kind, settings)
    opened = Opened(ours.state, found, kind, container, {}, assumed, ours.left_out, settings)
    opened.state = _translated(opened)
    opened.config = with_tables_of(opened.config, opened.backbone)
    return opened


def _content(source: Source) -> tuple[Mapping[str, Tensor], dict[str, Any], str]:
    if not isinstance(source, Mapping):
        stored = files.read(Path(source))
        return stored.tensors, stored.metadata, stored.container
    inner = next((source[k] for k in files.WRAPPERS if isinstance(source.get(k), Mapping)), source)
    strangers = [n for n, v in inner.items() if not isinstance(v, Tensor)]
    if strangers or not inner:
        raise DialectError(f"expected names and tensors, got other values under {strangers[:5]}")
    # a copy: the model must not share memory with somebody else's state dict
    return {n.removeprefix("module."): v.detach().clone() for n, v in inner.items()}, {}, "mapping"


def _settings(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The YAML that facebookresearch/mvit and SlowFast store as ``cfg``; empty where there is none."""
    text = metadata.get("cfg")
    if not isinstance(text, str) or "MVIT" not in text:
        return {}
    try:
        cfg = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DialectError(f"the configuration stored in the file is no YAML: {str(error)[:200]}") from error
    return cfg if isinstance(cfg, dict) and {"MVIT", "MODEL", "DATA"} <= set(cfg) else {}


def _dialect(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], name: str | None) -> Dialect:
    if name is not None:
        if name not in dialects.DIALECTS:
            raise DialectError(f"dialect {name!r} is none of {', '.join(dialects.DIALECTS)}")
        found = dialects.detect(tensors)
        return found if found.name == name else dialects.DIALECTS[name]
    if settings:
        return dialects.SLOWFAST if "PATCH_2D" in settings["MVIT"] else dialects.OFFICIAL
    return dialects.detect(tensors)


def _renamed(tensors: Mapping[str, Tensor], kind: Dialect, config: MViTConfig | None) -> Ours:
    depths = depths_of(config) if config is not None else _depths(tensors, kind)
    return to_ours(tensors, kind, depths)


def _depths(tensors: Mapping[str, Tensor], kind: Dialect) -> tuple[int, ...]:
    """Blocks per stage as far as names need them: timm counts per stage, OpenMMLab's last norm is the model's."""
    if kind.name == "timm":
        places: dict[int, int] = {}
        for name in tensors:
            parts = name.removeprefix("model.").replace("stages_", "stages.").split(".")
            if parts[0] == "stages":
                places[int(parts[1])] = max(places.get(int(parts[1]), 0), int(parts[3]) + 1)
        return tuple(places[stage] for stage in sorted(places))
    if kind.name not in ("mmpretrain", "mmaction2"):
        return ()
    prefix = prefix_of(tensors, kind)
    plain = {n.removeprefix(prefix).replace("projection", "proj"): v for n, v in tensors.items()}
    opens = examine(plain).opens
    starts = [0, *(i for i, first in enumerate(opens) if first), len(opens)]
    return tuple(b - a for a, b in pairwise(starts))


def _config(state: State, kind: Dialect, settings: dict[str, Any]) -> tuple[MViTConfig, list[str]]:
    if settings:
        reader = slowfast_config if kind is dialects.SLOWFAST else official_config
        # tables are resampled at other sizes; that mvit reads wrong rows there is an accident, not a convention
        return replace(reader(settings), table_resampling="linear"), []
    found = infer(backbone_part(state), kind)
    return found.config, found.assumed


def _translated(opened: Opened) -> State:
    """The few tensors whose meaning, not name, differs between codebases."""
    state, config = opened.state, opened.config
    if config.rank == len("hw") and "pos_embed_spatial" in state:
        state = joined_positions(state)
        opened.config = replace(config, abs_pos="joint")
    if config.abs_pos_init == "sincos" and opened.dialect is dialects.SLOWFAST:
        # SlowFast adds its fixed table to patches and class token, and then all of it once more
        state = {**state, "pos_embed": 2 * state["pos_embed"]}
    if opened.dialect is dialects.DETECTRON2:
        state = without_class_position(state, config)
    if opened.dialect is dialects.MMACTION2 and not config.class_token:
        state = {n: v for n, v in state.items() if n != "cls_token"}
    return state


def without_class_position(state: State, config: MViTConfig) -> State:
    """detectron2 keeps the class token's position of pre-training in a model that has no class token."""
    tokens = prod(config.abs_pos_grid)
    return {n: v[:, -tokens:] if n.endswith("pos_embed") else v for n, v in state.items()}


def filled(model: torch.nn.Module, state: Mapping[str, Tensor], *, what: str) -> None:
    """Load a state dict: every tensor matched, every shape equal, everything else named in one error.

    Args:
        model: Whose parameters are filled.
        state: Our names.
        what: Where the tensors come from, for the message.

    Raises:
        DialectError: Missing, superfluous or mis-shaped tensors.
    """
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    state = fitted(state, wanted)
    wrong = {n: tuple(s) for n, s in wanted.items() if n in state and state[n].shape != s}
    missing = sorted(set(wanted) - set(state))
    superfluous = sorted(set(state) - set(wanted))
    shapes = [f"{n} is {tuple(state[n].shape)}, expected {s}" for n, s in wrong.items()]
    problems = [
        f"{title}: {', '.join(names)}"
        for title, names in (("missing", missing), ("superfluous", superfluous), ("mis-shaped", shapes))
        if names
    ]
    if problems:
        raise DialectError(f"{what} does not fit the model; {'; '.join(problems)}")
    floats = {n: v.to(torch.get_default_dtype()) if v.is_floating_point() else v for n, v in state.items()}
    model.load_state_dict(floats, assign=any(p.is_meta for p in model.parameters()))
