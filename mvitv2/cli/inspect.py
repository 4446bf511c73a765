"""``mvitv2 inspect``: what is in a weights file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from mvitv2.cli.output import columns, millions, print_json, sizes

if TYPE_CHECKING:
    from mvitv2.weights.inspect import Inspection

EXAMPLES = """\
  mvitv2 inspect MViTv2_T_in1k.pyth
  mvitv2 inspect runs/demo                  # the best weights of a run
  mvitv2 inspect model.safetensors --json
"""
SHOWN = 8
"""Names on one line."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which file, and how to print it."""

    file: Positional[str]
    """A weights file of any codebase, or the folder of a run."""
    json: bool = False
    """Print JSON."""


def run(options: Options) -> int:
    """Print what the file is; 1 if parts of the model are missing from it."""
    from mvitv2.cli.checkpoints import weights_path
    from mvitv2.weights.inspect import inspect_weights

    path = weights_path(options.file)
    found = inspect_weights(path)
    if options.json:
        print_json({"file": str(path), **asdict(found)})
    else:
        print(columns([("file", path), *facts(found)]))
    return 1 if found.missing else 0


def facts(found: "Inspection") -> list[tuple[str, str]]:
    """A line for everything that is known."""
    classes = f"{found.num_classes}{f': {some(found.classes)}' if found.classes else ', without names'}"
    return [
        ("dialect", f"{found.dialect} ({found.container})"),
        ("variant", found.variant or "none of the published ones"),
        ("task", found.task),
        ("input", sizes(found.input_size)),
        ("classes", classes if found.num_classes else "no classifier"),
        ("parameters", millions(found.parameters)),
        ("conventions", ", ".join(f"{name}={value}" for name, value in found.conventions.items()) or "the usual ones"),
        ("preprocessing", spoken(found.preprocessing)),
        ("assumed", "; ".join(found.assumed) or "nothing"),
        ("missing", some(found.missing) or "nothing"),
        ("left out", some(found.left_out) or "nothing"),
    ]


def some(names: Sequence[str]) -> str:
    """The first few names, and how many there are."""
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def spoken(preprocessing: Mapping[str, Any]) -> str:
    """What is done to pixels, in the order in which it is done."""
    from mvitv2.preprocessing import Preprocessing

    record = Preprocessing.from_dict(preprocessing)  # a card may leave out what is as usual
    size, resize = record.size, record.resize
    steps = [f"shorter side {resize}" if isinstance(resize, int) else f"resize {sizes(resize)}"] if resize else []
    steps += [f"centre {sizes(size)}"] if size else []
    steps += [record.interpolation, record.channels]
    steps += [
        f"{name} {' '.join(f'{value:g}' for value in values)}"
        for name, values in (("mean", record.mean), ("std", record.std))
    ]
    if record.num_frames:
        rate = f", every {record.sampling_rate}th" if record.sampling_rate else " spread out"
        steps.append(f"{record.num_frames} frames{rate}")
    return ", ".join(steps)
