"""Finding a run to go on with: the newest whole checkpoint of a folder, if it is of the same run."""

from collections.abc import Callable, Mapping
from typing import Any

from mvitv2.tasks.processes import Processes
from mvitv2.train import checkpoint, shards
from mvitv2.train.checkpoint import Loaded
from mvitv2.train.job import Job
from mvitv2.train.mirror import mirror_of
from mvitv2.train.parallel import is_sharded
from mvitv2.train.recipe import Recipe, differences
from mvitv2.train.settings import Settings
from mvitv2.train.state import TrainState

Say = Callable[[str], None]


def found_run(job: Job, recipe: Recipe, settings: Settings, processes: Processes, say: Say) -> Loaded | None:
    """The checkpoint to go on from; ``None`` for a fresh start.

    Raises:
        ValueError: ``settings.resume`` forbids what is there, or it is a run of another recipe or other data, or
            processes differ in what they are given.
    """
    agree(job, recipe, processes)
    folder, resume, mirror = settings.output, settings.resume, mirror_of(settings.mirror)
    if mirror is not None and processes.led(lambda: mirror.pull(folder)):
        say(f"fetched a run from {settings.mirror}")
    sharded = processes.led(lambda: shards.is_there(folder))
    found = shards.load(folder, processes) if sharded else processes.led(lambda: checkpoint.load(folder))
    for note in found.notes if found else ():
        say(f"warning: {note}")
    if found is None and resume == "must":
        raise ValueError(f"{folder} holds no checkpoint to go on from; check --output, or use --resume auto")
    if found is not None and resume == "never":
        raise ValueError(f"{folder} holds a run already; use --resume auto, or another --output")
    if found is not None:
        check(found.tree, job, recipe, settings, processes, say)
    return found


def agree(job: Job, recipe: Recipe, processes: Processes) -> None:
    """Refuse to train where processes were given different things.

    Raises:
        ValueError: They were.
    """
    given = processes.gathered((recipe.to_dict(), dict(job.data)))
    for rank, (other, data) in enumerate(given):
        changed = [*differences(given[0][0], other), *_changed_data(given[0][1], data)]
        if changed:
            raise ValueError(f"process {rank} was given something else than process 0: {'; '.join(changed)}")


def _changed_data(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [f"data.{n}: {before.get(n)!r} -> {now!r}" for n, now in after.items() if before.get(n) != now]


def check(
    tree: Mapping[str, Any], job: Job, recipe: Recipe, settings: Settings, processes: Processes, say: Say
) -> None:
    """Refuse to go on with another recipe or other data; say which versions changed, and how many processes go on.

    A run keeps the forward passes of its steps: more or fewer processes share the same.

    Raises:
        ValueError: They differ; every difference is listed.
    """
    then, now, passes = dict(tree["recipe"]), recipe.to_dict(), tree["passes"]
    if recipe.accumulation * processes.count == passes and not recipe.progressive_batch:
        then["accumulation"] = recipe.accumulation
    changed = [*differences(then, now), *_changed_data(tree["data"], job.data)]
    if changed:
        raise ValueError(
            f"{settings.output} holds a run that differs: {'; '.join(changed)}. Use the same, or another --output"
        )
    if tree["processes"] != processes.count:
        say(
            f"note: {tree['processes']} processes worked on this run and now {processes.count} go on; "
            f"a step still has {passes} forward passes, {passes * recipe.batch_size} images"
        )
    for name, version in checkpoint.versions().items():
        if (before := tree["versions"].get(name)) != version:
            say(f"note: {name} was {before} and is {version}; the numbers may differ in the last bits")


def take(state: TrainState, found: Loaded, processes: Processes) -> None:
    """Let a fresh state become the one that was saved, in whichever way it was."""
    if found.shards is not None:
        shards.fill(state, found.shards)
        state.take(found.tree, rank=processes.rank)
    elif is_sharded(state.model):
        shards.take_whole(state, found.tree)
        plain = {name: value for name, value in found.tree.items() if name != "model"}
        state.take(plain, rank=processes.rank)
    else:
        state.take(found.tree, rank=processes.rank)


def save(settings: Settings, state: TrainState, about: Mapping[str, Any], processes: Processes) -> None:
    """A checkpoint, in one file or in parts; those of the other kind are then of the past.

    Raises:
        CheckpointError: It cannot be written, in every process.
    """
    folder = settings.output
    if is_sharded(state.model):
        shards.save(folder, state, about, processes)
        processes.led(lambda: checkpoint.remove(folder))
    else:
        processes.led(lambda: checkpoint.save(folder, {**about, **state.weights()}))
        processes.led(lambda: shards.remove(folder))
