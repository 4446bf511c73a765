"""What a run writes: checkpoints, the weights to use, and the plain files that say how it went."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from mvitv2.data.samples import Samples
from mvitv2.tasks.memory import device_gib, process_gib
from mvitv2.train import checkpoint
from mvitv2.train.adapters import write_adapters
from mvitv2.train.failures import CheckpointError, TrainingError
from mvitv2.train.folder import RECIPE, SUMMARY, MetricsLog, write_json, write_results, write_unreadable
from mvitv2.train.job import Job
from mvitv2.train.progress import Progress
from mvitv2.train.recipe import Recipe, differences
from mvitv2.train.settings import Settings
from mvitv2.train.state import TrainState
from mvitv2.train.stepping import NotFinite, Stepped

SPOKEN = 10
"""Unreadable files that are named while a run goes on; all of them are in ``unreadable.txt``."""


class Books:
    """The folder of a run that is under way.

    Args:
        job: Card and data.
        recipe: Saved beside the checkpoints.
        settings: Folder, how often to save and log.
        progress: Who is told.
        state: What is saved; taken over from the folder's checkpoint where there is one.
        per_epoch: Steps of an epoch.
    """

    def __init__(
        self, job: Job, recipe: Recipe, settings: Settings, *, progress: Progress, state: TrainState, per_epoch: int
    ):
        self.job, self.recipe, self.settings, self.progress = job, recipe, settings, progress
        self.folder, self.state, self.per_epoch = settings.output, state, per_epoch
        self.steps = recipe.epochs * per_epoch
        self.resume()
        self.saved_at, self.gaps = time.monotonic(), False
        self.log = MetricsLog(self.folder, step=state.step)

    def resume(self) -> None:
        """Take over the folder's checkpoint, if there is one and it may be.

        Raises:
            ValueError: ``settings.resume`` forbids what is there, or it is a run of another recipe or other data.
        """
        resume, found = self.settings.resume, checkpoint.load(self.folder)
        for note in found.notes if found else ():
            self.progress.say(f"warning: {note}")
        if found is None and resume == "must":
            raise ValueError(f"{self.folder} holds no checkpoint to go on from; check --output, or use --resume auto")
        if found is not None and resume == "never":
            raise ValueError(f"{self.folder} holds a run already; use --resume auto, or another --output")
        if found is None:
            write_json(self.folder / RECIPE, self.recipe.to_dict())
            return
        self.check(found.tree)
        self.state.take(found.tree)
        self.progress.say(f"going on from step {self.state.step} of {self.steps}")

    def check(self, tree: Mapping[str, Any]) -> None:
        """Refuse to go on with another recipe or other data; say which versions changed.

        Raises:
            ValueError: They differ; every difference is listed.
        """
        changed = differences(tree["recipe"], self.recipe.to_dict())
        data = {name: (tree["data"].get(name), now) for name, now in self.job.data.items()}
        changed += [f"data.{name}: {then!r} -> {now!r}" for name, (then, now) in data.items() if then != now]
        if changed:
            raise ValueError(
                f"{self.folder} holds a run that differs: {'; '.join(changed)}. Use the same, or another --output"
            )
        for name, now in checkpoint.versions().items():
            if (then := tree["versions"].get(name)) != now:
                self.progress.say(f"note: {name} was {then} and is {now}; the numbers may differ in the last bits")

    def save_if_due(self) -> None:
        """A checkpoint, if the last one is long enough ago."""
        every = self.settings.save_steps
        minutes = (time.monotonic() - self.saved_at) / 60
        if minutes >= self.settings.save_minutes or (every and self.state.step % every == 0):
            self.save(needed=False)

    def save(self, *, needed: bool) -> None:
        """A checkpoint now.

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
        tree = {**self.state.tree(steps_per_epoch=self.per_epoch), **json.loads(json.dumps(about))}
        try:
            checkpoint.save(self.folder, tree)
        except CheckpointError as error:
            if needed:
                raise
            self.progress.say(f"warning: {error}; the run goes on, and the checkpoint before stays")
        self.saved_at = time.monotonic()

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
        try:
            checkpoint.write_best(self.folder, state.kept, self.card())
            if self.recipe.adapters:
                write_adapters(self.folder, state.kept.state_dict(), state.model, self.card())
        except CheckpointError as error:
            if state.step >= self.steps:
                raise
            state.best = before
            self.progress.say(f"warning: {error}; the run goes on")

    def attempt(self, write: Callable[[], object]) -> None:
        """Write what the run can do without; where the disk is full, say so once and go on."""
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
        if self.state.step % self.settings.log_steps == 0:
            self.attempt(lambda: self.log.write(values))
        self.progress.step(values)

    def note_unreadable(self, batches: Sequence[Samples]) -> None:
        """Name training images that could not be read, each once.

        Raises:
            TrainingError: No image of the step could be read.
        """
        known = self.state.unreadable
        for item in (item for batch in batches for item in batch.unreadable):
            if item.path not in known:
                known[item.path] = item.reason
                if len(known) <= SPOKEN:
                    self.progress.say(f"unreadable, left out: {item.path}: {item.reason}")
        if not any(batch.num_samples for batch in batches):
            path, reason = next(iter(known.items()), ("", ""))
            raise TrainingError(f"no image of step {self.state.step + 1} can be read; for example {path}: {reason}")

    def not_finite(self, error: NotFinite, batches: Sequence[Samples], rate: float) -> TrainingError:
        """Save the step that gave no number, with the weights it started from, and say what to try."""
        path = self.folder / f"not-finite-step-{self.state.step + 1}.pt"
        batch = [b.saved() for b in batches]
        found = {"loss": error.loss, "grad_norm": error.norm, "lr": rate, "step": self.state.step + 1}
        torch.save({**found, "batches": batch, "model": self.state.model.state_dict()}, path)
        finite = all(b.finite() for b in batches)
        cause = "" if finite else " The images themselves hold values that are no numbers."
        return TrainingError(
            f"{error} in step {found['step']} at learning rate {rate:.3g}.{cause} Batch and weights are in {path}, "
            "the last checkpoint is older. Try a lower lr, a longer warm-up, clip_norm=1 or precision=bf16"
        )

    def summarise(self) -> None:
        """``summary.json``: the run in a few figures."""
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
