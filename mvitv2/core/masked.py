"""MaskFeat (Wei et al., CVPR 2022, arXiv 2112.09133): an MViT that sees a part and tells what the rest looks like.

Names of parameters are those of SlowFast's ``MaskMViT`` (``models/masked.py``), so its files load.
"""

from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attend import Attend, reference
from .config import MViTConfig
from .grid import Grid, num_prefix
from .init import init_weights
from .layers import token_norm
from .model import MViT


class MaskedMViT(MViT):
    """An encoder whose hidden patches become a learned token, and a linear head that tells what was there.

    Args:
        config: Of the encoder, as :func:`pretraining` gives it.
        num_targets: Numbers told of every token that leaves the encoder.
        attend: Attention backend.
    """

    def __init__(self, config: MViTConfig, num_targets: int, attend: Attend = reference):
        if config.num_classes or config.final_norm or config.reversible is not None:
            raise ValueError(
                f"num_classes={config.num_classes}, final_norm={config.final_norm}, reversible={config.reversible}: a "
                "masked model has no classifier, no last norm and no reversible blocks; use pretraining(config)"
            )
        super().__init__(config, attend)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.pred_head = PredictionHead(config, num_targets)
        init_weights(self.pred_head, config)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, pixels: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the head tells of all tokens, hidden ones and others; without a mask, the encoder's pooled features.

        Args:
            pixels: Images ``(B, C, H, W)`` or clips ``(B, C, T, H, W)``.
            mask: ``(B, *grid)``, true where hidden; a grid of any size, taken to that of the patches by the nearest.

        Returns:
            ``(B, N', num_targets)`` on the grid that leaves the encoder, or ``(B, C')``.
        """
        if mask is None:
            return super().forward(pixels)
        x, grid = self.patch_embed(pixels)
        hidden = nearest(mask, grid).flatten(1)[..., None].to(x.dtype)
        x = x * (1 - hidden) + self.mask_token * hidden
        tokens, grid = self.through(*self.placed(x, grid))[-1]
        return self.pred_head(tokens)[:, num_prefix(tokens, grid) :]

    def no_weight_decay(self) -> set[str]:
        """The mask token does not decay either."""
        return super().no_weight_decay() | {"mask_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The mask token learns with the stem."""
        groups = super().group_matcher(coarse)
        return {**groups, "stem": rf"{groups['stem']}|^mask_token"}


class PredictionHead(nn.Module):
    """A norm and a linear layer (SlowFast ``head_helper.py`` ``MSSeparateHead``, whose lists have one entry here)."""

    def __init__(self, config: MViTConfig, num_targets: int):
        super().__init__()
        width = config.num_features
        self.transforms = nn.ModuleList([nn.ModuleList([token_norm(config, width)])])
        self.projections = nn.ModuleList([nn.Linear(width, num_targets)])

    def forward(self, x: Tensor) -> Tensor:
        """``(B, L, C) -> (B, L, num_targets)``."""
        (norm,) = cast("list[nn.Module]", self.transforms[0])
        return self.projections[0](norm(x))


def nearest(mask: Tensor, grid: Grid) -> Tensor:
    """A mask ``(B, *any)`` on another grid, each cell as the nearest one was: ``(B, *grid)`` bool."""
    return F.interpolate(mask[:, None].float(), size=grid, mode="nearest")[:, 0].bool()


def pretraining(config: MViTConfig) -> MViTConfig:
    """The encoder as it is pre-trained: the last stage keeps its grid, there is no classifier, last norm or drop path.

    So each token that leaves stands for a patch of 16 pixels, and the last stage's position tables are longer than
    those of the classifier, for which they are resampled (SlowFast ``configs/masked_ssl``).
    """
    blocks = list(config.blocks)
    last = blocks[-1].stage
    before = [b for b in blocks if b.stage < last]
    for index, block in enumerate(blocks):
        if block.stage == last and before:
            still = (1,) * len(block.q_stride)
            blocks[index] = replace(block, q_stride=still, kv_stride=before[-1].kv_stride, table_rows=None)
    return replace(
        config,
        blocks=tuple(blocks),
        num_classes=0,
        final_norm=False,
        drop_path=0.0,
        head_dropout=0.0,
        head_activation="none",
    )


def token_stride(config: MViTConfig) -> tuple[int, ...]:
    """Pixels, and frames, from one token that leaves the encoder to the next, per axis."""
    stride = config.patch_stride
    for block in config.blocks:
        stride = tuple(a * b for a, b in zip(stride, block.q_stride, strict=True))
    return stride
