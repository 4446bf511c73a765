"""The reversible form: inputs of a block follow from its outputs, so training keeps no activations inside a stage.

Mangalam et al., "Reversible Vision Transformers", CVPR 2022 (arXiv 2302.04869); SlowFast ``reversible_mvit.py``. Two
streams ``x1, x2`` run side by side: ``y1 = x1 + F(x2)``, ``y2 = x2 + G(y1)``. Transitions change grid and width; they
are not reversible.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from typing import cast

import torch
from torch import Tensor, nn

from .attend import Attend
from .attention import attention, split_heads
from .config import BlockSpec, MViTConfig, Reversible, schedule
from .grid import Grid
from .layers import MLP, DropPath, token_norm
from .model import MViT, Tokens
from .reverse import reversible_segment

FUSIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "avg": lambda a, b: (a + b) / 2,
    "max": torch.maximum,
    "min": torch.minimum,
    "concat": lambda a, b: torch.cat((a, b), dim=-1),
}


class ReversibleMViT(MViT):
    """An MViT whose blocks are reversible inside a stage; inputs and outputs are those of any other."""

    def build_trunk(self, attend: Attend) -> None:
        """Reversible blocks and transitions, under SlowFast's names."""
        config = self.config
        layers = [block(config, spec, attend, index) for index, spec in enumerate(schedule(config))]
        self.rev_backbone = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.drop = nn.Dropout(config.dropout)

    def trunk(self, pixels: Tensor) -> list[Tokens]:
        """The level of a stage is both streams fused, ``(B, N, C)``, or ``(B, N, 2C)`` where they are kept."""
        fuse = FUSIONS[reversible_form(self.config).path_fusion]
        return [(fuse(*streams), grid) for streams, grid in self.streams(pixels)]

    def streams(self, pixels: Tensor) -> list[tuple[tuple[Tensor, Tensor], Grid]]:
        """The two streams ``(B, N, C)`` that leave each stage, and the grid; they start as one."""
        x, grid = self.embed(pixels)
        streams, levels = (x, x), {}
        layers = self.rev_backbone["layers"].children()
        for reversible, group in groupby(layers, key=lambda layer: isinstance(layer, ReversibleBlock)):
            if reversible:
                blocks = cast("list[ReversibleBlock]", list(group))
                streams = reversible_segment(blocks, streams, grid, keep=not self.training)
                levels[blocks[-1].stage] = (streams, grid)
                continue
            for transition in group:
                x, grid = self.run(transition, streams, grid)
                streams = (x, x)
                levels[transition.stage] = (streams, grid)
        return [((self.drop(a), self.drop(b)), grid) for (a, b), grid in levels.values()]


