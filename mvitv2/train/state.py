"""All that changes while a model is trained, in one place, to a tree of tensors and plain data and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from mvitv2.core.model import MViT
from mvitv2.tasks.processes import ALONE, Processes
from mvitv2.train import generators
from mvitv2.train.average import Average
from mvitv2.train.optim import optimizer_of
from mvitv2.train.parallel import Called, called, is_sharded, sharded
from mvitv2.train.recipe import Recipe


@dataclass
class Sums:
    """What adds up over the steps of an epoch."""

    loss: float = 0.0
    images: int = 0
    seconds: float = 0.0


@dataclass
class TrainState:
    """Weights, optimiser and where the run stands."""

    model: MViT
    called: Called
    """What a forward pass of training calls: ``model``, or what stands before it where several processes train it."""
    average: Average | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    passes: int
    """Forward passes of a step, of all processes together; a run keeps them, however many processes go on with it."""
    step: int = 0
    """Steps done."""
    measured: int = 0
    """Epochs that have a row in ``history``."""
    seconds: float = 0.0
    sums: Sums = field(default_factory=Sums)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    """``value`` of the metric and ``epoch`` of the weights that are kept; empty before the first measure."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Reason by file, of training images that could not be read."""

    @classmethod
    def fresh(
        cls, model: MViT, recipe: Recipe, *, parallel: str = "ddp", processes: Processes = ALONE, passes: int = 0
    ) -> "TrainState":
        """The state before the first step.

        Args:
            model: On its device.
            recipe: Optimiser, average, precision.
            parallel: How processes share the model, ``"ddp"`` or ``"fsdp"``.
            processes: Those that train it.
            passes: Forward passes of a step, where a run is resumed; 0 for those of the recipe in every process.
        """
        device = next(model.parameters()).device
        average = None if recipe.ema_decay is None else Average(model, recipe.ema_decay)
        front = called(model, parallel, processes)
        if average is not None and is_sharded(model):
            sharded(average.model)
        return cls(
            model=model,
            called=front,
            average=average,
            optimizer=optimizer_of(model, recipe),
            scaler=torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16"),
            passes=passes or recipe.accumulation * processes.count,
        )

    @property
    def kept(self) -> MViT:
        """The weights that count: the average where there is one."""
        return self.model if self.average is None else self.average.model

    def plain(self, *, steps_per_epoch: int) -> dict[str, Any]:
        """All but the weights and what goes with them; ``epoch`` and ``batch`` repeat ``step`` for those who read."""
        return {
            "step": self.step,
            "epoch": self.step // steps_per_epoch,
            "batch": self.step % steps_per_epoch,
            "passes": self.passes,
            "measured": self.measured,
            "seconds": self.seconds,
            "sums": vars(self.sums).copy(),
            **json.loads(json.dumps({"history": self.history, "best": self.best, "unreadable": self.unreadable})),
            "average_updates": 0 if self.average is None else self.average.updates,
            "scaler": self.scaler.state_dict(),
        }

    def weights(self) -> dict[str, Any]:
        """Weights, average and optimiser, as this process has them."""
        return {
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def take(self, tree: Mapping[str, Any], *, rank: int = 0) -> None:
        """Become what :meth:`plain` was taken of, with the generators of the process of that rank, where there was one.

        Args:
            tree: With ``generators``, a list by rank; with :meth:`weights`, where they are in the same file.
            rank: Of this process.
        """
        if "model" in tree:
            self.model.load_state_dict(tree["model"])
            if self.average is not None:
                self.average.model.load_state_dict(tree["average"])
            self.optimizer.load_state_dict(tree["optimizer"])
        if self.average is not None:
            self.average.updates = tree["average_updates"]
        self.scaler.load_state_dict(tree["scaler"])
        for name in ("step", "passes", "measured", "seconds", "history", "best", "unreadable"):
            setattr(self, name, tree[name])
        self.sums = Sums(**tree["sums"])
        if rank < len(tree["generators"]):
            generators.restore(tree["generators"][rank])
