"""``mvitv2 predict``: names for pictures."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from mvitv2.cli.words import Maybe

EXAMPLES = """\
  mvitv2 predict runs/demo digit.png
  mvitv2 predict mvitv2_t cat.jpg --top-k 1                       # published weights, fetched once
  mvitv2 predict MViTv2_T_in1k.pyth photos/ "more/*.png" --format csv > answers.csv
  find . -name "*.jpg" | mvitv2 predict runs/photos - --format jsonl
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which model, which pictures, which answers."""

    model: Positional[str]
    """A weights file of any codebase, the folder of a run, or the name of a published model."""
    files: Annotated[Positional[tuple[str, ...]], arg(help_behavior_hint="(required)")]
    """Files, folders, patterns; - reads their names from standard input, one a line."""
    top_k: Annotated[int, arg(aliases=["-k"])] = 5
    """Classes per picture, likeliest first."""
    format: Literal["table", "json", "jsonl", "csv"] = "table"
    """A line of text, one JSON list, a JSON object a line, or comma-separated values."""
    batch_size: Annotated[int, arg(aliases=["-b"])] = 32
    """Pictures in one forward pass."""
    workers: Annotated[int, arg(aliases=["-j"])] = 2
    """Threads that read pictures."""
    img_size: Maybe[int] = None
    """Side in pixels, where it is not to be the model's own."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Numbers in the forward pass."""


def run(options: Options) -> int:
    """Print an answer for each picture as soon as there is one; 1 if there were pictures without an answer."""
    from mvitv2.cli.answers import WRITERS
    from mvitv2.cli.checkpoints import classifier
    from mvitv2.tasks.devices import device_named
    from mvitv2.tasks.prediction import predict, preprocessing_of

    device = device_named(options.device)
    model = classifier(options.model)
    preprocessing = preprocessing_of(model)
    answers = predict(
        model,
        names(options.files),
        top=options.top_k,
        batch_size=options.batch_size,
        workers=options.workers,
        device=device,
        precision=options.precision,
        preprocessing=preprocessing if options.img_size is None else preprocessing.at(options.img_size),
    )
    total = failed = 0
    for answer in WRITERS[options.format](answers, min(options.top_k, model.config.num_classes)):
        total += 1
        failed += answer.error is not None
    if failed:
        print(f"{failed} of {total} could not be predicted", file=sys.stderr)
    return 1 if failed else 0


def names(files: Iterable[str]) -> Iterator[str]:
    """What was named on the command line, and on standard input where ``-`` stands for it."""
    for name in files:
        if name == "-":
            yield from filter(None, (line.rstrip("\r\n") for line in sys.stdin))
        else:
            yield name
