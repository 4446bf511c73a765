"""Decomposed relative position (paper Sec. 4.1, eq. 3 and 4): a small table per axis, not one row per displacement.

``R_{p(i), p(j)} = R^t_{t(i), t(j)} + R^h_{h(i), h(j)} + R^w_{w(i), w(j)}`` and ``E_ij = Q_i . R_{p(i), p(j)}``, so the
logits of a query are a sum of one term per axis. Every formula here is written once, for an axis; the axes are its
arguments.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .grid import Grid


def table_rows(q_size: int, k_size: int) -> int:
    """Number of distinct displacements along an axis that queries and keys sample at different steps."""
    return 2 * torch.sym_max(q_size, k_size) - 1  # pyright: ignore[reportReturnType], symbolic sizes count as int


def steps(q_size: int, k_size: int) -> tuple[float, float]:
    """Distance of neighbouring queries and of neighbouring keys, in positions of the finer of the two."""
    q_step, k_step = torch.sym_max(k_size / q_size, 1.0), torch.sym_max(q_size / k_size, 1.0)
    return q_step, k_step  # pyright: ignore[reportReturnType], symbolic ratios count as float


def displacement(q_size: int, k_size: int, *, order: str = "authors", device: torch.device | None = None) -> Tensor:
    """Table row of every (query, key) pair along one axis: ``(q_size, k_size)``, int64.

    The coarser side is stretched onto the finer one; the smallest displacement gets row 0. A fraction is cut off, not
    rounded, and the arithmetic is float32, because the released weights were trained so (mvit ``attention.py:62-76``).
    For a few sizes (39 queries on 10 keys, say) the order of the sum decides which row a pair gets.

    Args:
        q_size: Queries along the axis.
        k_size: Keys along the axis.
        order: ``"authors"``, or ``"torchvision"`` which adds the offset to the keys first.
        device: Where the table is needed; it is computed there, never copied.
    """
    q_step, k_step = steps(q_size, k_size)
    q = torch.arange(q_size, device=device, dtype=torch.float32)[:, None] * q_step
    k = torch.arange(k_size, device=device, dtype=torch.float32)[None, :]
    if order == "torchvision":
        return (q - (k + (1.0 - k_size)) * k_step).long()
    return (q - k * k_step + (k_size - 1) * k_step).long()


@lru_cache(maxsize=1024)
def remembered_displacement(q_size: int, k_size: int, order: str, device: torch.device) -> Tensor:
    """:func:`displacement`, computed once per size and device; usable in training even if inference asked first."""
    with torch.inference_mode(False):
        return displacement(q_size, k_size, order=order, device=device)


def traced(x: Tensor) -> bool:
    """Whether a call is recorded into a graph, or runs on fake tensors: nothing of it may be remembered."""
    return torch.compiler.is_compiling() or type(x) not in (Tensor, nn.Parameter)


def linear(table: Tensor, q_size: int, k_size: int, stretch: float) -> Tensor:
    """The rows for another size by linear interpolation over the whole table, as every peer that resizes does.

    The row of displacement 0 is not the middle of the table where keys are coarser than queries, so it moves by up to
    two rows (SlowFast ``attention.py:48``, detectron2 ``backbone/utils.py:63``); :func:`anchored` keeps it in place.

    Args:
        table: ``(R, d)``.
        q_size: Queries along the axis.
        k_size: Keys along the axis.
        stretch: Unused here; see :func:`anchored`.

    Returns:
        ``(table_rows(q_size, k_size), d)``.
    """
    rows = table_rows(q_size, k_size)
    if isinstance(rows, int) and rows == table.shape[0]:
        return table
    return F.interpolate(table.T[None], size=rows, mode="linear")[0].T


def anchored(table: Tensor, q_size: int, k_size: int, stretch: float, *, rows: int | None = None) -> Tensor:
    """The rows for another size by linear interpolation that maps displacement 0 onto displacement 0.

    Displacements are scaled by the ratio of the finer sizes; those beyond the trained range take its last row.

    Args:
        table: ``(R, d)``, made for a finer side of ``(R + 1) / 2`` positions.
        q_size: Queries along the axis.
        k_size: Keys along the axis.
        stretch: Distance of neighbouring keys the table was made for, in positions of its finer side.
        rows: How many are wanted, where a file has other than ``table_rows(q_size, k_size)``.

    Returns:
        ``(rows, d)``.
    """
    rows, trained = table_rows(q_size, k_size) if rows is None else rows, table.shape[0]
    if isinstance(rows, int) and rows == trained:
        return table
    zero = (rows + 1) / 2 - steps(q_size, k_size)[1]
    trained_zero = (trained + 1) / 2 - stretch
    row = torch.arange(rows, device=table.device, dtype=torch.float32) - zero
    source = (row * ((trained + 1) / (rows + 1)) + trained_zero).clamp(0, trained - 1)
    low = source.floor()
    high = (low + 1).clamp(max=trained - 1)
    weight = (source - low).to(table.dtype)[:, None]
    return table[low.long()] * (1 - weight) + table[high.long()] * weight


def first_rows(table: Tensor, q_size: int, k_size: int, stretch: float) -> Tensor:
    """The first rows of the table, whatever they meant: what facebookresearch/mvit and timm do at a smaller input.

    Raises:
        ValueError: The table is too short; the peers' error here is an ``IndexError`` inside the attention.
    """
    rows = table_rows(q_size, k_size)
    if rows > table.shape[0]:
        raise ValueError(
            f"{q_size} queries on {k_size} keys need {rows} position rows, the table has {table.shape[0]}; "
            'table_resampling="first_rows" cannot grow: use "linear" or "anchored"'
        )
    return table[:rows]


Resampling = Callable[[Tensor, int, int, float], Tensor]
RESAMPLING: dict[str, Resampling] = {"linear": linear, "anchored": anchored, "first_rows": first_rows}


def position_rows(
    table: Tensor, q_size: int, k_size: int, *, resampling: Resampling, stretch: float, order: str
) -> Tensor:
    """``R`` of eq. 4 for one axis, ``(q_size, k_size, d)``: the table row of every pair of a query and a key."""
    rows = resampling(table, q_size, k_size, stretch)
    if traced(table):
        return rows[displacement(q_size, k_size, order=order, device=table.device)]
    return rows[remembered_displacement(q_size, k_size, order, table.device)]


def axis_term(q: Tensor, rows: Tensor, axis: int, q_grid: Grid) -> Tensor:
    """The logits that queries give to every position along one axis (eq. 4), ``(B, h, N, k_size)``.

    Args:
        q: Grid queries ``(B, h, N, d)``, not scaled: eq. 3 divides by ``sqrt(d)``, the released weights were trained
            without (mvit ``attention.py:281-291``).
        rows: ``(q_size, k_size, d)`` of that axis.
        axis: Which axis of the grid.
        q_grid: How the queries lie.
    """
    lines = q.unflatten(2, q_grid).movedim(2 + axis, 0)
    # einsum "...d,kd->...k" per line, spelled out: its own reshapes keep torch.export from symbolic heights and widths
    logits = lines.flatten(1, -2) @ rows.transpose(1, 2)
    return logits.unflatten(1, lines.shape[1:-1]).movedim(0, 2 + axis).flatten(2, -2)


def cal_rel_pos_spatial(q: Tensor, rows: Sequence[Tensor], q_grid: Grid) -> list[Tensor]:
    """Height and width terms of the attention logits (mvit ``attention.py``, same name; returned, not yet added).

    Args:
        q: Grid queries ``(B, h, N, d)``.
        rows: ``(q_size, k_size, d)`` for height and for width.
        q_grid: ``(H, W)`` or ``(T, H, W)``.
    """
    first = len(q_grid) - 2
    return [axis_term(q, r, first + a, q_grid) for a, r in enumerate(rows)]


def cal_rel_pos_temporal(q: Tensor, rows: Tensor, q_grid: Grid) -> Tensor:
    """Time term of the attention logits of a clip (SlowFast ``attention.py``, same name).

    Args:
        q: Grid queries ``(B, h, N, d)``.
        rows: ``(q_size, k_size, d)`` for time.
        q_grid: ``(T, H, W)``.
    """
    return axis_term(q, rows, 0, q_grid)
