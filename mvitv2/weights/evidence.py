"""What the tensors of a file say about every block: widths, heads, kernels, tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mvitv2.core.grid import Grid


@dataclass
class BlockShapes:
    """What the tensors of one block tell."""

    dim_in: int
    dim_attn: int
    dim_out: int
    head_dim: int
    hidden: int
    q_kernel: Grid | None
    kv_kernel: Grid | None
    rows: dict[str, int]
    """Rows of the position tables, by axis."""


@dataclass
class Evidence:
    """A state dict under our names, looked at."""

    state: Mapping[str, Tensor]
    trunk: str
    rank: int
    blocks: list[BlockShapes]
    opens: list[bool]
    assumed: list[str] = field(default_factory=list)

    def has(self, name: str) -> bool:
        """Whether the file has a tensor of that name."""
        return name in self.state


def examine(state: Mapping[str, Tensor]) -> Evidence:
    """Look at every block, and find those that open a stage."""
    trunk = "rev_backbone.layers." if any(n.startswith("rev_backbone.") for n in state) else "blocks."
    numbers = sorted({int(n[len(trunk) :].split(".")[0]) for n in state if n.startswith(trunk)})
    if "patch_embed.proj.weight" not in state or not numbers or numbers != list(range(len(numbers))):
        raise ValueError(
            f"no whole MViT: patch_embed.proj.weight or some of blocks 0 to {max(numbers, default=0)} are missing"
        )
    rank = state["patch_embed.proj.weight"].ndim - 2
    blocks = [_block(state, f"{trunk}{i}.", rank) for i in numbers]
    return Evidence(state, trunk, rank, blocks, opening(blocks))


def opening(blocks: list[BlockShapes]) -> list[bool]:
    """Blocks that open a stage: the stream widens there, or widened in the MLP before; or only they pool queries."""
    selective = any(b.q_kernel is None for b in blocks) and any(b.q_kernel is not None for b in blocks)
    if selective:
        return [i > 0 and b.q_kernel is not None for i, b in enumerate(blocks)]
    widened = [False, *(b.dim_out != b.dim_attn for b in blocks[:-1])]
    return [
        i > 0 and (b.dim_attn != b.dim_in or before) for i, (b, before) in enumerate(zip(blocks, widened, strict=True))
    ]


def _block(state: Mapping[str, Tensor], prefix: str, rank: int) -> BlockShapes:
    attn, mlp = ("F.attn.", "G.mlp.") if prefix.startswith("rev_") else ("attn.", "mlp.")
    attn, mlp = prefix + attn, prefix + mlp
    first = state.get(f"{attn}qkv.weight", state.get(f"{attn}q.weight"))
    needed = (f"{attn}proj.weight", f"{mlp}fc1.weight", f"{mlp}fc2.weight")
    if first is None or any(name not in state for name in needed):
        raise ValueError(f"block {prefix!r} lacks its attention or its MLP; is the file whole?")
    rows = {axis: state[f"{attn}rel_pos_{axis}"] for axis in "thw" if f"{attn}rel_pos_{axis}" in state}
    dim_attn = state[needed[0]].shape[0]
    return BlockShapes(
        dim_in=first.shape[1],
        dim_attn=dim_attn,
        dim_out=state[needed[2]].shape[0],
        head_dim=_head_dim(state, attn, rows, dim_attn),
        hidden=state[needed[1]].shape[0],
        q_kernel=_kernel(state, f"{attn}pool_q.weight", rank),
        kv_kernel=_kernel(state, f"{attn}pool_k.weight", rank),
        rows={axis: table.shape[0] for axis, table in rows.items()},
    )


def _head_dim(state: Mapping[str, Tensor], attn: str, rows: Mapping[str, Tensor], dim_attn: int) -> int:
    if rows:
        return next(iter(rows.values())).shape[1]
    for name in ("pool_q.weight", "pool_k.weight"):
        if attn + name in state and dim_attn % state[attn + name].shape[0] == 0:
            return state[attn + name].shape[0]
    return dim_attn


def _kernel(state: Mapping[str, Tensor], name: str, rank: int) -> Grid | None:
    return tuple(state[name].shape[2:])[-rank:] if name in state else None
