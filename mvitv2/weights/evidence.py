"""What the tensors of a file say about every block: widths, heads, kernels, tables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from mvitv2.core.grid import Grid

MOST_BLOCKS = 512
"""The deepest published model, MViTv2-H, has 80."""


@dataclass(frozen=True)
class BlockShapes:
    """What the tensors of one block tell."""

    dim_in: int
    dim_attn: int
    dim_out: int
    head_dim: int | None
    """Channels of a head, where a position table shows them."""
    pool_dim: int | None
    """Channels a pooling convolution sees."""
    hidden: int
    q_kernel: Grid | None
    kv_kernel: Grid | None
    rows: Mapping[str, int]
    """Rows of the position tables, by axis."""


@dataclass
class Evidence:
    """A state dict under our names, looked at."""

    state: Mapping[str, Tensor]
    trunk: str
    rank: int
    separate: bool
    """Whether queries, keys and values have a linear layer each."""
    pool_first: bool
    """Whether the stream is pooled before it is projected."""
    blocks: list[BlockShapes]
    head_dims: list[int]
    assumed: list[str] = field(default_factory=list)

    def has(self, name: str) -> bool:
        """Whether the file has a tensor of that name."""
        return name in self.state

    @property
    def opens(self) -> list[bool]:
        """Blocks that open a stage as far as names and widths tell: see :func:`opening`."""
        if not self.trunk.startswith("rev_"):
            return opening(self.blocks)
        transition = re.compile(re.escape(self.trunk) + r"(\d+)\.(res_proj|pre_q_fuse)\.")
        fusing = {int(match[1]) for match in map(transition.match, self.state) if match}
        return [i in fusing or opens for i, opens in enumerate(opening(self.blocks))]


def examine(state: Mapping[str, Tensor]) -> Evidence:
    """Look at every block.

    Raises:
        ValueError: Tensors that every MViT has are missing.
    """
    trunk = "rev_backbone.layers." if any(n.startswith("rev_backbone.") for n in state) else "blocks."
    found = (re.match(re.escape(trunk) + r"(\d+)\.", name) for name in state)
    numbers = sorted({int(match[1]) for match in found if match})
    if "patch_embed.proj.weight" not in state or not numbers or numbers != list(range(len(numbers))):
        raise ValueError(
            f"no whole MViT: patch_embed.proj.weight or some of blocks 0 to {max(numbers, default=0)} are missing"
        )
    if len(numbers) > MOST_BLOCKS:
        raise ValueError(f"{len(numbers)} blocks are more than the {MOST_BLOCKS} that any MViT is taken to have")
    rank = state["patch_embed.proj.weight"].ndim - 2
    if rank not in (2, 3):
        raise ValueError(f"patch_embed.proj.weight has {rank + 2} axes; 4 are an image model's, 5 a clip model's")
    blocks = [_block(state, f"{trunk}{i}.", rank) for i in numbers]
    attn = f"{trunk}0.F.attn." if trunk.startswith("rev_") else f"{trunk}0.attn."
    separate = f"{attn}q.weight" in state
    pool_first = separate and _pools_stream(blocks)
    head_dims, assumed = _head_dims(blocks, pool_first)
    return Evidence(state, trunk, rank, separate, pool_first, blocks, head_dims, assumed)


def opening(blocks: list[BlockShapes]) -> list[bool]:
    """Blocks that open a stage: the stream widens there, or widened in the MLP before; or only they pool queries."""
    selective = any(b.q_kernel is None for b in blocks) and any(b.q_kernel is not None for b in blocks)
    if selective:
        return [i > 0 and b.q_kernel is not None for i, b in enumerate(blocks)]
    widened = [False, *(b.dim_out != b.dim_attn for b in blocks[:-1])]
    return [
        i > 0 and (b.dim_attn != b.dim_in or before) for i, (b, before) in enumerate(zip(blocks, widened, strict=True))
    ]


def _pools_stream(blocks: list[BlockShapes]) -> bool:
    """Whether poolings have the width of a slice of the stream that enters, not of a head of the queries.

    Without position tables that shows only where the stream widens inside the attention: heads are then taken to be of
    one width throughout.
    """
    if any(b.head_dim is not None for b in blocks):
        return any(b.pool_dim is not None and b.head_dim not in (None, b.pool_dim) for b in blocks)
    usual = next((b.pool_dim for b in blocks if b.pool_dim is not None), None)
    widening = [b for b in blocks if b.dim_attn != b.dim_in and b.pool_dim not in (None, usual)]
    return any(usual is not None and b.pool_dim * b.dim_attn == usual * b.dim_in for b in widening if b.pool_dim)


def _head_dims(blocks: list[BlockShapes], pool_first: bool) -> tuple[list[int], list[str]]:
    """Channels of a head in every block: what its tables or poolings show, else what the block before has."""
    shown = [b.head_dim if pool_first or b.head_dim is not None else b.pool_dim for b in blocks]
    first = next((d for d in shown if d is not None), None)
    if first is None:
        first = next((b.pool_dim for b in blocks if b.pool_dim is not None), None)
    assumed = [] if first is not None else ["one head in every block"]
    dims: list[int] = []
    for i, (block, dim) in enumerate(zip(blocks, shown, strict=True)):
        guess = block.dim_attn if first is None else (dims[-1] if dims else first)
        dims.append(guess if dim is None else dim)
        if block.dim_attn % dims[-1]:
            raise ValueError(f"the {block.dim_attn} channels of block {i} do not divide into heads of {dims[-1]}")
    return dims, assumed


def _block(state: Mapping[str, Tensor], prefix: str, rank: int) -> BlockShapes:
    attn, mlp = ("F.attn.", "G.mlp.") if prefix.startswith("rev_") else ("attn.", "mlp.")
    attn, mlp = prefix + attn, prefix + mlp
    first = state.get(f"{attn}qkv.weight", state.get(f"{attn}q.weight"))
    needed = (f"{attn}proj.weight", f"{mlp}fc1.weight", f"{mlp}fc2.weight")
    if first is None or any(name not in state for name in needed):
        raise ValueError(f"block {prefix!r} lacks its attention or its MLP; is the file whole?")
    tables = {axis: state[f"{attn}rel_pos_{axis}"] for axis in "thw" if f"{attn}rel_pos_{axis}" in state}
    matrices = (first, *(state[name] for name in needed), *tables.values())
    if any(matrix.ndim != 2 or 0 in matrix.shape for matrix in matrices):
        raise ValueError(f"linear layers or position tables of block {prefix!r} are empty or no matrices")
    pool = state.get(f"{attn}pool_k.weight", state.get(f"{attn}pool_q.weight"))
    return BlockShapes(
        dim_in=first.shape[1],
        dim_attn=state[needed[0]].shape[0],
        dim_out=state[needed[2]].shape[0],
        head_dim=next((table.shape[1] for table in tables.values()), None),
        pool_dim=None if pool is None else pool.shape[0],
        hidden=state[needed[1]].shape[0],
        q_kernel=_kernel(state, f"{attn}pool_q.weight", rank),
        kv_kernel=_kernel(state, f"{attn}pool_k.weight", rank),
        rows={axis: table.shape[0] for axis, table in tables.items()},
    )


def without_tables(blocks: list[BlockShapes]) -> list[BlockShapes]:
    """The blocks without what their position tables say."""
    return [replace(block, rows={}) for block in blocks]


def _kernel(state: Mapping[str, Tensor], name: str, rank: int) -> Grid | None:
    if name not in state:
        return None
    kernel = tuple(state[name].shape[2:])[-rank:]
    if len(kernel) != rank:
        raise ValueError(f"{name} is {tuple(state[name].shape)}, which is no kernel over {rank} axes")
    return kernel
