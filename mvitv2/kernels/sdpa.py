"""Attention through PyTorch's fused kernels, with the position terms as a matrix or folded into queries and keys."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mvitv2.core.attend import dense_bias


def masked(q: Tensor, k: Tensor, v: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """Fused attention; the bias is still a full ``N' x N''`` matrix. Shapes as in :mod:`mvitv2.core.attend`."""
    bias = dense_bias(q, terms) if terms else None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def folded(q: Tensor, k: Tensor, v: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """Fused attention with no bias matrix: the terms ride as extra query channels against one-hot key channels.

    ``[q / sqrt(d), r_y, r_x] . [k, onehot(y), onehot(x)] = q.k / sqrt(d) + r_y[y] + r_x[x]``; zeros for the class
    token. Shapes as in :mod:`mvitv2.core.attend`.
    """
    if not terms:
        return F.scaled_dot_product_attention(q, k, v)
    p = q.shape[2] - terms[0].shape[2]
    onehot = F.pad(onehot_places(terms, dtype=k.dtype), (0, 0, p, 0)).expand(*k.shape[:2], -1, -1)
    extra = F.pad(torch.cat(list(terms), dim=-1), (0, 0, p, 0)).to(q.dtype)
    q = torch.cat((q * q.shape[-1] ** -0.5, extra), dim=-1)
    return F.scaled_dot_product_attention(q, torch.cat((k, onehot), dim=-1), v, scale=1.0)


def onehot_places(terms: Sequence[Tensor], *, dtype: torch.dtype) -> Tensor:
    """For every key of the grid and every axis, a 1 at its position: ``(N'', sum of the axes' sizes)``.

    Args:
        terms: ``(B, h, N', size)`` per axis, slowest axis first.
        dtype: Of the result.
    """
    steps = [torch.arange(term.shape[-1], device=term.device) for term in terms]
    places = torch.meshgrid(steps, indexing="ij")
    return torch.cat([(p.reshape(-1, 1) == s).to(dtype) for p, s in zip(places, steps, strict=True)], dim=-1)
