"""``mvitv2 features``: what a model sees of pictures and clips, as numbers."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from mvitv2.cli.words import Maybe

EXAMPLES = """\
  mvitv2 features runs/photos photos/ --output photos.npy       # photos.npy, and photos.jsonl with the file of each row
  mvitv2 features mvitv2_t photos/ --output photos.parquet --normalise
  mvitv2 features mvitv2_t photos/ --layer stage3 --output maps.npz
  mvitv2 features runs/clips clips/val --output clips.npy --seconds            # a row for each second: FILE#t=12
  find . -name "*.jpg" | mvitv2 features runs/photos - --output all.npy --resume
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which model, which pictures, which layer, and where the numbers go."""

    model: Positional[str]
    """A weights file of any codebase, the folder of a run, or the name of a published model."""
    files: Annotated[Positional[tuple[str, ...]], arg(help_behavior_hint="(required)")]
    """Files, folders, patterns; - reads their names from standard input, one a line."""
    output: Annotated[Path, arg(help_behavior_hint="(default: features.npy)")] = Path("features.npy")
    """File of the numbers: .npy (names beside it in .jsonl), .npz (names inside), or a folder .parquet."""
    resume: bool = False
    """Go on with that file: what is in it is not read again."""
    layer: Literal["pooled", "map", "stage1", "stage2", "stage3", "stage4"] = "pooled"
    """pooled: a vector, as the classifier sees it; map: the last tokens on their grid; stageN: those of a stage."""
    average: bool = False
    """Of a map, the mean over its places."""
    normalise: bool = False
    """Vectors of length 1."""
    batch_size: Annotated[int, arg(aliases=["-b"])] = 32
    """Pictures in one forward pass."""
    workers: Annotated[int, arg(aliases=["-j"])] = 2
    """Threads that read pictures."""
    img_size: Maybe[tuple[int, ...]] = None
    """Side in pixels, or height and width, where it is not to be the model's own."""
    crop_pct: Maybe[float] = None
    """Part of the resized picture that the crop is, where it is not to be the model's own."""
    num_frames: Maybe[int] = None
    """Frames of a clip, where they are not to be the model's own."""
    seconds: bool = False
    """Of clips: a vector for each second."""
    step: float = 1.0
    """Of clips: seconds from one window to the next."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Numbers in the forward pass."""


def run(options: Options) -> int:
    """Write a row for each picture; 1 if there were pictures without one."""
    from mvitv2.cli.checkpoints import classifier
    from mvitv2.cli.clips import clip_rows, refuse_clip_options
    from mvitv2.cli.pictures import Count, kept, names, resized
    from mvitv2.tasks.devices import device_named
    from mvitv2.tasks.feature_files import as_record, feature_records
    from mvitv2.tasks.features import features
    from mvitv2.tasks.prediction import preprocessing_of

    device = device_named(options.device)
    model = classifier(options.model)
    clips = model.config.rank == len("thw")
    if not clips:
        refuse_clip_options({"num_frames": options.num_frames, "seconds": options.seconds})
    with kept(feature_records(options.output, resume=options.resume)) as (records, done):
        found = (
            clip_rows(options, model, done.__contains__)
            if clips
            else features(
                model,
                names(options.files),
                layer=options.layer,
                average=options.average,
                normalise=options.normalise,
                batch_size=options.batch_size,
                workers=options.workers,
                device=device,
                precision=options.precision,
                preprocessing=resized(preprocessing_of(model, classifier=False), options.img_size, options.crop_pct),
                skip=done.__contains__,
            )
        )
        with Count(done, options.output) as count:
            for one in found:
                records.write(as_record(one))
                count.add(one.file, one.error)
    print(count.told("without features"), file=sys.stderr)
    return 1 if count.failed else 0
