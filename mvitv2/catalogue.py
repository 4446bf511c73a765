"""What is known of a model by its name: its task and size, where its weights come from, how good they are.

Figures are those that the publishers of the files report, each with the page that says so; nothing here is measured.
"""

from dataclasses import dataclass

import torch

from mvitv2.aliases import ALIASES, variant_name
from mvitv2.models import create_model, task_of
from mvitv2.variants import VARIANTS
from mvitv2.weights.pretrained import pretrained_release
from mvitv2.weights.published import Release
from mvitv2.weights.releases import releases_of


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One model, as asked for."""

    name: str
    """Our name of the variant."""
    task: str
    """``"image"``, ``"video"`` or ``"detection"``."""
    parameters: int
    """Numbers in the model as configured, its classifier included."""
    input_size: tuple[int, ...]
    """``(H, W)`` or ``(T, H, W)`` it was made for; every other size runs as well."""
    num_classes: int
    """0 without a classifier."""
    aliases: tuple[str, ...]
    """Names that other codebases have for it."""
    releases: tuple[Release, ...]
    """Published files of this architecture, the authors' own first."""
    pretrained: Release | None
    """The file that ``create_model(name, pretrained=True)`` loads; ``None`` where nobody published one."""

    @property
    def top1(self) -> float | None:
        """Top-1 accuracy that the page of that file (:attr:`source`) reports, per cent; ``None`` where it says none."""
        return None if self.pretrained is None else self.pretrained.reported.get("top1")

    @property
    def source(self) -> str | None:
        """The page that names that file and its figures."""
        return None if self.pretrained is None else self.pretrained.source


def is_model(name: str) -> bool:
    """Whether :func:`mvitv2.create_model` knows a name, ours or another codebase's."""
    return name in VARIANTS or name in ALIASES


def model_info(name: str) -> ModelInfo:
    """What is known of a model, without building or fetching it.

    Args:
        name: As for :func:`mvitv2.create_model`; a name of another codebase prefers that codebase's file.

    Raises:
        ValueError: There is no such model; the nearest names are offered.
    """
    variant = variant_name(name)
    config, releases = VARIANTS[variant], releases_of(variant)
    fetchable = any(entry.url or entry.hub for entry in releases)
    return ModelInfo(
        name=variant,
        task=task_of(config),
        parameters=num_parameters(variant),
        input_size=config.input_size,
        num_classes=config.num_classes,
        aliases=tuple(sorted(alias for alias, meant in ALIASES.items() if meant == variant)),
        releases=releases,
        pretrained=pretrained_release(name) if fetchable else None,
    )


def num_parameters(name: str) -> int:
    """Parameters of a variant, counted on a model without memory."""
    with torch.device("meta"):
        model = create_model(name)
    return sum(parameter.numel() for parameter in model.parameters())
