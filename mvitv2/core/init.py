"""Initial weights, as the authors' per task.

=============================  ==========================  ===============================
parameter                      ``"image"`` (mvit)          ``"video"`` (SlowFast)
=============================  ==========================  ===============================
linear weight                  truncated normal 0.02       truncated normal 0.02
linear bias                    0                           0.02
layer norm weight, bias        1, 0                        1, **0.02**
convolution weight             torch's default             truncated normal 0.02
convolution bias               torch's default             torch's default
class token, positions         truncated normal 0.02       truncated normal 0.02
layer scale                    ``layer_scale``             ``layer_scale``
batch norm weight, bias        1, 0                        1, 0
=============================  ==========================  ===============================

Sources: mvit ``mvit_model.py`` ``_init_weights``; SlowFast ``video_model_builder.py:1085-1092``. Relative tables are
zero where ``rel_pos_zero_init`` says so (detectron2's default). Truncation is at +-2, not at two deviations, as in
torch.
"""

import torch
from torch import Tensor, nn

from .config import MViTConfig
from .positions import sincos_positions

STD = 0.02
LINEAR_BIAS = {"image": 0.0, "video": 0.02}


def init_weights(module: nn.Module, config: MViTConfig) -> None:
    """Draw every parameter of a model, or of a part of one, anew.

    Args:
        module: An MViT or a part of it; parameters may lie on the meta device.
        config: Tells the rule and its exceptions.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            _draw(layer.weight)
            _fill(layer.bias, LINEAR_BIAS[config.init])
        elif isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
            _fill(layer.bias, LINEAR_BIAS[config.init])
        elif isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            layer.reset_parameters()
            if config.init == "video":
                _draw(layer.weight)
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            layer.reset_parameters()
    for name, parameter in module.named_parameters():
        _init_by_name(name.rpartition(".")[2], parameter, config)
    _scale_head(dict(module.named_children()).get("head", module), config.head_init_scale)


def _init_by_name(name: str, parameter: Tensor, config: MViTConfig) -> None:
    if name.startswith("gamma") and config.layer_scale is not None:
        nn.init.constant_(parameter, config.layer_scale)
    elif name.startswith("rel_pos") and config.rel_pos_zero_init:
        nn.init.zeros_(parameter)
    elif name == "pos_embed" and config.abs_pos_init == "sincos":
        table = sincos_positions(config.embed_dim, config.abs_pos_grid)
        with torch.no_grad():
            parameter.zero_()
            parameter[:, int(config.class_token) :].copy_(table)
    elif name.startswith(("rel_pos", "pos_embed", "cls_token")):
        _draw(parameter)


def _scale_head(head: nn.Module, scale: float) -> None:
    projection = dict(head.named_children()).get("projection")
    if scale != 1.0 and isinstance(projection, nn.Linear):
        with torch.no_grad():
            projection.weight.mul_(scale)
            projection.bias.mul_(scale)


def _fill(parameter: Tensor | None, value: float) -> None:
    if parameter is not None:
        nn.init.constant_(parameter, value)


def _draw(parameter: Tensor) -> None:
    nn.init.trunc_normal_(parameter, std=STD)
