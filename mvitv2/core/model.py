"""MViTv2 (Li et al., CVPR 2022, arXiv 2112.01526): pixels to tokens, stage by stage, to class scores.

Read it top-down: the backbone, then its block; the attention is in ``attention.py``. Names of parameters are those of
the released checkpoints, names of classes those of facebookresearch/mvit.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attend import Attend, reference
from .attention import attention
from .config import BlockSpec, MViTConfig, schedule
from .features import FeatureInfo, as_maps, chosen_stages
from .grid import Grid, Tokens, over_grid
from .habits import Habits
from .heads import READOUTS, TransformerBasicHead
from .init import init_weights
from .layers import CONV, MLP, DropPath, branch_scale, scaled, skip_pool, token_norm
from .positions import joint_positions, separable_positions


class MViT(Habits, nn.Module):
    """Multiscale Vision Transformer for images ``(B, C, H, W)`` and clips ``(B, C, T, H, W)`` of any size.

    Args:
        config: What the model is.
        attend: Attention backend; every one computes what :func:`mvitv2.core.attend.reference` does.
    """

    def __init__(self, config: MViTConfig, attend: Attend = reference):
        super().__init__()
        self.config = config
        self.card: dict[str, Any] = {}
        self.grad_checkpointing = False
        self.patch_embed = PatchEmbed(config)
        self.build_positions()
        self.build_trunk(attend)
        self.norm = token_norm(config, config.num_features) if config.final_norm else nn.Identity()
        self.build_head()
        init_weights(self, config)

    def build_positions(self) -> None:
        """Class token, absolute positions and what follows them."""
        config, dim = self.config, self.config.embed_dim
        size, prefix = config.abs_pos_grid, int(config.class_token)
        if config.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if config.abs_pos == "joint":
            tokens = prefix + torch.Size(size).numel()
            learned = config.abs_pos_init == "learned"
            self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim), requires_grad=learned)
        if config.abs_pos == "separable":
            self.pos_embed_spatial = nn.Parameter(torch.zeros(1, size[1] * size[2], dim))
            self.pos_embed_temporal = nn.Parameter(torch.zeros(1, size[0], dim))
            if config.class_token:
                self.pos_embed_class = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_drop = nn.Dropout(config.pos_dropout)
        self.norm_stem = token_norm(config, dim) if config.norm_stem else nn.Identity()

    def build_trunk(self, attend: Attend) -> None:
        """The blocks, and the norms of the pyramid's levels."""
        config, specs = self.config, schedule(self.config)
        self.blocks = nn.ModuleList(MultiScaleBlock(config, spec, attend) for spec in specs)
        widths = {spec.stage: spec.dim_out for spec in specs}
        self.output_norms = nn.ModuleDict({str(s): token_norm(config, widths[s]) for s in config.output_norms})

    def build_head(self) -> None:
        """The classifier; features pass through where there are no classes."""
        config = self.config
        self.head = nn.Identity()
        if config.num_classes:
            dropout, activation = config.head_dropout, config.head_activation
            self.head = TransformerBasicHead(config.num_features, config.num_classes, dropout, activation)

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, C, H, W)`` or ``(B, C, T, H, W)`` to logits ``(B, num_classes)``."""
        x, grid = self.trunk(pixels)[-1]
        return self.head(READOUTS[self.config.readout](x, grid, self.norm))

    def forward_features(self, pixels: Tensor) -> Tensor:
        """The tokens that leave the last block, ``(B, L, C)``, normed unless the readout norms their mean."""
        x, _ = self.trunk(pixels)[-1]
        return x if self.config.readout == "mean_norm" else self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """What :meth:`forward` does with the result of :meth:`forward_features`, ``(B, L, C)``."""
        norm = self.norm if self.config.readout == "mean_norm" else nn.Identity()
        grid = (x.shape[1] - int(self.config.class_token),)
        features = READOUTS[self.config.readout](x, grid, norm)
        return features if pre_logits else self.head(features)

    def trunk(self, pixels: Tensor) -> list[Tokens]:
        """Tokens ``(B, L, C')`` and grid as they leave each stage, finest first; normed where a level has a norm."""
        return self.through(*self.embed(pixels))

    def through(self, x: Tensor, grid: Grid) -> list[Tokens]:
        """Embedded tokens ``(B, L, C)`` through all blocks: what leaves each stage."""
        levels: list[Tokens] = []
        specs = self.config.blocks
        for block, spec, following in zip(self.blocks, specs, (*specs[1:], None), strict=True):
            x, grid = self.run(block, x, grid)
            if following is None or following.stage != spec.stage:
                level = self.output_norm(spec.stage, x)
                x = level if self.config.feed_output_norms else x
                levels.append((level, grid))
        return levels

    def embed(self, pixels: Tensor) -> Tokens:
        """Patches, class token, absolute positions: ``(B, L, C)`` and the grid."""
        return self.placed(*self.patch_embed(pixels))

    def placed(self, x: Tensor, grid: Grid) -> Tokens:
        """Patches ``(B, N, C)`` with class token and absolute positions, ``(B, L, C)``."""
        if self.config.class_token:
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        if self.config.abs_pos != "none":
            x = x + self.positions(grid)
        return self.norm_stem(self.pos_drop(x)), grid

    def positions(self, grid: Grid) -> Tensor:
        """Absolute positions for a grid of any size, ``(1, L, C)``."""
        made_for, prefix = self.config.abs_pos_grid, int(self.config.class_token)
        if self.config.abs_pos == "joint":
            table = self.pos_embed.float() if self.config.abs_pos_float32 else self.pos_embed
            return joint_positions(table, made_for, grid, prefix).to(self.pos_embed.dtype)
        table = separable_positions(self.pos_embed_spatial, self.pos_embed_temporal, made_for, grid)
        return torch.cat((self.pos_embed_class, table), dim=1) if prefix else table

    def run(self, block: nn.Module, x: Tensor | tuple[Tensor, Tensor], grid: Grid) -> Tokens:
        """One block; in training its activations may be computed again in the backward pass instead of kept."""
        if self.grad_checkpointing and self.training:
            return checkpoint(block, x, grid, use_reentrant=False)
        return block(x, grid)

    def output_norm(self, stage: int, x: Tensor) -> Tensor:
        """The norm of a pyramid level, where it has one."""
        return self.output_norms[str(stage)](x) if stage in self.config.output_norms else x

    def forward_intermediates(
        self,
        pixels: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Feature maps of stages, ``(B, C', *grid)`` each, after timm's method of that name.

        Args:
            pixels: Images or clips.
            indices: Stages, negative from the end, or how many from the end; all if not given.
            norm: Apply the final norm to the last stage.
            intermediates_only: Leave out the tokens of :meth:`forward_features`.

        Returns:
            ``(tokens, maps)``, or ``maps``.
        """
        wanted = chosen_stages(indices, self.config.num_stages)
        levels = self.trunk(pixels)
        last, grid = levels[-1]
        final = last if self.config.readout == "mean_norm" else self.norm(last)
        levels[-1] = (self.norm(last), grid) if norm else levels[-1]
        maps = [as_maps(*levels[stage]) for stage in wanted]
        return maps if intermediates_only else (final, maps)

    def maps(self, pixels: Tensor, stages: Sequence[int]) -> list[Tensor]:
        """Feature maps ``(B, C', *grid)`` of the named stages."""
        levels = self.trunk(pixels)
        return [as_maps(*levels[stage]) for stage in stages]

    @property
    def num_features(self) -> int:
        """Channels of the pooled features."""
        return self.config.num_features

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels, reduction and module of every stage, as data."""
        return FeatureInfo.of(self.config)

    def get_classifier(self) -> nn.Module:
        """The linear layer that gives logits, or the identity."""
        return self.head.projection if isinstance(self.head, TransformerBasicHead) else self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier, or none for ``num_classes=0``.

        Args:
            num_classes: Classes.
            global_pool: timm's names: ``"token"``, ``"avg"``, ``""`` for all tokens; unchanged if not given.
        """
        names = {"token": "class_token", "avg": "norm_mean", "": "tokens"}
        if global_pool is not None and global_pool not in names:
            raise ValueError(f"global_pool={global_pool!r} is none of {', '.join(map(repr, names))}")
        readout = self.config.readout if global_pool is None else names[global_pool]
        self.config = replace(self.config, num_classes=num_classes, readout=readout)
        like = next(self.patch_embed.parameters())
        self.build_head()
        init_weights(self.head, self.config)
        self.head.to(device=like.device, dtype=like.dtype).train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: keep no activations inside blocks."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay would only harm: class token and positions."""
        return {n for n, _ in self.named_parameters() if "pos_embed" in n or "rel_pos" in n or n == "cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """timm's description of depth groups: the stem, every block (or, if ``coarse``, every stage), the norm."""
        stem, norms = r"^(?:cls_token|pos_embed|patch_embed|norm_stem)", r"^(?:norm|output_norms)\."
        block = r"^(?:blocks|rev_backbone\.layers)"
        # to timm a captured group is a number that sorts the parameters; anything else is not captured
        numbered: list[tuple[str, tuple[int] | None]] = [(rf"{block}\.(\d+)\.", None)]
        if coarse:
            stages = [spec.stage for spec in self.config.blocks]
            members = {s: "|".join(str(i) for i, b in enumerate(stages) if b == s) for s in dict.fromkeys(stages)}
            numbered = [(rf"{block}\.(?:{numbers})\.", (stage,)) for stage, numbers in members.items()]
        return {"stem": stem, "blocks": [*numbered, (norms, (99999,))]}


class PatchEmbed(nn.Module):
    """Overlapping patches, one strided convolution (mvit ``mvit_model.py``, same name)."""

    def __init__(self, config: MViTConfig):
        super().__init__()
        self.in_channels, self.rank = config.in_channels, config.rank
        self.kernel, self.padding = config.patch_kernel, config.patch_padding
        conv = CONV[config.rank]
        self.proj = conv(config.in_channels, config.embed_dim, self.kernel, config.patch_stride, self.padding)

    def forward(self, pixels: Tensor) -> Tokens:
        """``(B, C, *size)`` to ``(B, N, C')`` and the grid."""
        self.check(pixels)
        x = self.proj(pixels)
        return x.flatten(2).transpose(1, 2), tuple(x.shape[2:])

    def check(self, pixels: Tensor) -> None:
        """Refuse what is no batch of images or clips this model can take, with both shapes in the message."""
        axes = "(B, C, H, W)" if self.rank == 2 else "(B, C, T, H, W)"
        if not isinstance(pixels, Tensor):
            raise TypeError(
                f"expected a tensor {axes}, got {type(pixels).__name__}; SlowFast's list of one clip is clip[0]"
            )
        if pixels.ndim != self.rank + 2 or pixels.shape[1] != self.in_channels:
            raise ValueError(f"expected {axes} with C = {self.in_channels}, got {tuple(pixels.shape)}")
        smallest = tuple(max(k - 2 * p, 1) for k, p in zip(self.kernel, self.padding, strict=True))
        if any(n < s for n, s in zip(pixels.shape[2:], smallest, strict=True)):
            raise ValueError(
                f"an input of {tuple(pixels.shape[2:])} is smaller than one patch; at least {smallest} is needed"
            )


class MultiScaleBlock(nn.Module):
    """Pooling attention, then an MLP; the shortcuts follow every change of grid and of channels."""

    gamma_1: nn.Parameter | None
    gamma_2: nn.Parameter | None

    def __init__(self, config: MViTConfig, spec: BlockSpec, attend: Attend):
        super().__init__()
        self.spec = spec
        self.norm1 = token_norm(config, spec.dim_in)
        self.attn = attention(config, spec, attend)
        self.norm2 = token_norm(config, spec.dim_attn)
        hidden = int(spec.dim_attn * config.mlp_ratio)
        self.mlp = MLP(spec.dim_attn, hidden, spec.dim_out, bias=config.linear_bias, dropout=config.dropout)
        self.drop_path = DropPath(spec.drop_path)
        widens = spec.dim_in != spec.dim_out
        self.proj = nn.Linear(spec.dim_in, spec.dim_out, config.linear_bias) if widens else nn.Identity()
        self.pool_skip = skip_pool(spec.q_stride)
        self.register_parameter("gamma_1", branch_scale(config.layer_scale, spec.dim_attn))
        self.register_parameter("gamma_2", branch_scale(config.layer_scale, spec.dim_out))

    def forward(self, x: Tensor, grid: Grid) -> Tokens:
        """``(B, L, dim_in)`` on ``grid`` to ``(B, L', dim_out)`` on the grid of the pooled queries."""
        y = self.norm1(x)
        skip = self.shortcut(x, y, widens=self.spec.dim_attn != self.spec.dim_in)
        if self.pool_skip is not None:
            skip, _ = over_grid(skip, grid, self.pool_skip)
        y, grid = self.attn(y, grid)
        x = skip + self.drop_path(scaled(y, self.gamma_1))

        y = self.norm2(x)
        skip = self.shortcut(x, y, widens=self.spec.dim_out != self.spec.dim_attn)
        return skip + self.drop_path(scaled(self.mlp(y), self.gamma_2)), grid

    def shortcut(self, x: Tensor, normed: Tensor, *, widens: bool) -> Tensor:
        """The stream itself; where channels double, a projection of the *normed* stream.

        The authors chose that and measured +0.5 points for it (facebookresearch/mvit#15, ``attention.py:384``).
        """
        return self.proj(normed) if widens else x
