"""What a model is, as numbers: a declared :class:`MViTConfig`, and the :class:`BlockSpec` schedule computed from it.

Nothing else in the package computes a size. A config is frozen, checked when it is made, and plain enough for JSON.
"""

from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, TypeVar

from .checks import problems_of
from .grid import Grid, pooled

AXES = {2: "hw", 3: "thw"}
Record = TypeVar("Record", "BlockConfig", "Reversible", "MViTConfig")


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """What is declared of one block: widths and strides. Rules that fill it in are in ``stages.py``."""

    stage: int
    """Blocks of a stage share a grid and a width; the tokens that leave a stage are a level of the pyramid."""
    dim_in: int
    """Channels that enter the block."""
    dim_attn: int
    """Channels inside the attention: ``dim_in``, or ``dim_out`` where attention widens the stream."""
    dim_out: int
    """Channels that leave the block."""
    num_heads: int
    q_stride: Grid
    """Stride of the query pooling; the grid of the stream shrinks by it."""
    kv_stride: Grid
    q_kernel: Grid | None
    """Kernel of the query pooling; ``None`` for queries that are not pooled at all."""
    kv_kernel: Grid | None
    window: int | None = None
    """Side of the attention windows in tokens that enter the block; ``None`` for global attention."""
    table_rows: Grid | None = None
    """Rows of the position tables, per axis; ``None`` for as many as the grids need. Files of other origin differ."""


@dataclass(frozen=True, kw_only=True)
class Reversible:
    """The reversible form (Mangalam et al. 2022, arXiv 2302.04869; SlowFast ``reversible_mvit.py``)."""

    transitions: tuple[int, ...]
    """Blocks that change grid or width; they fuse the two streams and start them anew. All others are reversible."""
    pre_q_fusion: str = "avg"
    """How a transition fuses its streams: add, avg, max, min, concat_linear_R (MLP of ratio R), ln+concat_linear_R."""
    path_fusion: str = "concat"
    """How the two streams become one at the end: add, avg, max, min or concat."""


