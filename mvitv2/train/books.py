"""What a run writes: checkpoints, the weights to use, and the plain files that say how it went."""

import functools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mvitv2.data.samples import Samples
from mvitv2.tasks.memory import device_gib, process_gib
from mvitv2.tasks.processes import Processes
from mvitv2.train import checkpoint, generators, resuming
from mvitv2.train.adapters import write_adapters
from mvitv2.train.failures import CheckpointError, TrainingError
from mvitv2.train.folder import RECIPE, SUMMARY, MetricsLog, write_json, write_results, write_unreadable
from mvitv2.train.job import Job
from mvitv2.train.mirror import mirror_of
from mvitv2.train.parallel import whole_state
from mvitv2.train.progress import Progress
from mvitv2.train.recipe import Recipe
from mvitv2.train.settings import Settings
from mvitv2.train.state import TrainState
from mvitv2.train.stepping import NotFinite, Stepped
from mvitv2.weights.load import backbone_in

SPOKEN = 10
"""Unreadable files that are named while a run goes on; all of them are in ``unreadable.txt``."""


class Books:
    """The folder of a run that is under way; of several processes, the first one writes and speaks.

    Args:
        job: Card and data.
        recipe: Saved beside the checkpoints.
        settings: Folder, how often to save and log.
        progress: Who is told.
        state: What is saved.
        processes: Those that train together.
        per_epoch: Steps of an epoch.
    """

    def __init__(
        self,
        job: Job,
        recipe: Recipe,
        settings: Settings,
        *,
        progress: Progress,
        state: TrainState,
        processes: Processes,
        per_epoch: int,
    ):
        self.job, self.recipe, self.settings, self.progress = job, recipe, settings, progress
        self.folder, self.state, self.processes, self.per_epoch = settings.output, state, processes, per_epoch
        self.steps = recipe.epochs * per_epoch
        self.saved_at, self.gaps = time.monotonic(), False
        self.log: MetricsLog | None = None
        self.mirror = mirror_of(settings.mirror)
        processes.led(self.open)

    def open(self) -> None:
        """The recipe of a run that begins; the log, without steps that will be taken again."""
        if self.state.step == 0:
            write_json(self.folder / RECIPE, self.recipe.to_dict())
        self.log = MetricsLog(self.folder, step=self.state.step)

    def close(self) -> None:
        """Close the log."""
        if self.log is not None:
            self.attempt(self.log.close)

    def is_due(self) -> bool:
        """Whether the last checkpoint is long enough ago; what the first process thinks counts."""
        every = self.settings.save_steps
        minutes = (time.monotonic() - self.saved_at) / 60
        return minutes >= self.settings.save_minutes or bool(every and self.state.step % every == 0)

    def save(self, *, needed: bool) -> None:
        """A checkpoint now; every process must call it.

        Args:
            needed: Fail if it cannot be written; otherwise say so and go on with the one that is there.

        Raises:
            CheckpointError: It cannot be written, and is needed.
        """
        about = {
            "recipe": self.recipe.to_dict(),
            "data": dict(self.job.data),
            "config": self.job.model.config.to_dict(),
            "versions": checkpoint.versions(),
        }
        # through JSON, so that nothing is in the file that reading with weights_only would refuse
        tree = {**self.state.plain(steps_per_epoch=self.per_epoch), **json.loads(json.dumps(about))}
        tree |= {"processes": self.processes.count, "generators": self.processes.gathered(generators.state())}
        try:
            resuming.save(self.settings, self.state, tree, self.processes)
            self.copy()
        except CheckpointError as error:
            if needed:
                raise
            self.progress.say(f"warning: {error}; the run goes on, and the checkpoint before stays")
        self.saved_at = time.monotonic()

    def copy(self) -> None:
        """The newest checkpoint and the results to the mirror, where there is one.

        Raises:
            CheckpointError: They cannot be copied.
        """
        mirror = self.mirror
        if mirror is not None:
            self.processes.led(lambda: mirror.push(self.folder, self.state.step))

    def enter(self, row: dict[str, Any]) -> None:
        """An epoch's row: kept, compared, written, saved."""
        state, metric = self.state, self.job.metric
        state.history.append(row)
        if self.recipe.select == "last" or not state.best or row[metric] > state.best["value"]:
            self.keep({"metric": metric, "value": row[metric], "epoch": row["epoch"]})
        self.attempt(lambda: write_results(self.folder, state.history))
        if state.unreadable:
            self.attempt(lambda: write_unreadable(self.folder, state.unreadable))
        self.save(needed=state.step >= self.steps)
        self.progress.epoch(row)

    def keep(self, best: dict[str, Any]) -> None:
        """Write the weights to use; where that fails before the last epoch, the next one tries again.

        Raises:
            CheckpointError: They cannot be written, and it is the last epoch.
        """
        state, before = self.state, self.state.best
        state.best = best
        weights, config = whole_state(state.kept), backbone_in(state.kept).config.to_dict()
        try:
            self.processes.led(lambda: self.write_weights(weights, config))
        except CheckpointError as error:
            if state.step >= self.steps:
                raise
            state.best = before
            self.progress.say(f"warning: {error}; the run goes on")

    def write_weights(self, weights: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
        """The weights to use, and the adapters alone where there are some."""
        checkpoint.write_best(self.folder, weights, config, self.card())
        if self.recipe.adapters:
            write_adapters(self.folder, weights, self.state.model, self.card())

    def attempt(self, write: Callable[[], object]) -> None:
        """Write what the run can do without; where the disk is full, say so once and go on."""
        if not self.processes.leads:
            return
        try:
            write()
        except OSError as error:
            if not self.gaps:
                self.progress.say(f"warning: {self.folder}: {error.strerror}; its logs have gaps from here on")
            self.gaps = True

    def card(self) -> dict[str, Any]:
        """What travels with the weights: that of the task, and where they come from."""
        provenance = {
            "trained_with": f"mvitv2 {checkpoint.versions()['mvitv2']}",
            "recipe": self.recipe.to_dict(),
            "data": dict(self.job.data),
            **self.state.best,
        }
        return {**self.job.card, "provenance": provenance}

    def tell(self, done: Stepped, *, rate: float, seconds: float, waited: float) -> None:
        """A step's figures to the log and to people."""
        values = {
            "step": self.state.step,
            "epoch": (self.state.step - 1) // self.per_epoch + 1,
            "loss": done.loss,
            "lr": rate,
            "grad_norm": done.norm,
            "images": done.images,
            "images_per_second": round(done.images / max(seconds, 1e-9), 2),
            "waited_for_data": round(waited / max(seconds, 1e-9), 4),
        }
        values["ram_gib"] = round(process_gib(), 2)
        if (most := device_gib(next(self.state.model.parameters()).device)) is not None:
            values["memory_gib"] = round(most, 2)
        if self.log is not None and self.state.step % self.settings.log_steps == 0:
            self.attempt(functools.partial(self.log.write, values))
        self.progress.step(values)

    def note_unreadable(self, passes: Sequence[Samples | None]) -> None:
        """Name training images that could not be read, each once.

        Raises:
            TrainingError: No image of the step could be read, by any process.
        """
        known, own = self.state.unreadable, [item for batch in passes if batch for item in batch.unreadable]
        readable = sum(batch.num_samples for batch in passes if batch)
        table = self.processes.table([len(own), readable])
        if any(missing for missing, _ in table):
            for item in (item for part in self.processes.gathered(own) for item in part):
                if item.path not in known:
                    known[item.path] = item.reason
                    if len(known) <= SPOKEN:
                        self.progress.say(f"unreadable, left out: {item.path}: {item.reason}")
        if not any(count for _, count in table):
            path, reason = next(iter(known.items()), ("", ""))
            raise TrainingError(f"no image of step {self.state.step + 1} can be read; for example {path}: {reason}")

    def not_finite(self, error: NotFinite, passes: Sequence[Samples | None], rate: float) -> TrainingError:
        """Save the step that gave no number, with the weights it started from, and say what to try."""
        path = self.folder / f"not-finite-step-{self.state.step + 1}.pt"
        parts = self.processes.gathered([(batch.saved(), batch.finite()) for batch in passes if batch])
        batches = [one for part in parts for one in part]
        model = whole_state(self.state.model)
        found = {"loss": error.loss, "grad_norm": error.norm, "lr": rate, "step": self.state.step + 1}
        if self.processes.leads:
            torch.save({**found, "batches": [saved for saved, _ in batches], "model": model}, path)
        finite = all(sound for _, sound in batches)
        cause = "" if finite else " The images themselves hold values that are no numbers."
        return TrainingError(
            f"{error} in step {found['step']} at learning rate {rate:.3g}.{cause} Batch and weights are in {path}, "
            "the last checkpoint is older. Try a lower lr, a longer warm-up, clip_norm=1 or precision=bf16"
        )

    def summarise(self) -> None:
        """``summary.json``: the run in a few figures, in the mirror too."""
        state, model = self.state, self.job.model
        summary = {
            "recipe": self.recipe.name,
            "model": self.recipe.model,
            "parameters": sum(p.numel() for p in model.parameters()),
            "epochs": state.measured,
            "steps": state.step,
            "seconds": round(state.seconds, 2),
            "best": state.best,
            "last": state.history[-1],
            "unreadable_images": len(state.unreadable),
            "data": dict(self.job.data),
            "versions": checkpoint.versions(),
        }
        write_json(self.folder / SUMMARY, summary)
        if self.mirror is not None:
            self.mirror.push(self.folder, state.step)
