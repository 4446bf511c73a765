"""``python -m benchmarks.clips``: video files to batches for a model, decoded frames per second and core.

Each alone in one process on one thread, in turns: plain decoding with PyAV, our reader for the same frames, and data
sets that sample, crop and augment. A clip reaches over more frames than it takes, and a decoder must decode those
between, so that frames are counted as decoded: what every candidate is asked for is the span of a clip.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from mvitv2.data.labelled import Labelled
from mvitv2.data.video.clips import TrainingClips, ViewedClips, collate_clips
from mvitv2.data.video.files import ClipFiles
from mvitv2.data.video.reader import open_clip
from mvitv2.data.video.sampling import Sampling
from mvitv2.data.video.transforms import KINETICS_CLIPS, PLAIN_CLIPS, CropClip, EvalClip, TrainClip
from mvitv2.preprocessing import KINETICS

from .loading import Step, seeded_again
from .machine import describe
from .measure import CLOCKS, Timing, interleaved

ROOT = Path(__file__).parents[1]
CLIPS = ROOT.parent / "shared" / "data" / "clips" / "real"
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")


def plainly(paths: list[Path], spans: list[list[int]], *, pictures: bool) -> None:
    """PyAV alone: from the last key frame before the span to its end, all frames or only decoded ones."""
    import av

    for path, span in zip(paths, spans, strict=True):
        wanted = set(span)
        with av.open(str(path)) as container:
            stream: Any = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for number, frame in enumerate(container.decode(stream)):
                if pictures and number in wanted:
                    frame.to_ndarray(format="rgb24")
                if number >= span[-1]:
                    break


def carefully(paths: list[Path], spans: list[list[int]]) -> None:
    """Our reader: the frames of the span by their numbers."""
    for path, span in zip(paths, spans, strict=True):
        with open_clip(path) as clip:
            clip.frames(span)


def loaded(dataset: Any) -> int:
    """One pass over a data set."""
    return sum(len(batch.labels) for batch in DataLoader(dataset, 4, collate_fn=collate_clips))


def candidates(files: Labelled, paths: list[Path], sampling: Sampling) -> tuple[dict[str, Step], int]:
    """Everything that is compared, and how many frames each decodes at least: those of the first clip of every file."""
    spans = []
    for path in paths:
        with open_clip(path) as clip:
            info = clip.info
        size = min(info.frames, int(sampling.span(info.fps)))
        spans.append(sorted(set(sampling.views(size, info.fps)[0])))
    first = Sampling(sampling.num_frames, sampling.rate, sampling.fps)
    steps: dict[str, Step] = {
        "PyAV: decoded": partial(plainly, paths, spans, pictures=False),
        "PyAV: decoded, RGB": partial(plainly, paths, spans, pictures=True),
        "mvitv2: frames by number": partial(carefully, paths, spans),
        "mvitv2: evaluation": partial(loaded, ViewedClips(files, first, EvalClip(KINETICS))),
        "mvitv2: crops and flips": partial(loaded, TrainingClips(files, first, TrainClip(KINETICS, PLAIN_CLIPS))),
        "mvitv2: for the device": partial(loaded, TrainingClips(files, first, CropClip(KINETICS))),
        "mvitv2: RandAugment": partial(loaded, TrainingClips(files, first, TrainClip(KINETICS, KINETICS_CLIPS))),
        "mvitv2: RandAugment twice": partial(loaded, TrainingClips(files, first, TrainClip(KINETICS), repeats=2)),
    }
    return steps, sum(span[-1] + 1 for span in spans)


def table(timings: dict[str, Timing], clips: int, frames: int) -> Iterable[str]:
    """Clips and frames per second for a reader."""
    for name, timing in timings.items():
        yield f"  {name:28} {clips / timing.median:7.1f} clips/s {frames / timing.median:9.0f} frames/s"


def main(argv: list[str] | None = None) -> int:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clips", description=__doc__)
    parser.add_argument("--data", type=Path, default=CLIPS, help="a folder of clips, at any depth")
    parser.add_argument("--clips", type=int, default=16, help="of them (default: 16)")
    parser.add_argument("--rounds", type=int, default=3, help="times each is measured (default: 3)")
    parser.add_argument("--clock", choices=CLOCKS, default="cpu", help="cpu: the process's own time (default)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON file")
    arguments = parser.parse_args(argv)
    found = sorted(path for path in arguments.data.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        sys.stderr.write(f"nothing is measured: there are no clips in {arguments.data}; name some by --data\n")
        return 1
    torch.set_num_threads(1)
    paths = found[:: max(1, len(found) // arguments.clips)][: arguments.clips]
    names = [str(path.relative_to(arguments.data)) for path in paths]
    files = ClipFiles(arguments.data, names, ["0"] * len(names), classes=None)
    steps, frames = candidates(files, paths, Sampling.of(KINETICS))
    timings = interleaved(seeded_again(steps), rounds=arguments.rounds, clock=arguments.clock)
    told = f"{len(paths)} clips, spans of {frames} frames, one process, one thread"
    sys.stdout.write("\n".join([told, *table(timings, len(paths), frames), ""]))
    record = {
        "date": str(date.today()),
        "machine": describe(),
        "settings": {"clips": len(paths), "frames": frames, "clock": arguments.clock},
        "timings": {name: asdict(timing) for name, timing in timings.items()},
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{record['date']}-clips.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