class ReversibleBlock(nn.Module):
    """``y1 = x1 + F(x2)``, ``y2 = x2 + G(y1)`` with ``F`` attention and ``G`` an MLP."""

    def __init__(self, config: MViTConfig, spec: BlockSpec, attend: Attend):
        super().__init__()
        self.stage = spec.stage
        self.F = AttentionBranch(config, spec, attend)
        self.G = MLPBranch(config, spec.dim_out)
        self.drop_path = DropPath(spec.drop_path)

    def forward(self, x1: Tensor, x2: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Two streams ``(B, N, C)`` to two of the same shape."""
        y1 = x1 + self.attend(x2, grid)
        return y1, x2 + self.transform(y1)

    def attend(self, x: Tensor, grid: Grid) -> Tensor:
        """``F`` with stochastic depth."""
        return self.drop_path(self.F(x, grid)[0])

    def transform(self, x: Tensor) -> Tensor:
        """``G`` with stochastic depth."""
        return self.drop_path(self.G(x))


class TransitionBlock(nn.Module):
    """Fuses the streams, then changes grid and width; the shortcut is pooled by the convolution of the queries.

    Stochastic depth drops the whole stream here, not a branch (SlowFast ``reversible_mvit.py:403-407``).
    """

    def __init__(self, config: MViTConfig, spec: BlockSpec, attend: Attend):
        super().__init__()
        self.stage, self.pool_first = spec.stage, config.pool_first
        fusion = reversible_form(config).pre_q_fusion
        concatenated = "concat" in fusion
        dim_in = spec.dim_in * (2 if concatenated else 1)
        self.pre_q_fuse = TwoStreamFusion(fusion, dim_in)
        widened = replace(spec, dim_in=dim_in)
        self.F = AttentionBranch(config, widened, attend)
        self.G = MLPBranch(config, spec.dim_out)
        self.res_proj = nn.Linear(dim_in, spec.dim_out) if dim_in != spec.dim_out else None
        self.drop_path = DropPath(spec.drop_path)

    def forward(self, streams: tuple[Tensor, Tensor], grid: Grid) -> Tokens:
        """Two streams ``(B, N, C)`` to one ``(B, N', C')`` on the grid of the pooled queries."""
        x = self.pre_q_fuse(*streams)
        skip = self.shortcut(x, grid)
        y, grid = self.F(x, grid)
        x = skip + y
        return self.drop_path(x + self.G(x)), grid

    def shortcut(self, x: Tensor, grid: Grid) -> Tensor:
        """The stream at the new width and grid; projected before pooling, or after it with ``pool_first``."""
        if self.res_proj is None:
            return self.pooled(x, grid)
        if self.pool_first:
            return self.res_proj(self.pooled(x, grid))
        return self.pooled(self.res_proj(x), grid)

    def pooled(self, x: Tensor, grid: Grid) -> Tensor:
        """``(B, N, C) -> (B, N', C)`` through the queries' pooling, head by head."""
        attn = self.F.attn
        return (
            attn.pool_tokens(split_heads(x, attn.folds), grid, attn.pool_q, attn.norm_q)[0].transpose(1, 2).flatten(2)
        )


class AttentionBranch(nn.Module):
    """Norm, then pooling attention."""

    def __init__(self, config: MViTConfig, spec: BlockSpec, attend: Attend):
        super().__init__()
        self.norm = token_norm(config, spec.dim_in)
        self.attn = attention(config, spec, attend)

    def forward(self, x: Tensor, grid: Grid) -> Tokens:
        """``(B, N, C)`` to ``(B, N', C')`` and its grid."""
        return self.attn(self.norm(x), grid)


class MLPBranch(nn.Module):
    """Norm, then MLP."""

    def __init__(self, config: MViTConfig, dim: int):
        super().__init__()
        self.norm = token_norm(config, dim)
        self.mlp = MLP(dim, int(dim * config.mlp_ratio), dim, bias=config.linear_bias, dropout=config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, C) -> (B, N, C)``."""
        return self.mlp(self.norm(x))


class TwoStreamFusion(nn.Module):
    """One stream from two: an element-wise rule, or an MLP over both with a shortcut (SlowFast ``common.py``).

    Args:
        mode: A name of ``FUSIONS``, ``concat_linear_R`` (MLP of ratio ``R``) or ``ln+concat_linear_R`` (normed first).
        dim: Channels that leave.
    """

    def __init__(self, mode: str, dim: int):
        super().__init__()
        self.mode = mode
        if "concat_linear" not in mode:
            if mode not in FUSIONS:
                raise ValueError(
                    f"fusion {mode!r} is none of {', '.join(FUSIONS)}, concat_linear_R, ln+concat_linear_R"
                )
            return
        ratio = float(mode.split("_")[2]) if mode.count("_") > 1 else 1.0
        mlp = MLP(dim, int(dim * ratio), dim)
        self.fuse_fn = nn.Sequential(nn.LayerNorm(dim), mlp) if mode.startswith("ln+") else mlp

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two ``(B, N, C)`` to one ``(B, N, C)``, or ``(B, N, 2C)`` where both are kept."""
        if "concat_linear" not in self.mode:
            return FUSIONS[self.mode](a, b)
        both = torch.cat((a, b), dim=-1)
        return self.fuse_fn(both) + both


def block(config: MViTConfig, spec: BlockSpec, attend: Attend, index: int) -> nn.Module:
    """The block at ``index``: a transition where the form says so, else reversible."""
    if index in reversible_form(config).transitions:
        return TransitionBlock(config, spec, attend)
    if spec.dim_in != spec.dim_out or max(spec.q_stride) > 1:
        raise ValueError(f"block {index} changes width or grid; it must be one of the reversible form's transitions")
    return ReversibleBlock(config, spec, attend)


def reversible_form(config: MViTConfig) -> Reversible:
    """The config's reversible part.

    Raises:
        ValueError: It has none.
    """
    if config.reversible is None:
        raise ValueError("config.reversible is None: this is a config of MViT, not of ReversibleMViT")
    return config.reversible


def build(config: MViTConfig, attend: Attend) -> MViT:
    """The model of a config, reversible or not."""
    return (MViT if config.reversible is None else ReversibleMViT)(config, attend)
