"""What is measured, as data."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "bfloat16", "autocast"]
TIMM = {"mvitv2_t": "mvitv2_tiny", "mvitv2_s": "mvitv2_small", "mvitv2_b": "mvitv2_base", "mvitv2_l": "mvitv2_large"}
TORCHVISION = {"mvitv2_s_16x4": "mvit_v2_s"}
PYTORCHVIDEO = {"mvitv1_b_16x4": "mvit_base_16x4"}
"""It has no MViTv2; its models are those of the first MViT."""
HIERA = {"mvitv2_t": "hiera_tiny_224", "mvitv2_s": "hiera_small_224", "mvitv2_b": "hiera_base_224"}
"""Of about the same size, for context: another architecture, never the peer of a ratio."""


@dataclass(frozen=True)
class Case:
    """One setting; every candidate runs it in the same process, turn by turn."""

    variant: str
    batch: int
    shape: tuple[int, ...]
    """Of one input: ``(C, H, W)`` or ``(C, T, H, W)``."""
    dtype: Precision = "float32"
    """Of weights and inputs; ``"autocast"`` keeps both in float32 and lets products be bfloat16."""
    trains: bool = False
    """A forward and a backward pass, else inference."""

    @property
    def name(self) -> str:
        """A line of the table."""
        size = "x".join(map(str, self.shape[1:]))
        return f"{self.variant} {size} batch {self.batch} {self.dtype} {'training' if self.trains else 'inference'}"

    @property
    def by_windows(self) -> bool:
        """Whether this is a detection backbone, which attends inside windows and has no classes."""
        return self.variant.endswith("_det")


IMAGE = (3, 224, 224)
CLIP = (3, 16, 224, 224)
LARGE = (3, 1024, 1024)
QUICK = (
    Case("mvitv2_t", 1, IMAGE),
    Case("mvitv2_t", 1, IMAGE, dtype="bfloat16"),
)
MAIN = (
    *(Case("mvitv2_s", b, IMAGE, dtype=d) for d in ("float32", "bfloat16") for b in (1, 8)),
    Case("mvitv2_s", 2, IMAGE, trains=True),
    Case("mvitv2_s", 2, IMAGE, dtype="autocast", trains=True),
    Case("mvitv2_s_16x4", 1, CLIP),
    Case("mvitv2_s_16x4", 1, CLIP, dtype="bfloat16"),
    Case("mvitv2_t_det", 1, LARGE, dtype="bfloat16"),
)
"""The rows that the README shows."""
FULL = (
    *(
        Case(f"mvitv2_{size}", b, IMAGE, dtype=d)
        for size in "tsbl"
        for d in ("float32", "bfloat16", "autocast")
        for b in (1, 8, 32)
    ),
    *(Case(f"mvitv2_{size}", 8, IMAGE, dtype=d, trains=True) for size in "tsbl" for d in ("float32", "autocast")),
    *(Case("mvitv2_s_16x4", 1, CLIP, dtype=d) for d in ("float32", "bfloat16", "autocast")),
    *(Case("mvitv2_s_16x4", 1, CLIP, dtype=d, trains=True) for d in ("float32", "autocast")),
    *(Case("mvitv2_t_det", 1, LARGE, dtype=d) for d in ("float32", "bfloat16", "autocast")),
)
GPU = (
    *(
        Case(f"mvitv2_{size}", b, IMAGE, dtype=d)
        for size in "tsbl"
        for d in ("float32", "bfloat16", "autocast")
        for b in (1, 32, 256)
    ),
    *(Case(f"mvitv2_{size}", b, IMAGE, dtype="autocast", trains=True) for size in "tsbl" for b in (32, 256)),
    *(Case("mvitv2_s_16x4", 8, CLIP, dtype="autocast", trains=trains) for trains in (False, True)),
    *(Case("mvitv2_t_det", 1, LARGE, dtype=d) for d in ("bfloat16", "autocast")),
)
DETECTION = tuple(Case(f"mvitv2_{size}_det", 1, LARGE, dtype=d) for size in "tb" for d in ("float32", "bfloat16"))
"""Backbones of detectors at the size that the ViTDet project tests at: position terms as a matrix of queries by keys
(``reference``, ``masked``) against what makes none (``folded``, ``cpp``, ``triton``, ``auto``)."""
VIDEO = (
    *(Case("mvitv2_s_16x4", 1, CLIP, dtype=d) for d in ("float32", "bfloat16", "autocast")),
    *(Case("mvitv2_s_16x4", 2, CLIP, dtype=d, trains=True) for d in ("float32", "autocast")),
    Case("mvitv1_b_16x4", 1, CLIP),
    Case("mvitv1_b_16x4", 2, CLIP, trains=True),
)
"""Clips: torchvision's model of MViTv2, and pytorchvideo's of MViT where it is installed."""
SETS: dict[str, tuple[Case, ...]] = {
    "quick": QUICK,
    "main": MAIN,
    "full": FULL,
    "gpu": GPU,
    "detection": DETECTION,
    "video": VIDEO,
}
