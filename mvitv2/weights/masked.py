"""MaskFeat's pre-trained encoders with mask token and head: read from SlowFast's files and ours, written for both."""

import os
from pathlib import Path

import torch
import yaml

from mvitv2.core.attend import reference
from mvitv2.core.masked import MaskedMViT
from mvitv2.kernels import use
from mvitv2.weights import files
from mvitv2.weights.card import card_of
from mvitv2.weights.convert import State
from mvitv2.weights.opened import Source, filled, open_weights
from mvitv2.weights.peers.slowfast_settings import slowfast_settings
from mvitv2.weights.rename import DialectError
from mvitv2.weights.save import save_weights

PARTS = ("mask_token", "pred_head.")
SOBEL = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))


def load_masked(source: Source, *, backend: str = "auto") -> MaskedMViT:
    """The model in a file of MaskFeat's pre-training, to go on with it or to look at what it tells; in eval mode.

    To fine-tune its encoder, give the file to :func:`mvitv2.weights.load.load_into`.

    Raises:
        mvitv2.weights.files.WeightsFileError: The file cannot be read.
        DialectError: There is no pre-training in it, or its parts do not fit each other.
    """
    opened = open_weights(source)
    parts = {name: value for name, value in opened.beside.items() if name.startswith(PARTS)}
    weight = parts.get("pred_head.projections.0.weight")
    if weight is None or "mask_token" not in parts:
        raise DialectError(
            f"expected mask_token and pred_head.projections.0.weight of MaskFeat's pre-training, beside the encoder "
            f"are {list(opened.beside)[:5] or 'no tensors'}; load_model reads encoders and classifiers"
        )
    with torch.device("meta"):
        model = use(MaskedMViT(opened.config, weight.shape[0], reference), backend)
    filled(model, {**opened.backbone, **parts}, what=f"this {opened.dialect.name} checkpoint")
    model.card = card_of(opened, source, opened.config, [])
    return model.eval()


def save_masked(model: MaskedMViT, path: str | os.PathLike[str], *, dialect: str = "mvitv2") -> Path:
    """Write a pre-trained model whole, for SlowFast or for us; its encoder alone goes anywhere by ``save_weights``.

    Raises:
        ValueError: Another dialect is asked for: none has names for mask token and head.
    """
    if dialect == "mvitv2":
        return save_weights(model, path)
    if dialect != "slowfast":
        raise ValueError(f"dialect={dialect!r} has no names for mask token and head; use 'slowfast' or 'mvitv2'")
    settings = {**slowfast_settings(model.config), "MASK": {"ENABLE": True, "PRED_HOG": True}}
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    extra = {"cfg": yaml.safe_dump(settings)}
    files.write(Path(path), {**state, **filters(model)}, container="torch zip", wrapper="model_state", extra=extra)
    return Path(path)


def filters(model: MaskedMViT) -> State:
    """SlowFast keeps its Sobel filters as buffers, one per colour, and misses them where they are not."""
    rows = torch.tensor(SOBEL).expand(model.config.in_channels, 1, 3, 3).contiguous()
    return {"hogs.0.weight_x": rows, "hogs.0.weight_y": rows.transpose(2, 3).contiguous()}
