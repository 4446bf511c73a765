"""Pooling attention: the heart of MViT (paper Sec. 3 and 4.1, eq. 1 to 5)."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from .attend import Attend
from .config import AXES, BlockSpec, MViTConfig
from .grid import Grid, num_prefix
from .layers import POOL_TOKENS, token_pool
from .relpos import RESAMPLING, cal_rel_pos_spatial, cal_rel_pos_temporal, position_rows, table_rows
from .windows import padding_terms, windowed


class MultiScaleAttention(nn.Module):
    """Attention over queries, keys and values that were projected, and then each pooled on the grid.

    Args:
        config: Conventions.
        spec: Sizes of this block.
        attend: Backend; all compute what :func:`mvitv2.core.attend.reference` does.

    Attributes:
        run: What computes all but the output projection; replaced as a whole by what is faster (``mvitv2.kernels``).
    """

    def __init__(self, config: MViTConfig, spec: BlockSpec, attend: Attend):
        super().__init__()
        self.spec, self.attend = spec, attend
        self.run: Run = pooling_attention
        self.residual, self.masked = config.residual_pooling, config.window_padding == "masked"
        self.position_scale = 1.0 if config.position_scale == "code" else spec.head_dim**-0.5
        self.resampling, self.order = RESAMPLING[config.table_resampling], config.displacement_order
        self.pool_tokens = POOL_TOKENS[config.norm]
        self.build_projections(config)
        self.proj = nn.Linear(spec.dim_attn, spec.dim_attn, config.linear_bias)
        self.drop = nn.Dropout(config.dropout)
        pooled_dim = self.pooled_dim(config)
        self.pool_q, self.norm_q = token_pool(config, pooled_dim, spec.q_kernel, spec.q_stride)
        self.pool_k, self.norm_k = token_pool(config, pooled_dim, spec.kv_kernel, spec.kv_stride)
        self.pool_v, self.norm_v = token_pool(config, pooled_dim, spec.kv_kernel, spec.kv_stride)
        self.build_tables(config)

    def build_projections(self, config: MViTConfig) -> None:
        """One linear layer for queries, keys and values."""
        self.qkv = nn.Linear(self.spec.dim_in, 3 * self.spec.dim_attn, config.qkv_bias)

    def pooled_dim(self, config: MViTConfig) -> int:
        """Channels the poolings see: those of a head, which all heads share."""
        self.folds = self.spec.num_heads
        return self.spec.head_dim

    def build_tables(self, config: MViTConfig) -> None:
        """A table of rows per axis, ``rel_pos_t``, ``rel_pos_h``, ``rel_pos_w`` (eq. 4)."""
        spec = self.spec
        self.axes, self.tabled = AXES[config.rank], config.position_axes
        needed = tuple(table_rows(q, k) for q, k in zip(spec.q_grid, spec.kv_grid, strict=True))
        for axis, rows in zip(self.axes, spec.table_rows or needed, strict=True):
            if axis in self.tabled:
                self.register_parameter(f"rel_pos_{axis}", nn.Parameter(torch.zeros(rows, spec.head_dim)))
        # distance of neighbouring keys in positions of the finer side, for the anchored rule
        self.stretch = tuple(max(q / k, 1.0) for q, k in zip(spec.q_grid, spec.kv_grid, strict=True))

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """``(B, L, dim_in)`` on ``grid`` to ``(B, L', dim_attn)`` on the grid of the pooled queries."""
        y, q_grid = self.run(self, x, grid)
        return self.drop(self.proj(y)), q_grid

    def queries_keys_values(self, x: Tensor, grid: Grid) -> tuple[tuple[Tensor, Grid], ...]:
        """Project, then pool: three times ``(B, h, L', d)`` and its grid."""
        q, k, v = self.project(x)
        return (
            self.pool_tokens(q, grid, self.pool_q, self.norm_q),
            self.pool_tokens(k, grid, self.pool_k, self.norm_k),
            self.pool_tokens(v, grid, self.pool_v, self.norm_v),
        )

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(B, L, dim_in)`` to queries, keys and values, ``(B, h, L, d)`` each."""
        # taken apart before heads move, so that their gradients are put together as the linear layer reads them
        parts = self.qkv(x).unflatten(2, (3, self.spec.num_heads, -1)).unbind(2)
        return tuple(part.transpose(1, 2) for part in parts)

    def mix_grids(self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, k_grid: Grid) -> Tensor:
        """Attention over the whole grid, or window by window (paper Sec. 4.3)."""
        if self.spec.windows is None:
            return self.mix(q, k, v, q_grid, k_grid)
        q_window, k_window = self.spec.windows
        padding = padding_terms(k_grid, k_window, like=k) if self.masked else []
        mix = partial(self.mix, padding=padding)
        return windowed(mix, q_window, k_window)(q, k, v, q_grid, k_grid)

    def mix(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, k_grid: Grid, padding: Sequence[Tensor] = ()
    ) -> Tensor:
        """``(B, h, L', d)``: values weighted by content and relative position (eq. 3).

        Args:
            q: ``(B, h, L', d)``.
            k: ``(B, h, L'', d)``.
            v: As ``k``.
            q_grid: How queries lie.
            k_grid: How keys lie.
            padding: Terms that hide the padding of windows, per axis ``(windows, 1, 1, size)``; windows ride in the
                batch.
        """
        terms = self.position_terms(q, q_grid, k_grid)
        if padding:
            samples = q.shape[0] // padding[0].shape[0]
            hidden = [p.expand(samples, *p.shape).flatten(0, 1).expand(*q.shape[:3], -1) for p in padding]
            terms = [t + p for t, p in zip(terms, hidden, strict=True)] if terms else hidden
        return self.attend(q, k, v, terms)

    def position_terms(self, q: Tensor, q_grid: Grid, k_grid: Grid) -> list[Tensor]:
        """Per axis a term ``(B, h, N', k_grid[axis])`` of the logits, zeros without a table; none without tables."""
        if not self.tabled:
            return []
        q = q[:, :, num_prefix(q, q_grid) :] * self.position_scale
        spatial = [self.rows(a, q_grid, k_grid) for a in self.axes if a != "t" and a in self.tabled]
        terms = cal_rel_pos_spatial(q, spatial, q_grid) or [q.new_zeros(*q.shape[:3], n) for n in k_grid[-2:]]
        if "t" in self.tabled:
            return [cal_rel_pos_temporal(q, self.rows("t", q_grid, k_grid), q_grid), *terms]
        return [*(q.new_zeros(*q.shape[:3], n) for n in k_grid[:-2]), *terms]

    def rows(self, axis: str, q_grid: Grid, k_grid: Grid) -> Tensor:
        """Table rows of every (query, key) pair along an axis, ``(q_size, k_size, d)``."""
        a = self.axes.index(axis)
        return position_rows(
            getattr(self, f"rel_pos_{axis}"),
            q_grid[a],
            k_grid[a],
            resampling=self.resampling,
            stretch=self.stretch[a],
            order=self.order,
        )


Run = Callable[[MultiScaleAttention, Tensor, Grid], tuple[Tensor, Grid]]


def pooling_attention(attn: MultiScaleAttention, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """All that lies before the output projection: project, pool, attend, add the pooled queries, join the heads.

    It defines what a faster whole must compute that takes its place as ``attn.run``.

    Args:
        attn: The parameters and conventions of a block.
        x: ``(B, L, dim_in)``.
        grid: How the ``N`` grid tokens are laid out.

    Returns:
        ``(B, L', dim_attn)`` and the grid of the pooled queries.
    """
    (q, q_grid), (k, k_grid), (v, _) = attn.queries_keys_values(x, grid)
    y = attn.mix_grids(q, k, v, q_grid, k_grid)
    y = add_pooled_queries(y, q, q_grid, attn.residual)
    return y.transpose(1, 2).flatten(2), q_grid


class SeparateAttention(MultiScaleAttention):
    """Queries, keys and values from three linear layers (SlowFast ``SEPARATE_QKV``)."""

    def build_projections(self, config: MViTConfig) -> None:
        """``q``, ``k`` and ``v``."""
        for name in "qkv":
            self.add_module(name, nn.Linear(self.spec.dim_in, self.spec.dim_attn, config.qkv_bias))

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(B, L, dim_in)`` to queries, keys and values, ``(B, h, L, d)`` each."""
        return tuple(split_heads(self.get_submodule(name)(x), self.spec.num_heads) for name in "qkv")


class PoolFirstAttention(SeparateAttention):
    """The stream is pooled, and then projected to queries, keys and values (``POOL_FIRST``).

    Kernels are shared by slices of the stream, one per head; ``conv_unshared`` has a kernel for every channel of it.
    """

    def pooled_dim(self, config: MViTConfig) -> int:
        """Channels the poolings see."""
        self.folds = 1 if config.pool_mode == "conv_unshared" else self.spec.num_heads
        return self.spec.dim_in // self.folds

    def queries_keys_values(self, x: Tensor, grid: Grid) -> tuple[tuple[Tensor, Grid], ...]:
        """Pool, then project: three times ``(B, h, L', d)`` and its grid."""
        x = split_heads(x, self.folds)
        pools = ((self.pool_q, self.norm_q), (self.pool_k, self.norm_k), (self.pool_v, self.norm_v))
        results: list[tuple[Tensor, Grid]] = []
        for name, (pool, norm) in zip("qkv", pools, strict=True):
            tokens, new_grid = self.pool_tokens(x, grid, pool, norm)
            projected = self.get_submodule(name)(tokens.transpose(1, 2).flatten(2))
            results.append((split_heads(projected, self.spec.num_heads), new_grid))
        return tuple(results)


def attention(config: MViTConfig, spec: BlockSpec, attend: Attend) -> MultiScaleAttention:
    """The attention a config asks for."""
    if config.pool_first:
        return PoolFirstAttention(config, spec, attend)
    return (SeparateAttention if config.separate_qkv else MultiScaleAttention)(config, spec, attend)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """``(B, L, C) -> (B, h, L, C / h)``."""
    return x.unflatten(2, (num_heads, -1)).transpose(1, 2)


def add_pooled_queries(y: Tensor, q: Tensor, q_grid: Grid, where: str) -> Tensor:
    """Residual pooling, ``Z = Attn(Q, K, V) + Q`` (eq. 5).

    Args:
        y: ``(B, h, L', d)``, what attention gave.
        q: Pooled queries, same shape.
        q_grid: Their grid.
        where: ``"grid"`` leaves the class token out (mvit ``attention.py:297``), ``"all"`` does not (timm), ``"none"``.
    """
    if where == "none":
        return y
    p = num_prefix(y, q_grid) if where == "grid" else 0
    return torch.cat((y[:, :, :p], y[:, :, p:] + q[:, :, p:]), dim=2) if p else y + q
