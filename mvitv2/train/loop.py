"""The engine: steps, measures, checkpoints and signals, for any task that makes a :class:`~mvitv2.train.job.Job`.

Resuming is exact. The order of the images is a function of seed and step, their augmentation of seed, epoch and index,
and everything else that a step depends on is in the checkpoint, the random generators included.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

import torch

from mvitv2.data.samples import Samples
from mvitv2.data.watched import WorkerDied
from mvitv2.tasks.devices import own_device
from mvitv2.tasks.processes import Processes, joined, told_elsewhere
from mvitv2.tasks.workers import loading
from mvitv2.train.books import Books
from mvitv2.train.checkpoint import BEST
from mvitv2.train.failures import TrainingError, TrainingStopped, memory_explained
from mvitv2.train.folder import locked
from mvitv2.train.freezing import trained_of
from mvitv2.train.generators import deterministic, own_generators
from mvitv2.train.job import Job
from mvitv2.train.order import order_of
from mvitv2.train.patience import epochs_waited, exhausted
from mvitv2.train.prepare import prepare
from mvitv2.train.progress import Progress, silent
from mvitv2.train.progressive import Phase, phases
from mvitv2.train.recipe import Recipe
from mvitv2.train.resuming import found_run, take
from mvitv2.train.sampler import MicroBatches, steps_per_epoch
from mvitv2.train.schedule import schedule_of
from mvitv2.train.settings import Settings
from mvitv2.train.signals import StopRequest
from mvitv2.train.state import Sums, TrainState
from mvitv2.train.stepping import NotFinite, take_step


@dataclass(frozen=True)
class Outcome:
    """What a finished run leaves."""

    folder: Path
    weights: Path
    """The weights to use, with all that prediction needs."""
    best: dict[str, Any]
    """``value`` of the metric and ``epoch`` of those weights."""
    history: list[dict[str, Any]]
    """A row per epoch."""
    seconds: float
    """Spent in this process and in those it was resumed from."""
    steps: int
    unreadable: dict[str, str]
    """Reason by file, of training images that could not be read."""


def fit(job: Job, recipe: Recipe, settings: Settings, progress: Progress | None = None) -> Outcome:
    """Train a job to the end of its recipe, or go on where an earlier run of the same folder ended.

    Args:
        job: Model, data, objective and measures.
        recipe: What decides the numbers.
        settings: What does not.
        progress: Who is told; nobody if not given.

    Raises:
        FolderBusy: Another run works in the folder.
        ProcessLost: Another process of the run is gone or stuck.
        TrainingStopped: SIGTERM or Ctrl-C; the state is saved.
        TrainingError: The loss is no number, memory ran out, a loading process died, the disk is full.
        ValueError: The folder holds a run of another recipe or other data, or resuming is impossible as asked.
    """
    with ExitStack() as stack:
        processes = stack.enter_context(joined(settings.device, minutes=settings.timeout_minutes))
        device = own_device(settings.device, processes)
        exact = device.type == "cpu" if settings.deterministic is None else settings.deterministic
        teller = progress if progress is not None and processes.leads else silent()
        processes.led(lambda: stack.enter_context(locked(settings.output)))
        stack.enter_context(own_generators(recipe.seed))
        stack.enter_context(deterministic(exact))
        stack.enter_context(memory_explained(recipe, device))
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("high" if recipe.precision == "tf32" else "highest")
        stop = stack.enter_context(StopRequest())
        stack.callback(teller.close)
        job.model.to(device)
        prepare(job.model, recipe)
        if recipe.adapters or recipe.freeze:
            teller.say("{:,} of {:,} parameters are trained".format(*trained_of(job.model)))
        return Run(job, recipe, settings, teller, stop, processes).to_the_end()


class Run:
    """One process's part of a run: from a fresh start or a checkpoint to the end."""

    def __init__(
        self,
        job: Job,
        recipe: Recipe,
        settings: Settings,
        progress: Progress,
        stop: StopRequest,
        processes: Processes,
    ):
        self.job, self.recipe, self.settings, self.progress, self.stop = job, recipe, settings, progress, stop
        self.processes = processes
        found = found_run(job, recipe, settings, processes, progress.say)
        self.state = TrainState.fresh(
            job.model,
            recipe,
            parallel=settings.parallel,
            processes=processes,
            passes=found.tree["passes"] if found else 0,
        )
        size, batch = len(job.dataset), recipe.batch_size * self.state.passes
        self.per_epoch = steps_per_epoch(size, batch)
        self.schedule = schedule_of(recipe, steps_per_epoch=self.per_epoch, global_batch=min(batch, size))
        if found is not None:
            take(self.state, found, processes)
            progress.say(f"going on from step {self.state.step} of {self.schedule.steps}")
        self.books = Books(
            job,
            recipe,
            settings,
            progress=progress,
            state=self.state,
            processes=processes,
            per_epoch=self.per_epoch,
        )
        if recipe.compile:
            job.model.compile()

    def to_the_end(self) -> Outcome:
        """Step and measure until the recipe's epochs are done."""
        state, steps = self.state, self.schedule.steps
        self.progress.start(step=state.step, steps=steps, epochs=self.recipe.epochs)
        try:
            with ExitStack() as loaders:  # ends the loading processes now, not when the last reference is gone
                batches = self.batches(loaders)
                while True:
                    if state.step % self.per_epoch == 0 and state.measured < state.step // self.per_epoch:
                        self.measure()
                    if state.step >= steps or self.enough():
                        break
                    self.advance(batches)
        except WorkerDied as error:
            raise TrainingError(
                f"{error} (workers={self.settings.workers}). The last checkpoint is safe: the same command goes on "
                "from there"
            ) from error
        finally:
            self.books.close()
        self.processes.led(self.books.summarise)
        weights = self.settings.output / BEST
        return Outcome(self.settings.output, weights, state.best, state.history, state.seconds, steps, state.unreadable)

    def enough(self) -> bool:
        """Whether the run ends early, told once: it follows from the epochs alone, whenever it is asked."""
        history, metric = self.state.history, self.job.metric
        if not exhausted(history, metric, self.recipe.patience):
            return False
        waited = epochs_waited(history, metric)
        best = len(history) - waited
        self.progress.say(f"ended early: {metric} has not been better than in epoch {best} for {waited} epochs")
        return True

    def batches(self, loaders: ExitStack) -> Iterator[list[Samples | None]]:
        """The batches of every step that is left, one list of forward passes a step, as long in every process."""
        for phase in phases(self.recipe):
            if phase.last * self.per_epoch > self.state.step:
                loaders.close()
                yield from self.batches_of(phase, loaders)

    def batches_of(self, phase: Phase, loaders: ExitStack) -> Iterator[list[Samples | None]]:
        """The batches that are left of a phase, loaded by processes of its own."""
        state, end = self.state, phase.last * self.per_epoch
        first = max(state.step, phase.first * self.per_epoch)
        sampler = MicroBatches(
            order_of(self.job, self.recipe),
            batch_size=phase.batch_size,
            passes=state.passes * phase.accumulation // self.recipe.accumulation,
            first=first,
            steps=end,
            rank=self.processes.rank,
            count=self.processes.count,
        )
        dataset, pin = self.dataset_of(phase), next(state.model.parameters()).is_cuda
        stream = loading(dataset, sampler, self.job.collate, self.settings.workers, pin_memory=pin)
        source = loaders.enter_context(stream)
        idle = [None] * (sampler.most_passes() - sampler.own_passes())
        for _ in range(first, end):
            yield [*(next(source) for _ in range(sampler.own_passes())), *idle]

    def dataset_of(self, phase: Phase) -> Any:
        """The training samples in the size of a phase.

        Raises:
            ValueError: The job has them in one size only.
        """
        if phase.img_size == self.recipe.img_size:
            return self.job.dataset
        if self.job.dataset_at is None:
            raise ValueError(f"progressive={self.recipe.progressive}: task {self.recipe.task!r} has one size only")
        return self.job.dataset_at(phase.img_size)

    def advance(self, batches: Iterator[list[Samples | None]]) -> None:
        """One step, with what is written and said about it."""
        started = time.monotonic()
        passes = next(batches)
        waited = time.monotonic() - started
        self.books.note_unreadable(passes)
        state, rate = self.state, self.schedule(self.state.step)
        try:
            done = take_step(state, passes, self.job.objective, self.recipe, rate, processes=self.processes)
        except NotFinite as error:
            told = self.books.not_finite(error, passes, rate)
            raise (told if self.processes.leads else told_elsewhere(told)) from error
        seconds = time.monotonic() - started
        state.seconds += seconds
        state.sums.loss += done.loss * done.images
        state.sums.images += done.images
        state.sums.seconds += seconds
        self.books.tell(done, rate=rate, seconds=seconds, waited=waited)
        if self.stop_if_asked(due=self.books.is_due()):
            self.books.save(needed=False)

    def measure(self) -> None:
        """Measure the weights that an epoch ends with, and enter the epoch in the books."""
        state, job = self.state, self.job
        figures = dict(job.measure(state.kept, self.measuring))
        if state.average is not None:
            figures |= {f"raw_{name}": value for name, value in job.measure(state.model, self.measuring).items()}
        state.measured += 1
        sums, state.sums = state.sums, Sums()
        row = {
            "epoch": state.measured,
            "step": state.step,
            "lr": self.schedule(state.step - 1),
            "train_loss": sums.loss / max(sums.images, 1),
            **figures,
            "images_per_second": round(sums.images / max(sums.seconds, 1e-9), 2),
            "seconds": round(sums.seconds, 3),
        }
        self.books.enter(self.processes.sent(row, 0))
        if state.step < self.schedule.steps:
            self.stop_if_asked()

    def measuring(self, done: int, total: int) -> None:
        """Between batches of a measure: tell, and stop if asked to."""
        self.progress.evaluating(done, total)
        self.stop_if_asked()

    def stop_if_asked(self, *, due: bool = False) -> bool:
        """Save and leave, if a signal asked any process for it; the step that was under way is done.

        Args:
            due: Whether this process thinks that it is time for a checkpoint.

        Returns:
            Whether the first one does.

        Raises:
            TrainingStopped: A signal did.
        """
        table = self.processes.table([self.stop.number, due])
        number = int(max(asked for asked, _ in table))
        if not number:
            return bool(table[0][1])
        self.books.save(needed=True)
        where = f"after step {self.state.step} of {self.schedule.steps}; saved in {self.settings.output}"
        stopped = TrainingStopped(
            f"stopped by {Signals(number).name} {where}, the same command goes on from there", number
        )
        raise stopped if self.processes.leads else told_elsewhere(stopped)
