"""A weights file understood: our names, the configuration, where it comes from, and what had to be assumed."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvitv2.core.config import MViTConfig
from mvitv2.core.masked import pretraining
from mvitv2.core.model import MViT
from mvitv2.core.positions import sincos_positions
from mvitv2.tasks.detect.config import DetectorConfig
from mvitv2.variants import VARIANTS
from mvitv2.weights import detectors, dialects, files, own
from mvitv2.weights.convert import (
    State,
    depths_of,
    fitted,
    image_kernels,
    joined_positions,
    prefix_of,
    to_ours,
    with_tables_of,
)
from mvitv2.weights.described import settings_config, stored_description, stored_settings
from mvitv2.weights.dialects import Dialect
from mvitv2.weights.infer import infer, stage_depths
from mvitv2.weights.plain import check_sizes, stored_card, stored_config
from mvitv2.weights.rename import DialectError

Source = str | os.PathLike[str] | Mapping[str, Any]


@dataclass
class Opened:
    """A checkpoint under our names."""

    state: State
    """Names of an MViT, or of a :class:`~mvitv2.core.pyramid.PyramidBackbone` where there is a pyramid; and, of a
    detector, those of its RPN and heads."""
    config: MViTConfig
    dialect: Dialect
    container: str
    card: dict[str, Any] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    beside: State = field(default_factory=dict)
    """Tensors of other parts of the model that was trained, decoders or detectors' heads, under the file's names."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The training configuration stored in the file, where there is one."""
    detector: DetectorConfig | None = None
    """What the detector is, where there are an RPN and heads."""

    @property
    def left_out(self) -> list[str]:
        """Names of those tensors."""
        return list(self.beside)

    @property
    def has_pyramid(self) -> bool:
        """Whether there is a feature pyramid network around the backbone."""
        return pyramid_around(self.state)

    @property
    def backbone(self) -> State:
        """The MViT's part of the state dict."""
        return backbone_part(self.state)


def pyramid_around(state: State) -> bool:
    """Whether a state dict has a feature pyramid network beside the backbone."""
    return any(name.startswith("fpn_lateral") for name in state)


def backbone_part(state: State) -> State:
    """The MViT's part of a state dict that may have a pyramid around it."""
    inner = {n.removeprefix("bottom_up."): v for n, v in state.items() if n.startswith("bottom_up.")}
    return inner or state


def open_weights(source: Source, *, config: MViTConfig | None = None, dialect: str | None = None) -> Opened:
    """Read a file or a state dict of any dialect.

    Args:
        source: A path, or names and tensors (of torch or NumPy); a mapping may have the state dict under
            ``model_state``, ``state_dict`` or ``model``, and beside it what the file says of itself.
        config: What the model is, where names and shapes cannot tell; its conventions are kept.
        dialect: Whose names they are, instead of looking.

    Raises:
        mvitv2.weights.files.WeightsFileError: The file cannot be read.
        DialectError: Names fit no dialect, or some of them do not; all of those are named.
    """
    content = in_memory(source) if isinstance(source, Mapping) else files.read(Path(source))
    try:
        return understood(content, config, dialect)
    except ValueError as error:
        where = "this state dict" if isinstance(source, Mapping) else Path(source).name
        raise DialectError(f"{where}: {error}") from error


