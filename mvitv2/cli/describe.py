"""``mvitv2 describe``: one model in numbers."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tyro.conf import Positional

from mvitv2.cli.output import columns, millions, print_json, sizes
from mvitv2.cli.words import Maybe

if TYPE_CHECKING:
    from mvitv2.core.config import MViTConfig

EXAMPLES = """\
  mvitv2 describe mvitv2_t
  mvitv2 describe mvitv2_b --img-size 384
  mvitv2 describe mvit_v2_s --num-frames 32      # torchvision's name of mvitv2_s_16x4
  mvitv2 describe runs/demo                      # what is in a file
  mvitv2 describe mvitv2_s --json
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which model, at which size."""

    name: Positional[str]
    """A model, as `mvitv2 list` names them, or a weights file or the folder of a run."""
    img_size: Maybe[int] = None
    """Side of the input in pixels."""
    num_frames: Maybe[int] = None
    """Frames of a clip."""
    num_classes: Maybe[int] = None
    """Classes; 0 for a model without a classifier."""
    in_chans: Maybe[int] = None
    """Channels of the input."""
    json: bool = False
    """Print JSON."""


def run(options: Options) -> int:
    """Print the schedule, the costs and the conventions that differ from the default."""
    from mvitv2.cli.conventions import conventions
    from mvitv2.core.config import describe
    from mvitv2.models import task_of

    config = config_of(options)
    parameters, multiply_adds = costs(config)
    if options.json:
        numbers = {"task": task_of(config), "parameters": parameters, "multiply_adds": multiply_adds}
        print_json({"name": options.name, **numbers, "config": config.to_dict()})
        return 0
    classes = f"{config.num_classes} classes" if config.num_classes else "no classifier"
    print(f"{options.name}: {task_of(config)}, {sizes(config.input_size)}, {config.in_channels} channels, {classes}")
    print(f"{millions(parameters)} parameters, {multiply_adds / 1e9:.2f} GMACs for one input\n")
    print(describe(config))
    if unusual := conventions(config):
        print("\nFields that differ from those of the released image models:")
        print(columns([(f"{name}={value!r}", meaning) for name, value, meaning in unusual], indent="  "))
    return 0


def config_of(options: Options) -> "MViTConfig":
    """The configuration of a model, or of the weights in a file.

    Raises:
        ValueError: There is neither, or a file is wanted at another size.
    """
    from mvitv2.cli.checkpoints import local_path
    from mvitv2.models import model_config
    from mvitv2.weights.opened import open_weights

    changes = {name: value for name, value in asdict(options).items() if name not in ("name", "json")}
    if (path := local_path(options.name)) is None:
        return model_config(options.name, **changes)
    if given := [name for name, value in changes.items() if value is not None]:
        raise ValueError(f"{path} is described as it is; {', '.join(given)} can be changed for models by name only")
    return open_weights(path).config


def costs(config: "MViTConfig") -> tuple[int, int]:
    """Parameters, and multiply-adds of all matrix products and convolutions for one input of the configured size.

    Counted on a model without memory, with the attention backend that computes nothing twice.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from mvitv2.core.attend import reference
    from mvitv2.core.reversible import build

    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.inference_mode():
        model = build(config, reference).eval()
        pixels = torch.empty(1, config.in_channels, *config.input_size)
        with counter:
            model(pixels)
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2
