"""Initial values of a detector's pyramid and heads; its backbone draws its own.

=================================  ==============================================
convolutions of the pyramid        uniform, variance ``1 / fan_in`` (Caffe2 Xavier)
convolutions of the heads          normal, variance ``2 / fan_out`` (Caffe2 MSRA)
linear layers of the box heads     uniform, variance ``1 / fan_in``
convolutions of the RPN            normal 0.01
class scores                       normal 0.01
boxes, mask predictor              normal 0.001
biases                             0
=================================  ==============================================

Source: the ``__init__`` of these modules in detectron2.
"""

import re

from torch import Tensor, nn

RULES: tuple[tuple[str, str, float], ...] = (
    (r"backbone\.fpn_.+\.weight", "xavier", 0.0),
    (r"proposal_generator\..+\.weight", "normal", 0.01),
    (r"roi_heads\.box_predictor\..*cls_score\.weight", "normal", 0.01),
    (r"roi_heads\.box_predictor\..*bbox_pred\.weight", "normal", 0.001),
    (r"roi_heads\.mask_head\.predictor\.weight", "normal", 0.001),
    (r"roi_heads\.box_head\.(\d+\.)?fc\d+\.weight", "xavier", 0.0),
    (r"roi_heads\..+\.weight", "msra", 0.0),
)


def init_detector(model: nn.Module) -> None:
    """Draw pyramid and heads anew; norms, which every layer knows how to begin, are left as they are."""
    for name, parameter in model.named_parameters():
        if ".norm." in name or name.startswith("backbone.bottom_up."):
            continue
        if name.endswith(".bias"):
            nn.init.zeros_(parameter)
            continue
        rule = next((found for found in RULES if re.fullmatch(found[0], name)), None)
        if rule is not None:
            draw(parameter, rule[1], rule[2])


def draw(parameter: Tensor, kind: str, std: float) -> None:
    """Numbers of one of the rules above."""
    if kind == "xavier":
        nn.init.kaiming_uniform_(parameter, a=1)
    elif kind == "msra":
        nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")
    else:
        nn.init.normal_(parameter, std=std)