def understood(content: files.StoredTensors, config: MViTConfig | None, dialect: str | None) -> Opened:
    """Names translated, and the configuration found: given, described in the file, or inferred from shapes."""
    tensors, metadata, container = content.tensors, content.metadata, content.container
    if container == "safetensors" and own.KEY in metadata:
        stored = metadata[own.KEY]
        config, card = config or stored_config(stored["config"]), stored_card(stored["card"])
        names = detectors.inner_name if "detector" in card else str
        ours = to_ours({names(n): v for n, v in tensors.items()}, dialects.OWN, ())
        return with_detector(Opened(ours.state, config, dialects.OWN, container, card, beside=ours.beside))
    if empty := [name for name, value in tensors.items() if 0 in value.shape]:
        raise DialectError(f"{len(empty)} tensors hold no numbers: {', '.join(empty)}")
    settings, (described, card) = stored_settings(metadata), stored_description(metadata)
    kind, known = _dialect(tensors, settings, dialect), config or described
    depths = _depths(tensors, kind, known)
    ours = to_ours(tensors, kind, depths)
    if known is None and not settings and "mask_token" in ours.beside:
        known = published_pretraining(ours.state)
    state = ours.state if pyramid_around(ours.state) else backbone_part(ours.state)
    found, assumed = (known, []) if known is not None else _config(state, kind, settings, depths)
    check_sizes(found)
    # heads without a pyramid are no detector of ours
    heads = {n: v for n, v in ours.state.items() if n.startswith(detectors.HEADS) and n not in state}
    opened = Opened(state, found, kind, container, card, assumed, {**ours.beside, **heads}, settings)
    opened.state = _translated(state, found, kind)
    opened.config = with_tables_of(found, opened.backbone)
    return with_detector(opened)


def with_detector(opened: Opened) -> Opened:
    """The same checkpoint with its detector understood: as the card says, or as names and shapes tell.

    Heads of other detectors than ours are left out.
    """
    if not detectors.has_heads(opened.state):
        return opened
    if not detectors.is_whole(opened.state):
        heads = {n: v for n, v in opened.state.items() if n.startswith(detectors.HEADS)}
        opened.state = {n: v for n, v in opened.state.items() if n not in heads}
        opened.beside = {**opened.beside, **heads}
        return opened
    if "detector" in opened.card:
        opened.detector = detectors.stored_detector(opened.card["detector"], opened.config)
    else:
        opened.detector, assumed = detectors.inferred_detector(opened.state, opened.config)
        opened.assumed = opened.assumed + assumed
    return opened


def in_memory(source: Mapping[str, Any]) -> files.StoredTensors:
    """A state dict as if it had been read from a file; copied, so that a model shares no memory with it.

    Raises:
        DialectError: There are no tensors in it.
    """
    wrapper = next((k for k in files.WRAPPERS if isinstance(source.get(k), Mapping)), "")
    inner = source[wrapper] if wrapper else source
    values = {n: v for n, v in inner.items() if isinstance(v, Tensor | np.ndarray) and isinstance(n, str)}
    if not values:
        raise DialectError(f"expected names and tensors, got {[str(key)[:60] for key in list(inner)[:5]]} without any")
    prefix = ""
    while longer := [prefix + p for p in files.PREFIXES if all(n.startswith(prefix + p) for n in values)]:
        prefix = longer[0]
    tensors = {n.removeprefix(prefix): copied(torch.as_tensor(v)) for n, v in values.items()}
    beside = {n: v for n, v in source.items() if n != wrapper and n not in values}
    return files.StoredTensors(tensors, beside, "mapping", wrapper, prefix)


def copied(value: Tensor) -> Tensor:
    """The tensor on the CPU in memory of its own; one without memory (meta) as it is, for those who want shapes."""
    return value.detach() if value.is_meta else value.detach().to("cpu", copy=True)


def _dialect(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], name: str | None) -> Dialect:
    if name is not None:
        if name not in dialects.DIALECTS:
            raise DialectError(f"dialect {name!r} is none of {', '.join(dialects.DIALECTS)}")
        found = dialects.detect(tensors)
        return found if found.name == name else dialects.DIALECTS[name]
    if settings:
        return dialects.SLOWFAST if "PATCH_2D" in settings["MVIT"] else dialects.OFFICIAL
    return dialects.detect(tensors)


