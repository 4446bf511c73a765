"""Low-rank adapters (Hu et al., arXiv 2106.09685): frozen matrices, each with a trained product of two thin ones added.

An adapter is a parametrisation of ``weight`` (:mod:`torch.nn.utils.parametrize`), so everything that reads the weight,
kernels included, sees the sum; and a merged model has the very numbers of the adapted one.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mvitv2.core.model import MViT
from mvitv2.train.freezing import BACKBONE, freeze
from mvitv2.train.recipe import ADAPTER_TARGETS, listed

ADAPTERS = "adapters.safetensors"
"""The file of adapters and classifier in the folder of a run."""
FORMAT = "1"
MARK = ".parametrizations.weight."


class LowRank(nn.Module):
    """``W -> W + alpha / rank * up @ down``; ``up`` starts at zero, so an adapted model starts as it was.

    Args:
        weight: ``(out, in)``, what is adapted.
        rank: Columns of ``up`` and rows of ``down``.
        alpha: Strength, as in the paper.
    """

    scale: Tensor

    def __init__(self, weight: Tensor, *, rank: int, alpha: float):
        super().__init__()
        out, inner = weight.shape
        self.down = nn.Parameter(weight.new_empty(rank, inner))
        self.up = nn.Parameter(weight.new_zeros(out, rank))
        self.register_buffer("scale", torch.tensor(alpha / rank, device=weight.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """``(out, in)`` to the same."""
        return summed(weight, self.up, self.down, self.scale)


def summed(weight: Tensor, up: Tensor, down: Tensor, scale: Tensor) -> Tensor:
    """The weight with its adapter, in the numbers of the weight also where autocast is on."""
    with torch.autocast(weight.device.type, enabled=False):
        return weight + scale * (up @ down)


def adapt(model: MViT, *, rank: int, alpha: float | None = None, targets: Any = ("qkv", "proj")) -> None:
    """Freeze all but the classifier, and give matrices of every block an adapter, which is trained.

    Args:
        model: Changed in place.
        rank: Of the adapters.
        alpha: Strength; ``None`` for ``rank``, which is a scale of 1.
        targets: ``"qkv"`` and ``"proj"`` of the attention, ``"mlp"``.

    Raises:
        ValueError: The model has none of these matrices.
    """
    freeze(model, [BACKBONE])
    ends = tuple(end for target in listed(targets) for end in ADAPTER_TARGETS[target])
    found = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and name.endswith(ends)]
    if not found:
        raise ValueError(
            f"adapters for {', '.join(listed(targets))}: the model has no linear layers named {', '.join(ends)}"
        )
    for layer in found:
        added = LowRank(layer.weight, rank=rank, alpha=float(rank if alpha is None else alpha))
        parametrize.register_parametrization(layer, "weight", added)


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in which every adapter is added to its weight: that of the plain model."""
    found = {}
    for name, tensor in state.items():
        owner, mark, part = name.partition(MARK)
        if not mark:
            found[name] = tensor
        elif part == "original":
            up, down, scale = (state[f"{owner}{MARK}0.{one}"] for one in ("up", "down", "scale"))
            found[f"{owner}.weight"] = summed(tensor, up, down, scale)
    return found


def write_adapters(folder: Path, state: Mapping[str, Tensor], model: MViT, card: Mapping[str, Any]) -> Path:
    """The adapters and what else was trained, without the weights they belong to: a small file.

    Args:
        folder: Of the run.
        state: Of the adapted weights, those that are kept.
        model: Tells what is trained.
        card: What travels with weights.
    """
    from safetensors.torch import save_file

    from mvitv2.weights.files import replacing

    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    kept = {name: t.detach().cpu().contiguous() for name, t in state.items() if name in trained or _is_scale(name)}
    about = {"format": FORMAT, "config": json.dumps(model.config.to_dict()), "card": json.dumps(dict(card))}
    path = folder / ADAPTERS
    with replacing(path) as temporary:
        save_file(kept, temporary, metadata={f"mvitv2_adapters.{name}": text for name, text in about.items()})
    return path


def load_adapters(path: str | Path, base: str | Path | Mapping[str, Tensor] | None = None) -> MViT:
    """The plain model of a file of adapters, together with the weights that they were trained on.

    Args:
        path: ``adapters.safetensors`` of a run, or its folder.
        base: Those weights, a file of any codebase; ``None``: where the recipe of the run had them.

    Raises:
        ValueError: It is no file of adapters, or the weights are of another model.
    """
    from safetensors import safe_open

    from mvitv2.models import create_model
    from mvitv2.weights.load import load_model

    path = Path(path) / ADAPTERS if Path(path).is_dir() else Path(path)
    with safe_open(path, framework="pt") as file:
        about = {k.rpartition(".")[2]: v for k, v in (file.metadata() or {}).items() if k.startswith("mvitv2_adapters")}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    if about.get("format") != FORMAT:
        raise ValueError(f"{path} is no file of adapters of this version; `mvitv2 train --recipe lora` writes them")
    config, card = json.loads(about["config"]), json.loads(about["card"])
    recipe = card["provenance"]["recipe"]
    source, size = base if base is not None else recipe["weights"], config["input_size"]
    changes = {"num_classes": config["num_classes"], "img_size": size, "in_chans": config["in_channels"]}
    if source == "pretrained":
        model = create_model(recipe["model"], pretrained=True, **changes)
    else:
        model = load_model(source, **changes)
    if not isinstance(model, MViT):
        raise ValueError(f"{source} holds no classifier; adapters belong to the weights that they were trained on")
    _add(model, tensors, path)
    model.card = card
    return model


@torch.no_grad()
def _add(model: MViT, tensors: Mapping[str, Tensor], path: Path) -> None:
    state = model.state_dict()
    plain = {name: tensor for name, tensor in tensors.items() if MARK not in name}
    owners = {name.partition(MARK)[0] for name in tensors if MARK in name}
    wanted = {name: tensor.shape for name, tensor in plain.items()}
    for owner in owners:
        up, down = (tensors[f"{owner}{MARK}0.{one}"] for one in ("up", "down"))
        wanted[f"{owner}.weight"] = torch.Size((up.shape[0], down.shape[1]))
    wrong = [n for n, shape in wanted.items() if n not in state or state[n].shape != shape]
    if wrong:
        raise ValueError(f"{path} belongs to other weights: {', '.join(sorted(wrong)[:4])} are not there in that shape")
    adapted = {f"{owner}{MARK}original": state[f"{owner}.weight"] for owner in owners}
    model.load_state_dict({**state, **plain, **merged({**adapted, **tensors})})


def _is_scale(name: str) -> bool:
    return MARK in name and name.endswith(".scale")
