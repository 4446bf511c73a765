"""Levels of the pyramid as feature maps and as data, in the form timm's users know."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .config import MViTConfig
from .grid import Grid, num_prefix


@dataclass(frozen=True)
class FeatureInfo:
    """Channels, reduction and module of the chosen stages, finest first."""

    info: tuple[dict[str, int | str], ...]
    out_indices: tuple[int, ...]

    @classmethod
    def of(cls, config: MViTConfig) -> "FeatureInfo":
        """All stages of a model; reduction is pixels per token along height."""
        reduction, records = config.patch_stride[-2], {}
        module = "blocks" if config.reversible is None else "rev_backbone.layers"
        streams = config.num_features // config.blocks[-1].dim_out
        for index, block in enumerate(config.blocks):
            reduction *= block.q_stride[-2]
            channels = streams * block.dim_out
            records[block.stage] = {"num_chs": channels, "reduction": reduction, "module": f"{module}.{index}"}
        return cls(tuple(records.values()), tuple(range(len(records))))

    def channels(self) -> list[int]:
        """Channels of every chosen stage."""
        return [int(self.info[i]["num_chs"]) for i in self.out_indices]

    def reduction(self) -> list[int]:
        """Pixels per token of every chosen stage."""
        return [int(self.info[i]["reduction"]) for i in self.out_indices]

    def module_name(self) -> list[str]:
        """Last block of every chosen stage."""
        return [str(self.info[i]["module"]) for i in self.out_indices]

    def __len__(self) -> int:
        return len(self.out_indices)

    def __getitem__(self, index: int) -> dict[str, int | str]:
        return self.info[self.out_indices[index]]


def chosen_stages(indices: int | Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Stage numbers from what users give: ``None`` for all, a number for the last so many, or indices from either end.

    Raises:
        ValueError: There is no such stage.
    """
    if indices is None:
        return tuple(range(count))
    if isinstance(indices, int):
        numbers = tuple(range(count - indices, count))
    else:
        numbers = tuple(i + count if i < 0 else i for i in indices)
    if not numbers or any(not 0 <= i < count for i in numbers):
        raise ValueError(
            f"out_indices={indices} must name stages of {count}: 0 to {count - 1}, or negative from the end"
        )
    return numbers


def as_maps(x: Tensor, grid: Grid) -> Tensor:
    """Tokens ``(B, P + N, C)`` as a channels-first map ``(B, C, *grid)``; a class token is left out."""
    return x[:, num_prefix(x, grid) :].transpose(1, 2).reshape(x.shape[0], x.shape[2], *grid)