def _depths(tensors: Mapping[str, Tensor], kind: Dialect, config: MViTConfig | None) -> tuple[int, ...]:
    """Blocks per stage as far as names need them: timm counts per stage, OpenMMLab's last norm is the model's."""
    if kind.name == "timm":
        places = [re.match(r"(?:model\.)?stages[._](\d+)\.blocks\.(\d+)\.", name) for name in tensors]
        found = {(int(match[1]), int(match[2])) for match in places if match}
        depths = Counter(stage for stage, _ in found)
        whole = {(stage, place) for stage in range(len(depths)) for place in range(depths[stage])}
        if found != whole:
            raise DialectError(f"stages or blocks are missing, it has {sorted(found)[-3:]} as the last of {len(found)}")
        return tuple(depths[stage] for stage in range(len(depths)))
    if config is not None:
        return depths_of(config)
    if kind.name not in ("mmpretrain", "mmaction2"):
        return ()
    prefix = prefix_of(tensors, kind)
    return stage_depths({n.removeprefix(prefix).replace("projection", "proj"): v for n, v in tensors.items()})


def _config(
    state: State, kind: Dialect, settings: Mapping[str, Any], depths: tuple[int, ...]
) -> tuple[MViTConfig, list[str]]:
    backbone = backbone_part(state)
    if settings:
        return settings_config(settings, backbone, kind), []
    found = infer(backbone, kind, depths=depths if kind.name == "timm" else ())
    pyramid = ["a pyramid whose levels are summed"] if pyramid_around(state) else []
    if kind is dialects.SLOWFAST and holds_sines(backbone, found.config):
        return replace(found.config, abs_pos_init="sincos"), found.assumed + pyramid
    return found.config, found.assumed + pyramid


def holds_sines(state: State, config: MViTConfig) -> bool:
    """Whether the absolute positions of a clip model are fixed sines and cosines (``USE_FIXED_SINCOS_POS``)."""
    if config.abs_pos != "joint" or config.rank == len("hw") or config.embed_dim % 16 or state["pos_embed"].is_meta:
        return False
    table, prefix = state["pos_embed"][0].double(), int(config.class_token)
    fixed = sincos_positions(config.embed_dim, config.abs_pos_grid)
    return len(table) == prefix + len(fixed) and torch.allclose(table[prefix:], fixed, atol=1e-3)


def _translated(state: State, config: MViTConfig, kind: Dialect) -> State:
    """The few tensors whose meaning, not name, differs between codebases."""
    if config.rank == len("hw"):
        state = image_kernels(state)
        state = joined_positions(state) if "pos_embed_spatial" in state else state
    if config.abs_pos_init == "sincos" and kind is dialects.SLOWFAST:
        # SlowFast adds its fixed table to patches and class token, and then all of it once more
        state = {**state, "pos_embed": 2 * state["pos_embed"]}
    if kind is dialects.DETECTRON2:
        state = without_class_position(state, config)
    if kind is dialects.MMACTION2 and not config.class_token:
        state = {n: v for n, v in state.items() if n != "cls_token"}
    return state


def published_pretraining(state: Mapping[str, Tensor]) -> MViTConfig | None:
    """The published pre-training that has these shapes; tables of its last stage say too little of its strides."""
    for name, config in VARIANTS.items():
        if name.startswith("maskfeat_"):
            encoder = pretraining(config)
            with torch.device("meta"):
                wanted = {n: v.shape for n, v in MViT(encoder).state_dict().items()}
            if wanted == {n: v.shape for n, v in state.items()}:
                return encoder
    return None


def without_class_position(state: State, config: MViTConfig) -> State:
    """detectron2 keeps the class token's position of pre-training in a model that has no class token."""
    tokens = prod(config.abs_pos_grid)
    return {n: v[:, -tokens:] if n.endswith("pos_embed") and v.ndim == 3 else v for n, v in state.items()}


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
    typed = {n: state[n].dtype for n, v in model.state_dict().items() if n in state and v.is_floating_point()}
    kinds = [f"{n} is {dtype}" for n, dtype in typed.items() if not dtype.is_floating_point]
    found = {"missing": missing, "superfluous": superfluous, "mis-shaped": shapes, "no real numbers": kinds}
    problems = [f"{title}: {', '.join(names)}" for title, names in found.items() if names]
    if problems:
        raise DialectError(f"{what} does not fit the model; {'; '.join(problems)}")
    floats = {n: v.to(torch.get_default_dtype()) if v.is_floating_point() else v for n, v in state.items()}
    model.load_state_dict(floats, assign=any(p.is_meta for p in model.parameters()))
