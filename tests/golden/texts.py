"""The golden texts as they follow from the code."""

import inspect
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import torch

import mvitv2
from mvitv2.core.attend import reference
from mvitv2.core.config import MViTConfig, describe
from mvitv2.core.reversible import build
from mvitv2.variants import VARIANTS

HERE = Path(__file__).parent
Shapes = dict[str, tuple[int, ...]]


def golden() -> dict[str, str]:
    """Every golden file by its path below this folder."""
    files = {f"variants/{name}.txt": variant(config) for name, config in VARIANTS.items()}
    return {**files, "public.txt": public()}


def variant(config: MViTConfig) -> str:
    """Parameters in all, the schedule, and every name of the state dict with its shape."""
    with torch.device("meta"):
        model = build(config, reference)
    count = sum(p.numel() for p in model.parameters())
    names = "\n".join(state({name: tuple(value.shape) for name, value in model.state_dict().items()}))
    return f"{count:,} parameters\n\n{describe(config)}\n\n{names}\n"


def state(shapes: Shapes) -> Iterator[str]:
    """Lines of names and shapes; blocks of one make are written once."""
    blocks: dict[str, Shapes] = {}
    alone: Shapes = {}
    for name, shape in shapes.items():
        parts = name.split(".")
        at = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        if at is None or parts[0] == "output_norms":
            alone[name] = shape
        else:
            blocks.setdefault(".".join(parts[: at + 1]), {})[".".join(parts[at + 1 :])] = shape
    yield from lines(alone)
    for shared, group in groupby(blocks.items(), key=lambda item: item[1]):
        members = [name for name, _ in group]
        yield f"{members[0]} to {members[-1]}" if len(members) > 1 else members[0]
        yield from lines(shared, indent="  ")


def lines(shapes: Shapes, indent: str = "") -> Iterator[str]:
    """A line per name."""
    for name, shape in shapes.items():
        yield f"{indent}{name} {'x'.join(map(str, shape))}"


def public() -> str:
    """The public names, with the arguments of what can be called."""
    return "\n".join(f"{name}{arguments(getattr(mvitv2, name))}" for name in mvitv2.__all__) + "\n"


def arguments(value: object) -> str:
    """Names, kinds and defaults; annotations are left out, for Python versions print them differently."""
    if not callable(value):
        return ""
    parameters = inspect.signature(value).parameters.values()
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", str(inspect.Signature(plain)))
