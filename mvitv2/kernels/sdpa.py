"""Attention through PyTorch's fused kernels, with the position terms as a matrix or folded into queries and keys."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from mvitv2.core.attend import dense_bias
from mvitv2.core.grid import Grid
from mvitv2.core.relpos import traced


def masked(q: Tensor, k: Tensor, v: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """Fused attention; the bias is still a full ``N' x N''`` matrix. Shapes as in :mod:`mvitv2.core.attend`."""
    bias = dense_bias(q, terms).to(q.dtype) if terms else None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def folded(q: Tensor, k: Tensor, v: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """Fused attention with no bias matrix: the terms ride as extra query channels against one-hot key channels.

    ``[q / sqrt(d), r_y, r_x] . [k, onehot(y), onehot(x)] = q.k / sqrt(d) + r_y[y] + r_x[x]``; zeros for the class
    token. Shapes as in :mod:`mvitv2.core.attend`.
    """
    if not terms:
        return F.scaled_dot_product_attention(q, k, v)
    p, sizes = q.shape[2] - terms[0].shape[2], tuple(term.shape[-1] for term in terms)
    places = onehot_places if traced(k) else remembered_places
    onehot = F.pad(places(sizes, k.dtype, k.device), (0, 0, p, 0)).expand(*k.shape[:2], -1, -1)
    extra = F.pad(torch.cat(list(terms), dim=-1), (0, 0, p, 0)).to(q.dtype)
    q = torch.cat((q * q.shape[-1] ** -0.5, extra), dim=-1)
    return F.scaled_dot_product_attention(q, torch.cat((k, onehot), dim=-1), v, scale=1.0)


def onehot_places(sizes: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    """For every key of the grid and every axis, a 1 at its position: ``(N'', sum of the axes' sizes)``."""
    steps = [torch.arange(size, device=device) for size in sizes]
    places = torch.meshgrid(steps, indexing="ij")
    return torch.cat([(p.reshape(-1, 1) == s).to(dtype) for p, s in zip(places, steps, strict=True)], dim=-1)


@lru_cache(maxsize=256)
def remembered_places(sizes: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    """:func:`onehot_places`, computed once per grid and device; usable in training even if inference asked first."""
    with torch.inference_mode(False):
        return onehot_places(sizes, dtype, device)
