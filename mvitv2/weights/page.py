"""A model's page on the hub: what it is, what its input goes through, where it comes from, how to load it.

It says what the model's card says and nothing else; no figure is there that was not measured or published.
"""

from typing import Any

import yaml

from mvitv2.core.model import MViT
from mvitv2.weights.card import variant_of

SHOWN = 20
"""Classes that are named; of more the first ones."""
FIRST = {
    2: ("image-classification", "images"),
    3: ("video-classification", "clips"),
}
"""The hub's word for the task, and what goes in, by the number of axes."""
USE = """\
## Use

```python
import mvitv2

model = mvitv2.from_pretrained("{here}")
transform = mvitv2.create_transform(model)
```

With transformers:

```python
import mvitv2.hf  # makes AutoModelForImageClassification know this model
from transformers import pipeline

classify = pipeline("image-classification", model="{here}")
```
"""
CLIPS = """\
## Use

```python
import mvitv2

model = mvitv2.from_pretrained("{here}")
```
"""


def page(model: MViT, *, here: str = "path/or/repository") -> str:
    """The text of ``README.md``.

    Args:
        model: With its card.
        here: How the examples call its place.
    """
    config, card = model.config, model.card
    task, inputs = FIRST[config.rank]
    origin = card.get("provenance") or {}
    head: dict[str, Any] = {"library_name": "mvitv2", "tags": ["mvitv2", "vision"]}
    if config.num_classes:
        head["pipeline_tag"] = task
    variant = variant_of(config)
    name = variant or "MViTv2 of its own size"
    parameters = sum(value.numel() for value in model.parameters())
    size = " x ".join(map(str, config.input_size))
    kind = (
        f"a classifier of {inputs} into {config.num_classes} classes" if config.num_classes else f"features of {inputs}"
    )
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"# {name}\n\nA Multiscale Vision Transformer (MViT): {kind}, {parameters:,} parameters, made for inputs of "
        f"{size} with {config.in_channels} channels; other sizes run as well.\n",
        (USE if config.rank == 2 else CLIPS).format(here=here),
        *pixels(card.get("preprocessing") or {}),
        *figures(origin),
        *classes(card.get("classes") or []),
    ]
    return "\n".join(parts)


def pixels(record: dict[str, Any]) -> list[str]:
    """What the input goes through, a row for each setting."""
    if not record:
        return []
    rows = "".join(f"| {name} | {value} |\n" for name, value in record.items() if value is not None)
    return [f"## Preprocessing\n\n| | |\n|---|---|\n{rows}"]


def figures(origin: dict[str, Any]) -> list[str]:
    """Where the weights come from, and how good they were found to be, by whom."""
    told = {key: origin[key] for key in ("release", "dialect", "trained_with", "license") if origin.get(key)}
    lines = [f"- {key.replace('_', ' ')}: {value}" for key, value in told.items()]
    lines += [f"- {name} as published: {value}" for name, value in (origin.get("reported") or {}).items()]
    if {"metric", "value", "epoch"} <= set(origin):
        lines.append(
            f"- {origin['metric']} {origin['value']} on the validation data of its training, epoch {origin['epoch']}"
        )
    return ["## Origin\n\n" + "\n".join(lines) + "\n"] if lines else []


def classes(names: list[str]) -> list[str]:
    """The names of the classes, or of the first of them."""
    if not names:
        return []
    rest = f", and {len(names) - SHOWN} more (`config.json` has all)" if len(names) > SHOWN else ""
    return [f"## Classes\n\n{', '.join(names[:SHOWN])}{rest}\n"]
