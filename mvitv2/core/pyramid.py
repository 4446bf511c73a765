"""The backbone as a pyramid: lists of maps for anyone, and the feature pyramid network of detectors."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .features import FeatureInfo, chosen_stages
from .model import MViT

FUSE_SCALE = {"sum": 1.0, "avg": 0.5}


class Features(nn.Module):
    """A backbone that gives the maps of chosen stages as a list: timm's ``features_only=True``.

    Args:
        model: Its final norm and classifier are removed.
        out_indices: Stages; all if not given.
    """

    def __init__(self, model: MViT, out_indices: int | Sequence[int] | None = None):
        super().__init__()
        info = model.feature_info
        self.feature_info = FeatureInfo(info.info, chosen_stages(out_indices, len(info.info)))
        model.norm, model.head = nn.Identity(), nn.Identity()
        self.model = model

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Images or clips to ``(B, C', *grid)`` per chosen stage, finest first."""
        return self.model.maps(pixels, self.feature_info.out_indices)


class PyramidBackbone(nn.Module):
    """A backbone and a feature pyramid network (Lin et al. 2017; detectron2 ``fpn.py`` with ``LastLevelMaxPool``).

    Args:
        bottom_up: Backbone for images.
        out_channels: Channels of all levels of the pyramid.
        norm: ``""`` for convolutions with bias, ``"LN"`` for convolutions followed by a norm over channels.
        fuse: ``"sum"`` of a level and the coarser one, or their ``"avg"``.
        stages: Stages that give a level; all if not given.
    """

    def __init__(
        self,
        bottom_up: MViT,
        out_channels: int,
        *,
        norm: str = "",
        fuse: str = "sum",
        stages: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if fuse not in FUSE_SCALE:
            raise ValueError(f"fuse={fuse!r} is none of {', '.join(map(repr, FUSE_SCALE))}")
        self.fuse_scale = FUSE_SCALE[fuse]
        self.out_channels = out_channels  # under this name torchvision's detectors look for it
        self.stages = chosen_stages(stages, bottom_up.config.num_stages)
        channels = bottom_up.feature_info.channels()
        for stage in self.stages:
            self.add_module(f"fpn_lateral{stage + 2}", NormedConv(channels[stage], out_channels, 1, norm))
            self.add_module(f"fpn_output{stage + 2}", NormedConv(out_channels, out_channels, 3, norm))
        self.bottom_up = bottom_up  # last, as in the released files

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """``(B, C, H, W)`` to ``{"p2": (B, out_channels, H/4, W/4), ..., "p6": ...}``, finest first."""
        return self.top_down(self.bottom_up.maps(pixels, self.stages))

    def top_down(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Levels from the backbone's maps, coarse added to fine; one more level halves the coarsest."""
        levels: list[Tensor] = []
        coarser: Tensor | None = None
        for stage, feature in reversed(list(zip(self.stages, maps, strict=True))):
            level = self.get_submodule(f"fpn_lateral{stage + 2}")(feature)
            if coarser is not None:
                # by 2, and one row or column less where the finer level has an odd number of them
                coarser = F.interpolate(coarser, size=level.shape[-2:], mode="nearest")
                level = (level + coarser) * self.fuse_scale
            coarser = level
            levels.insert(0, self.get_submodule(f"fpn_output{stage + 2}")(level))
        levels.append(F.max_pool2d(levels[-1], kernel_size=1, stride=2))
        numbers = [*self.stages, self.stages[-1] + 1]
        return {f"p{stage + 2}": level for stage, level in zip(numbers, levels, strict=True)}


class NormedConv(nn.Conv2d):
    """A convolution with bias, or one without followed by a norm over channels (detectron2 ``Conv2d``)."""

    def __init__(self, dim_in: int, dim_out: int, kernel: int, norm: str):
        if norm not in ("", "LN"):
            raise ValueError(f"norm={norm!r} of the pyramid is neither '' nor 'LN'")
        super().__init__(dim_in, dim_out, kernel, padding=kernel // 2, bias=not norm)
        self.norm = ChannelNorm(dim_out, eps=1e-6) if norm else nn.Identity()

    def forward(self, input: Tensor) -> Tensor:
        """``(B, dim_in, H, W) -> (B, dim_out, H, W)``."""
        return self.norm(super().forward(input))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map (detectron2's ``LN``)."""

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C, H, W)``."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
