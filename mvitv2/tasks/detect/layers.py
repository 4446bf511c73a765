"""Convolutions of the heads, and the batch norm that counts regions."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from mvitv2.core.pyramid import ChannelNorm


class Conv(nn.Conv2d):
    """A 3x3 convolution with bias, or one without followed by a norm, and ReLU (detectron2 ``Conv2d``)."""

    def __init__(self, dim_in: int, dim_out: int, norm: str = ""):
        super().__init__(dim_in, dim_out, 3, padding=1, bias=not norm)
        self.norm = NORMS[norm](dim_out)

    def forward(self, input: Tensor) -> Tensor:
        """``(N, dim_in, H, W) -> (N, dim_out, H, W)``."""
        return F.relu(self.norm(super().forward(input)))


class RegionNorm(nn.BatchNorm2d):
    """Batch norm over the regions of all processes (detectron2 ``NaiveSyncBatchNorm``, ``stats_mode="N"``).

    On one process it is torch's. On several it differs from ``nn.SyncBatchNorm``: a process may have no region at all,
    and ``running_var`` takes the biased variance, as the released models were trained with.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``(N, C, H, W) -> (N, C, H, W)``, ``N`` regions of this process."""
        if self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return self.over_processes(input)
        return super().forward(input)

    def over_processes(self, input: Tensor) -> Tensor:
        """Norm by mean and variance over the regions of all processes; gradients cross processes too."""
        from torch.distributed.nn.functional import all_reduce  # torch may be built without

        x, count, channels = input.float(), input.shape[0], input.shape[1]
        if count:
            means = torch.cat((x.mean(dim=(0, 2, 3)), (x * x).mean(dim=(0, 2, 3)), x.new_ones(1))) * count
        else:
            means = x.new_zeros(2 * channels + 1) + x.sum()  # so that backward calls every process to the reduction
        means = all_reduce(means)
        total = means[-1].detach()
        mean, square, _ = (means / total.clamp(min=1)).split((channels, channels, 1))
        variance = square - mean * mean
        self.update_running(mean.detach(), variance.detach(), total.clamp(max=1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (x * scale[:, None, None] + shift[:, None, None]).to(input.dtype)

    def update_running(self, mean: Tensor, variance: Tensor, any_region: Tensor) -> None:
        """Move the running statistics, unless no process has a region."""
        if self.running_mean is None or self.running_var is None:
            return
        momentum = any_region * (self.momentum or 0.0)
        self.running_mean += momentum * (mean - self.running_mean)
        self.running_var += momentum * (variance - self.running_var)


def channel_norm(dim: int) -> ChannelNorm:
    """Layer norm over channels, as in the ViTDet project."""
    return ChannelNorm(dim, eps=1e-6)


def no_norm(dim: int) -> nn.Identity:
    """No norm."""
    return nn.Identity()


NORMS = {"": no_norm, "BN": RegionNorm, "LN": channel_norm}
