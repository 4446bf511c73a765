"""What a configuration does otherwise than the released image models, in the words of its own source."""

import ast
import inspect
import textwrap
from dataclasses import MISSING, fields
from itertools import pairwise
from typing import Any

from mvitv2.core.config import MViTConfig

NUMBERS = {"blocks", "input_size", "in_channels", "num_classes", "drop_path", "dropout", "pos_dropout", "head_dropout"}
"""Fields that say how large a model is or how it is trained, not how it computes."""


def conventions(config: MViTConfig) -> list[tuple[str, Any, str]]:
    """Name, value and meaning of every field of ``config`` that differs from its default."""
    meaning = meanings(MViTConfig)
    return [
        (field.name, value, meaning.get(field.name, ""))
        for field in fields(config)
        if field.name not in NUMBERS and field.default is not MISSING
        for value in [getattr(config, field.name)]
        if value != field.default
    ]


def meanings(record: type) -> dict[str, str]:
    """The text below each field of a dataclass, on one line; empty where the source is not there to be read."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(record))).body[0]
    except (OSError, TypeError):
        return {}
    found = {}
    for field, text in pairwise(body.body if isinstance(body, ast.ClassDef) else ()):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as meaning)):
                found[name] = " ".join(meaning.split())
    return found