@dataclass(frozen=True, kw_only=True)
class MViTConfig:
    """Every number and every convention that tells one published MViT from another.

    Defaults are those of the released MViTv2 image models. Where peers disagree on what the same weights compute, a
    field names the convention; a checkpoint's dialect sets it.
    """

    blocks: tuple[BlockConfig, ...]
    input_size: Grid = (224, 224)
    """Pixels ``(H, W)``, or frames and pixels ``(T, H, W)``, that tables are made for; any size runs."""
    in_channels: int = 3
    num_classes: int = 1000
    """0 for a model without a classifier, whose output is the pooled features."""
    patch_kernel: Grid = (7, 7)
    patch_stride: Grid = (4, 4)
    patch_padding: Grid = (3, 3)
    norm_stem: bool = False
    """A norm after patches and positions (SlowFast ``NORM_STEM``)."""

    class_token: bool = False
    abs_pos: Literal["none", "joint", "separable"] = "none"
    """Absolute positions: none, one table for all tokens, or one for space plus one for time."""
    abs_pos_size: Grid | None = None
    """Input size the absolute table is made for; ``None`` for ``input_size``. It is resampled to any other grid."""
    abs_pos_float32: bool = False
    """Resample the absolute table in float32 whatever the model's precision (mmpretrain ``embed.py``)."""
    abs_pos_init: Literal["learned", "sincos"] = "learned"
    """Learned from noise, or fixed sines and cosines in space and time (SlowFast ``USE_FIXED_SINCOS_POS``)."""
    rel_pos_spatial: bool = True
    rel_pos_temporal: bool = True
    """Relative positions in time; only clips have that axis."""
    rel_pos_zero_init: bool = False
    table_resampling: Literal["linear", "anchored", "first_rows"] = "linear"
    """Position rows at another size: interpolated as the peers do, interpolated around displacement 0 (our own, exact
    at that row), or the first rows of the table (mvit and timm, smaller inputs only)."""
    displacement_order: Literal["authors", "torchvision"] = "authors"
    """Which order of float32 sums numbers the table rows; differs for a few odd sizes only."""
    position_scale: Literal["code", "paper"] = "code"
    """Position logits as in the released code, or divided by ``sqrt(d)`` as in eq. 3 of the paper."""

    pool_mode: Literal["conv", "conv_unshared", "conv_dense", "avg", "max"] = "conv"
    """Depthwise convolution shared by heads, one for all channels (with ``pool_first``), a full one, or no weights."""
    pool_first: bool = False
    """Pool the stream and then project it to queries, keys and values, instead of the other way round."""
    separate_qkv: bool = False
    """Three linear layers instead of one."""
    qkv_bias: bool = True
    linear_bias: bool = True
    """Bias of the output projection, the MLP and the shortcut (pytorchvideo ``bias_on``)."""
    residual_pooling: Literal["none", "grid", "all"] = "grid"
    """``Z = Attn + Q`` (eq. 5): nowhere, on the grid (the authors), or on the class token too (timm, pytorchvideo)."""
    window_padding: Literal["attended", "masked"] = "attended"
    """Zero keys that fill up a window: attended to as in detectron2, or masked."""
    mlp_ratio: float = 4.0
    norm: Literal["layer", "batch"] = "layer"
    """Batch norm is pytorchvideo's variant: it pools *after* norm and GELU."""
    norm_eps: float = 1e-6
    layer_scale: float | None = None
    """Initial value of a learned scale of every branch (SlowFast ``gamma_1``, ``gamma_2``)."""

    drop_path: float = 0.0
    """Stochastic depth of the last block; grows linearly from 0."""
    dropout: float = 0.0
    """After the attention's projection and inside the MLP."""
    pos_dropout: float = 0.0
    """After positions are added."""
    head_dropout: float = 0.0

    readout: Literal["class_token", "norm_mean", "mean_norm", "tokens"] = "norm_mean"
    """What the classifier sees: the normed class token, the mean of normed grid tokens, the norm of their mean, or,
    without a classifier, all normed tokens."""
    head_activation: Literal["none", "softmax", "sigmoid"] = "none"
    """Applied to logits in eval mode only; facebookresearch/mvit and SlowFast models do that, nobody else."""
    final_norm: bool = True
    """A norm after the last block; detection backbones have output norms instead."""
    output_norms: tuple[int, ...] = ()
    """Stages whose pyramid level has a norm of its own."""
    feed_output_norms: bool = False
    """Normed output tokens are what the next block sees (mmpretrain, mmaction2), not a copy beside the stream."""
    init: Literal["image", "video"] = "image"
    """Initialisation as in facebookresearch/mvit, or as in SlowFast (biases 0.02)."""
    head_init_scale: float = 1.0
    reversible: Reversible | None = None

    def __post_init__(self) -> None:
        rank = len(self.input_size)
        if rank not in AXES:
            raise ValueError(f"input_size={self.input_size} needs 2 numbers (H, W) or 3 (T, H, W)")
        if not self.blocks:
            raise ValueError("blocks is empty; stages(...) in mvitv2.core.stages makes them")
        if problems := problems_of(self):
            raise ValueError("; ".join(problems))

    @property
    def rank(self) -> int:
        """2 for images, 3 for clips."""
        return len(self.input_size)

    @property
    def embed_dim(self) -> int:
        """Channels of the patch embedding."""
        return self.blocks[0].dim_in

    @property
    def num_features(self) -> int:
        """Channels the classifier sees."""
        concatenated = self.reversible is not None and self.reversible.path_fusion == "concat"
        return self.blocks[-1].dim_out * (2 if concatenated else 1)

    @property
    def patch_grid(self) -> Grid:
        """Tokens of an input of ``input_size``."""
        return pooled(self.input_size, self.patch_kernel, self.patch_stride, self.patch_padding)

    @property
    def abs_pos_grid(self) -> Grid:
        """Tokens the absolute table is made for."""
        size = self.abs_pos_size or self.input_size
        return pooled(size, self.patch_kernel, self.patch_stride, self.patch_padding)

    @property
    def position_axes(self) -> str:
        """Axes that have a relative table: some of ``t``, ``h``, ``w``."""
        spatial = "hw" if self.rel_pos_spatial else ""
        return ("t" if self.rel_pos_temporal and self.rank == 3 else "") + spatial

    @property
    def num_stages(self) -> int:
        """Levels of the pyramid."""
        return self.blocks[-1].stage + 1

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_dict` undoes it."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["blocks"] = [{f.name: getattr(b, f.name) for f in fields(b)} for b in self.blocks]
        if self.reversible is not None:
            values["reversible"] = {f.name: getattr(self.reversible, f.name) for f in fields(self.reversible)}
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "MViTConfig":
        """Undo :meth:`to_dict`, also after a trip through JSON.

        Raises:
            ValueError: Unknown or missing fields (all are named), or values that make no model.
        """
        values = dict(values)
        if isinstance(values.get("blocks"), (list, tuple)):
            values["blocks"] = tuple(_record(BlockConfig, block) for block in values["blocks"])
        if values.get("reversible") is not None:
            values["reversible"] = _record(Reversible, values["reversible"])
        return _record(cls, values)


def _record(kind: type[Record], values: dict[str, Any]) -> Record:
    """A dataclass from plain JSON values, lists taken for tuples."""
    known = fields(kind)
    unknown = sorted(set(values) - {f.name for f in known})
    missing = [f.name for f in known if f.default is MISSING and f.name not in values]
    if unknown or missing:
        wrong = [f"{unknown} are no fields of {kind.__name__}"] if unknown else []
        wrong += [f"{missing} of {kind.__name__} are missing"] if missing else []
        raise ValueError(f"{' and '.join(wrong)}; was this file written by another version?")
    return kind(**{name: _tuples(value) for name, value in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True, kw_only=True)
class BlockSpec(BlockConfig):
    """One block with every number spelled out; a module computes no sizes of its own."""

    grid: Grid
    """Tokens that enter, for an input of the configured size."""
    drop_path: float

    @property
    def head_dim(self) -> int:
        """Channels per head, ``d``."""
        return self.dim_attn // self.num_heads

    @property
    def q_grid(self) -> Grid:
        """Pooled queries; the grid that leaves the block."""
        return pooled(self.grid, self.q_kernel, self.q_stride)

    @property
    def kv_grid(self) -> Grid:
        """Pooled keys and values."""
        return pooled(self.grid, self.kv_kernel, self.kv_stride)

    @property
    def windows(self) -> tuple[Grid, Grid] | None:
        """Window of the pooled queries and of the pooled keys; ``None`` for global attention."""
        if self.window is None:
            return None
        return tuple(self.window // s for s in self.q_stride), tuple(self.window // s for s in self.kv_stride)


def schedule(config: MViTConfig) -> tuple[BlockSpec, ...]:
    """The blocks of a model with their grids and drop path rates, first to last (paper Sec. 3 and Table 1)."""
    specs: list[BlockSpec] = []
    grid, last = config.patch_grid, max(len(config.blocks) - 1, 1)
    for index, block in enumerate(config.blocks):
        declared = {f.name: getattr(block, f.name) for f in fields(BlockConfig)}
        spec = BlockSpec(**declared, grid=grid, drop_path=config.drop_path * index / last)
        specs.append(spec)
        grid = spec.q_grid
    return tuple(specs)


def describe(config: MViTConfig) -> str:
    """The schedule as a table: for a reader, a diff, and the golden file of each variant."""
    lines = ["block stage             dim  heads        q grid       kv grid  window"]
    for index, s in enumerate(schedule(config)):
        dim = ">".join(str(d) for d in (s.dim_in, s.dim_attn, s.dim_out))
        q, kv = ("x".join(map(str, g)) for g in (s.q_grid, s.kv_grid))
        lines.append(f"{index:5} {s.stage:5} {dim:>15} {s.num_heads:6} {q:>13} {kv:>13} {s.window or '-':>7}")
    return "\n".join(lines)
