"""What users of timm and DINO ask a model for, told from what it has."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .config import MViTConfig
from .features import as_maps, chosen_stages
from .grid import Tokens, num_prefix


class Habits:
    """Methods of other codebases' models, for :class:`~mvitv2.core.model.MViT`."""

    config: MViTConfig
    card: dict[str, Any]
    norm: nn.Module

    def trunk(self, pixels: Tensor) -> list[Tokens]:
        """Tokens and grid as they leave each stage."""
        raise NotImplementedError

    def get_intermediate_layers(
        self,
        pixels: Tensor,
        n: int | Sequence[int] = 1,
        *,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = True,
    ) -> tuple[Any, ...]:
        """Tokens of stages, after DINO's and timm's method of that name; a layer there is a stage here.

        Args:
            pixels: Images or clips.
            n: How many stages from the end, or which.
            reshape: Maps ``(B, C', *grid)`` instead of tokens ``(B, N, C')``.
            return_prefix_tokens: Pairs of these and the class token ``(B, P, C')``, ``P`` 0 where there is none.
            norm: Apply the final norm to the last stage; the others have no norm, their channels differ.
        """
        levels = self.trunk(pixels)
        last, grid = levels[-1]
        levels[-1] = (self.norm(last), grid) if norm else levels[-1]
        chosen = [levels[stage] for stage in chosen_stages(n, self.config.num_stages)]
        prefixes = [num_prefix(x, grid) for x, grid in chosen]
        found = [as_maps(x, g) if reshape else x[:, p:] for (x, g), p in zip(chosen, prefixes, strict=True)]
        if not return_prefix_tokens:
            return tuple(found)
        return tuple((y, x[:, :p]) for y, (x, _), p in zip(found, chosen, prefixes, strict=True))

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """The model in timm's words: ``timm.data.resolve_model_data_config(model)`` reads it."""
        config, record = self.config, self.card.get("preprocessing") or {}
        size = record.get("size") or config.input_size[-2:]
        resize = record.get("resize") or size
        side = resize if isinstance(resize, int) else resize[0]
        return {
            "input_size": (config.in_channels, *size),
            "fixed_input_size": False,
            "num_classes": config.num_classes,
            "interpolation": record.get("interpolation", "bicubic"),
            "crop_pct": size[0] / side,
            "crop_mode": "center",
            "mean": tuple(record.get("mean", (0.485, 0.456, 0.406))),
            "std": tuple(record.get("std", (0.229, 0.224, 0.225))),
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head.projection" if config.num_classes else None,
            "label_names": list(self.card.get("classes") or ()),
        }

    @property
    def default_cfg(self) -> dict[str, Any]:
        """The older name of :attr:`pretrained_cfg`."""
        return self.pretrained_cfg
