"""``mvitv2 convert``: the same weights for another codebase."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from mvitv2.cli.output import check_folder, notes
from mvitv2.cli.words import Maybe

EXAMPLES = """\
  mvitv2 convert MViTv2_T_in1k.pyth mvitv2_t.safetensors
  mvitv2 convert MViTv2_T_in1k.pyth for_timm.safetensors --to timm
  mvitv2 convert runs/flowers flowers.pth --to mmpretrain
"""
Dialect = Literal[
    "mvitv2", "official", "slowfast", "detectron2", "timm", "torchvision", "mmpretrain", "mmaction2", "pytorchvideo"
]


@dataclass(frozen=True, kw_only=True)
class Options:
    """From where, to where, for whom."""

    source: Positional[str]
    """A weights file of any codebase, the folder of a run, or the name of a published model."""
    target: Positional[Path]
    """The file to write."""
    to: Dialect = "mvitv2"
    """Whose names and container; mvitv2's own carries configuration, classes and preprocessing."""
    num_classes: Maybe[int] = None
    """Another number of classes draws a new classifier; 0 drops it."""
    img_size: Maybe[int] = None
    """Another side in pixels; position tables are resampled."""
    overwrite: bool = False
    """Replace the file if there is one."""
    allow_other_numbers: bool = False
    """Write also where that codebase computes something else with these weights."""


def run(options: Options) -> int:
    """Convert, and say what was changed on the way."""
    from mvitv2.cli.checkpoints import opened
    from mvitv2.weights.save import save_weights

    if options.target.exists() and not options.overwrite:
        raise ValueError(f"{options.target} is there already; --overwrite replaces it")
    check_folder(options.target)
    with notes():
        model = opened(options.source, num_classes=options.num_classes, img_size=options.img_size)
    save_weights(model, options.target, dialect=options.to, allow_other_numbers=options.allow_other_numbers)
    print(f"{options.target}: {options.to}, {options.target.stat().st_size / 1e6:.1f} MB")
    return 0
