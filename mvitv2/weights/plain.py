"""Configurations from files, where nothing can be taken for granted: every value is of its field's kind, or named."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from mvitv2.core.config import MViTConfig, schedule
from mvitv2.weights.evidence import MOST_BLOCKS
from mvitv2.weights.rename import DialectError

LARGEST = 1 << 20
"""No width, size or depth of a model comes near it."""


def stored_config(values: Any) -> MViTConfig:
    """The configuration that :meth:`~mvitv2.core.config.MViTConfig.to_dict` gave, after a trip through a file.

    Raises:
        DialectError: Values of the wrong kind, all named with their fields, or values that make no model.
    """
    problems = wrong_kinds(values, MViTConfig)
    if problems:
        raise DialectError(f"its configuration has values of no sense: {', '.join(problems)}")
    if len(values["blocks"]) > MOST_BLOCKS:
        raise DialectError(f"its configuration has {len(values['blocks'])} blocks, more than {MOST_BLOCKS}")
    try:
        config = MViTConfig.from_dict(values)
        check_sizes(config)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise DialectError(f"its configuration makes no model: {error}") from error
    return config


CARD_KINDS = {
    "classes": list,
    "preprocessing": dict,
    "provenance": dict,
    "pyramid": dict,
    "detector": dict,
    "loading": list,
}


def stored_card(values: Any) -> dict[str, Any]:
    """The card in a file, as far as we look into it ourselves; the rest is its writer's.

    Raises:
        DialectError: Entries of the wrong kind, all named.
    """
    if not isinstance(values, Mapping):
        raise DialectError(f"its card is {str(values)[:60]}, expected names and values")
    wrong = [n for n, kind in CARD_KINDS.items() if values.get(n) is not None and not isinstance(values[n], kind)]
    if not wrong and not all(isinstance(name, str) for name in values.get("classes") or ()):
        wrong = ["classes"]
    if wrong:
        raise DialectError(f"its card has values of no sense: {', '.join(f'{n}={str(values[n])[:60]}' for n in wrong)}")
    return {name: value for name, value in values.items() if value is not None}


def check_sizes(config: MViTConfig) -> None:
    """Refuse widths, strides, kernels, tables or grids of no extent, which would fail inside torch.

    Raises:
        ValueError: All of them, named.
    """
    names = ("in_channels", "input_size", "patch_kernel", "patch_stride", "abs_pos_size")
    sizes = {name: getattr(config, name) for name in names}
    for i, block in enumerate(config.blocks):
        sizes |= {f"blocks[{i}].{entry.name}": getattr(block, entry.name) for entry in fields(block)}
        sizes[f"blocks[{i}].stage"] = block.stage + 1
    if not (wrong := _without_extent(sizes)):
        for i, spec in enumerate(schedule(config)):
            grids = {"grid": spec.grid, "q_grid": spec.q_grid, "kv_grid": spec.kv_grid}
            sizes |= {f"the {name} of block {i}": grid for name, grid in grids.items()}
        wrong = _without_extent(sizes)
    if wrong:
        raise ValueError(f"{', '.join(wrong)}; all must be 1 or more")


def _without_extent(sizes: Mapping[str, Any]) -> list[str]:
    numbers = {n: v if isinstance(v, tuple) else (v,) for n, v in sizes.items() if v is not None}
    return [f"{name}={sizes[name]}" for name, values in numbers.items() if min(values, default=1) < 1]


def wrong_kinds(values: Any, kind: type[Any], where: str = "") -> list[str]:
    """Fields of a dataclass that plain values lack, or have with a value of another kind, each as ``field=value``.

    Fields that the dataclass does not have are left for it to refuse.
    """
    if not isinstance(values, Mapping):
        return [f"{where or kind.__name__}={str(values)[:60]}"]
    problems: list[str] = []
    for entry in fields(kind):
        name = f"{where}{entry.name}"
        if entry.name not in values:
            problems += [f"{name} is missing"] if entry.default is MISSING else []
        elif not fits(values[entry.name], entry.type):
            problems.append(f"{name}={str(values[entry.name])[:60]}")
    return problems


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value is of the kind that a field's annotation says."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is UnionType:
        return any(fits(value, part) for part in inner)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(fits(part, inner[0]) for part in value)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if is_dataclass(annotation) and isinstance(annotation, type):
        return not wrong_kinds(value, annotation)
    if annotation in (bool, str, NoneType):
        return isinstance(value, annotation)
    number = isinstance(value, int if annotation is int else int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and abs(value) < LARGEST
