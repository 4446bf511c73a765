"""Checkpoints that every process writes its part of, by ``torch.distributed.checkpoint``: a folder per step.

A folder gets its name when all of it is on the disk, with a list of its files and their checksums; ``latest`` then
names it. A part of one step is therefore never read together with a part of another.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvitv2.tasks.processes import Processes
from mvitv2.train import checkpoint
from mvitv2.train.checkpoint import Loaded
from mvitv2.train.failures import CheckpointError
from mvitv2.train.state import TrainState
from mvitv2.weights.files import replacing

FOLDER, LATEST, LIST, PLAIN = "checkpoints", "latest", "files.json", "plain.pt"
KEPT = 2
"""Steps that are kept: the last and the one before."""


def save(folder: Path, state: TrainState, plain: Mapping[str, Any], processes: Processes) -> None:
    """Write a step's folder; every process must call it.

    Raises:
        CheckpointError: It cannot be written; what was there still is.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_saver import save as save_parts

    target = folder / FOLDER / f"step-{state.step:08d}"
    temporary = target.with_name(f".{target.name}.tmp")
    processes.led(lambda: _emptied(temporary))
    try:
        save_parts(_tensors(state), checkpoint_id=temporary)
    except (CheckpointException, OSError) as error:
        processes.led(lambda: shutil.rmtree(temporary, ignore_errors=True))
        raise checkpoint.unwritten(target, error) from error
    sums = processes.gathered(_checksums(temporary, own=f"__{processes.rank}_"))
    processes.led(lambda: _finish(temporary, target, plain, {name: one for part in sums for name, one in part.items()}))


def _emptied(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def _finish(temporary: Path, target: Path, plain: Mapping[str, Any], sums: dict[str, str]) -> None:
    """Add what is no tensor, name the folder, point to it, and remove those before the one before."""
    try:
        checkpoint.write(temporary / PLAIN, plain)
        sums |= _checksums(temporary, own=PLAIN) | _checksums(temporary, own=".metadata")
        (temporary / LIST).write_text(json.dumps(sums, indent=2), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        with replacing(target.parent / LATEST) as pointer:
            pointer.write_text(target.name + "\n", encoding="utf-8")
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise checkpoint.unwritten(target, error) from error
    for old in _steps(target.parent)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _steps(folder: Path) -> list[Path]:
    """Finished folders, the newest first."""
    return sorted(folder.glob("step-????????"), reverse=True)


def _checksums(folder: Path, *, own: str) -> dict[str, str]:
    """Of every file whose name starts so."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(own):
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "blake2b").hexdigest()
    return found


def load(folder: Path, processes: Processes) -> Loaded | None:
    """The newest folder of a run that is whole, without its tensors; :func:`fill` reads those.

    Raises:
        CheckpointError: There are some, and none is whole.
    """
    notes: list[str] = []
    steps = processes.led(lambda: _steps(folder / FOLDER))
    for path in steps:
        wrong = [name for part in processes.gathered(_damaged(path, processes)) for name in part]
        if not wrong:
            plain = processes.led(lambda: checkpoint.read(path / PLAIN))  # noqa: B023  called at once
            if notes:
                notes.append(f"going on from {path.name}")
            return Loaded(plain, tuple(notes), shards=path)
        aside = processes.led(lambda: _put_aside(path))  # noqa: B023
        notes.append(f"{path} is damaged in {', '.join(wrong)}; it is now {aside.name}")
    if notes:
        raise CheckpointError(f"no checkpoint in {folder} can be read: {'; '.join(notes)}")
    return None


def _put_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    return path.rename(aside)


def _damaged(path: Path, processes: Processes) -> list[str]:
    """Files of this process's share that are not what the list says."""
    try:
        names = json.loads((path / LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [LIST] if processes.leads else []
    mine = dict(sorted(names.items())[processes.rank :: processes.count])
    return [n for n, told in mine.items() if not (path / n).is_file() or _checksums(path, own=n).get(n) != told]


def fill(state: TrainState, path: Path) -> None:
    """Read the tensors of a folder into a state; however many processes wrote it, and however many read."""
    from torch.distributed.checkpoint.state_dict import set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load as load_parts

    tree = _tensors(state)
    load_parts(tree, checkpoint_id=path)
    set_state_dict(state.model, state.optimizer, model_state_dict=tree["model"], optim_state_dict=tree["optimizer"])
    if state.average is not None:
        state.average.model.load_state_dict(tree["average"])


def take_whole(state: TrainState, tree: Mapping[str, Any]) -> None:
    """Give each process its part of what a run that was not sharded had saved."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        set_model_state_dict,
        set_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(state.model, tree["model"], options=options)
    if state.average is not None:
        set_model_state_dict(state.average.model, tree["average"], options=options)
    set_optimizer_state_dict(state.model, state.optimizer, _named(state, tree["optimizer"]), options=options)


def _named(state: TrainState, saved: Mapping[str, Any]) -> dict[str, Any]:
    """The state of an optimiser by names of parameters, where it is by their numbers."""
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    ours = [names[id(p)] for group in state.optimizer.param_groups for p in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    by_number = dict(zip(numbers, ours, strict=True))
    groups = [{**group, "params": [by_number[n] for n in group["params"]]} for group in saved["param_groups"]]
    return {"state": {by_number[n]: values for n, values in saved["state"].items()}, "param_groups": groups}


def _tensors(state: TrainState) -> dict[str, Any]:
    """The weights, average and optimiser by names of parameters, each process's part."""
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model, optimizer = get_state_dict(state.model, state.optimizer)
    average = {} if state.average is None else {"average": state.average.model.state_dict()}
    return {"model": model, "optimizer": optimizer, **average}


def is_there(folder: Path) -> bool:
    """Whether a run has left such checkpoints."""
    return bool(_steps(folder / FOLDER))


def remove(folder: Path) -> None:
    """Remove all of them: the run goes on with checkpoints in one file."""
    there = folder / FOLDER
    if there.exists():
        # away in one go, so that nobody ever finds a part of them
        shutil.rmtree(there.rename(there.with_name(f".{FOLDER}.old")), ignore_errors=True)
