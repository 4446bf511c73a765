"""All that changes while a model is trained, in one place, to a tree of tensors and plain data and back."""

import json
from dataclasses import dataclass, field
from typing import Any

import torch

from mvitv2.core.model import MViT
from mvitv2.train import generators
from mvitv2.train.average import Average
from mvitv2.train.optim import optimizer_of
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
    average: Average | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
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
    def fresh(cls, model: MViT, recipe: Recipe) -> "TrainState":
        """The state before the first step."""
        device = next(model.parameters()).device
        return cls(
            model=model,
            average=None if recipe.ema_decay is None else Average(model, recipe.ema_decay),
            optimizer=optimizer_of(model, recipe),
            scaler=torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16"),
        )

    @property
    def kept(self) -> MViT:
        """The weights that count: the average where there is one."""
        return self.model if self.average is None else self.average.model

    def tree(self, *, steps_per_epoch: int) -> dict[str, Any]:
        """Everything, for a checkpoint; ``epoch`` and ``batch`` repeat ``step`` for those who read one."""
        return {
            "step": self.step,
            "epoch": self.step // steps_per_epoch,
            "batch": self.step % steps_per_epoch,
            "measured": self.measured,
            "seconds": self.seconds,
            "sums": vars(self.sums).copy(),
            **json.loads(json.dumps({"history": self.history, "best": self.best, "unreadable": self.unreadable})),
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.model.state_dict(),
            "average_updates": 0 if self.average is None else self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generators": generators.state(),
        }

    def take(self, tree: dict[str, Any]) -> None:
        """Become what :meth:`tree` was taken of; the generators as well."""
        self.model.load_state_dict(tree["model"])
        if self.average is not None:
            self.average.model.load_state_dict(tree["average"])
            self.average.updates = tree["average_updates"]
        self.optimizer.load_state_dict(tree["optimizer"])
        self.scaler.load_state_dict(tree["scaler"])
        for name in ("step", "measured", "seconds", "history", "best", "unreadable"):
            setattr(self, name, tree[name])
        self.sums = Sums(**tree["sums"])
        generators.restore(tree["generators"])
