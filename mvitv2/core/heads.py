"""From tokens to answers: how a model reads its tokens out, and the classifier."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .grid import Grid, num_prefix

Readout = Callable[[Tensor, Grid, nn.Module], Tensor]


def class_token(x: Tensor, grid: Grid, norm: nn.Module) -> Tensor:
    """The normed class token: ``(B, 1 + N, C) -> (B, C)``."""
    return norm(x)[:, 0]


def norm_mean(x: Tensor, grid: Grid, norm: nn.Module) -> Tensor:
    """The mean of normed grid tokens, a class token left out: ``(B, P + N, C) -> (B, C)``."""
    return norm(x)[:, num_prefix(x, grid) :].mean(dim=1)


def mean_norm(x: Tensor, grid: Grid, norm: nn.Module) -> Tensor:
    """The norm of the mean of grid tokens (SlowFast ``USE_MEAN_POOLING``): ``(B, P + N, C) -> (B, C)``."""
    return norm(x[:, num_prefix(x, grid) :].mean(dim=1))


def tokens(x: Tensor, grid: Grid, norm: nn.Module) -> Tensor:
    """All normed tokens, for heads of one's own: ``(B, P + N, C)``."""
    return norm(x)


READOUTS: dict[str, Readout] = {
    "class_token": class_token,
    "norm_mean": norm_mean,
    "mean_norm": mean_norm,
    "tokens": tokens,
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "softmax": lambda x: x.softmax(dim=-1),
    "sigmoid": torch.sigmoid,
}


class TransformerBasicHead(nn.Module):
    """Dropout, one linear layer, and an activation at inference only (mvit ``mvit_model.py``, same name).

    Args:
        dim_in: Channels of the features.
        num_classes: Classes.
        dropout_rate: Dropout of the features.
        act_func: ``"none"`` (logits, always), ``"softmax"`` or ``"sigmoid"`` (in eval mode, as the authors' models do).
    """

    def __init__(self, dim_in: int, num_classes: int, dropout_rate: float = 0.0, act_func: str = "none"):
        super().__init__()
        if act_func not in ACTIVATIONS:
            raise ValueError(f"act_func={act_func!r} is none of {', '.join(map(repr, ACTIVATIONS))}")
        self.act_func = act_func
        self.dropout = nn.Dropout(dropout_rate)
        self.projection = nn.Linear(dim_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim_in) -> (B, num_classes)``."""
        logits = self.projection(self.dropout(x))
        return logits if self.training else ACTIVATIONS[self.act_func](logits)
