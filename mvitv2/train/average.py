"""A moving average of the weights (timm ``ModelEmaV3`` in spirit), which often is better than the last weights."""

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mvitv2.core.model import MViT
from mvitv2.train.parallel import own


class Average:
    """An exponential moving average of a model's parameters; buffers are copied.

    The decay warms up as ``(1 + n) / (10 + n)``, so that a short run is not mostly its random start.

    Args:
        model: What is averaged; its copy starts equal.
        decay: Part of the average that stays at each update, once warm.
    """

    def __init__(self, model: MViT, decay: float):
        self.decay, self.updates = decay, 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of ``model``."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        ours: list[Tensor] = [own(p) for p in self.model.parameters()]
        theirs: list[Tensor] = [own(p) for p in model.parameters()]
        get_ema_multi_avg_fn(decay)(ours, theirs, None)
        for mine, its in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(its)
