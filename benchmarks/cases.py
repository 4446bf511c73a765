"""What is measured, as data: models, inputs, and who computes them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mvitv2 import create_model
from mvitv2.kernels import BACKENDS


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model on one batch."""

    name: str
    model: str
    shape: tuple[int, ...]
    """Of the batch: ``(B, C, H, W)`` or ``(B, C, T, H, W)``."""
    train: bool = False
    """Forward, loss and backward, or a forward without gradients."""
    timm: str | None = None
    """The same architecture in timm, where it has one."""


CASES = (
    Case(name="image-t", model="mvitv2_t", shape=(4, 3, 224, 224), timm="mvitv2_tiny"),
    Case(name="image-t-train", model="mvitv2_t", shape=(2, 3, 224, 224), train=True, timm="mvitv2_tiny"),
    Case(name="image-s", model="mvitv2_s", shape=(1, 3, 224, 224), timm="mvitv2_small"),
    Case(name="detection-t", model="mvitv2_t_det", shape=(1, 3, 320, 320)),
    Case(name="video-s", model="mvitv2_s_16x4", shape=(1, 3, 16, 224, 224)),
)


def contenders(case: Case, device: torch.device) -> dict[str, Callable[[], None]]:
    """Who computes a case: each of our backends, and timm; one call computes one batch."""
    x = torch.randn(case.shape, device=device)
    return {name: step(model.to(device), x, train=case.train) for name, model in models(case)}


def models(case: Case) -> Iterator[tuple[str, nn.Module]]:
    """Models with random weights: they take as long as trained ones."""
    for backend in BACKENDS:
        yield backend, create_model(case.model, backend=backend)
    if case.timm is not None:
        import timm

        yield "timm", timm.create_model(case.timm)


def step(model: nn.Module, x: Tensor, *, train: bool) -> Callable[[], None]:
    """A forward, or a training step without its optimiser."""
    model.train(train)

    def forward() -> None:
        with torch.inference_mode():
            model(x)

    def forward_and_backward() -> None:
        model.zero_grad()
        model(x).logsumexp(dim=-1).sum().backward()

    return forward_and_backward if train else forward
