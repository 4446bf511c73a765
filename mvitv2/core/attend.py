"""Softmax attention with a position bias that is a sum over grid axes.

Every backend has the signature of :func:`reference`, which defines what they must all compute:

    q ``(B, h, P + N', d)``, k and v ``(B, h, P + N'', d)``, a term ``(B, h, N', size)`` per axis
    -> ``(B, h, P + N', d)``

Without position tables ``terms`` is empty. The class token neither gives nor gets a bias.
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor, Sequence[Tensor]], Tensor]


def reference(q: Tensor, k: Tensor, v: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """``softmax(q k^T / sqrt(d) + bias) v``, written the way it is on paper (eq. 3)."""
    # scaling q and not the product is how the released models were run: mvit attention.py:281
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if terms:
        logits = logits + dense_bias(q, terms)
    return logits.softmax(dim=-1) @ v


def dense_bias(q: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """The axis terms summed out to ``(B, h, P + N', P + N'')``: zeros in the row and the column of the class token.

    Args:
        q: ``(B, h, P + N', d)``; only its length is used, it tells ``P``.
        terms: One ``(B, h, N', size)`` per axis, slowest axis first.
    """
    total = terms[0].unflatten(-1, [-1] + [1] * (len(terms) - 1))
    for axis, term in enumerate(terms[1:], start=1):
        total = total + term.unflatten(-1, [-1 if a == axis else 1 for a in range(len(terms))])
    p = q.shape[2] - terms[0].shape[2]
    return F.pad(total.flatten(3), (p, 0, p, 0)) if p else total.flatten(3)
