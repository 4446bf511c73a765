"""What is measured, as data, and the models that take part."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mvitv2.extras import MissingExtra, required
from mvitv2.kernels import BACKENDS, cpp, optimize_for_inference
from mvitv2.models import create_model


@dataclass(frozen=True)
class Case:
    """One setting; every candidate runs it in the same process, turn by turn."""

    variant: str
    batch: int
    shape: tuple[int, ...]
    """Of one input: ``(C, H, W)`` or ``(C, T, H, W)``."""
    dtype: str = "float32"
    trains: bool = False

    @property
    def name(self) -> str:
        """A line of the table."""
        size = "x".join(map(str, self.shape[1:]))
        return f"{self.variant} {size} batch {self.batch} {self.dtype} {'training' if self.trains else 'inference'}"


QUICK = (
    Case("mvitv2_t", 1, (3, 224, 224)),
    Case("mvitv2_t", 1, (3, 224, 224), dtype="bfloat16"),
)
FULL = (
    *(Case("mvitv2_s", b, (3, 224, 224), dtype=d) for d in ("float32", "bfloat16") for b in (1, 8)),
    Case("mvitv2_s", 4, (3, 224, 224), trains=True),
    Case("mvitv2_s", 4, (3, 224, 224), dtype="bfloat16", trains=True),
    Case("mvitv2_s_16x4", 1, (3, 16, 224, 224)),
    Case("mvitv2_s_16x4", 1, (3, 16, 224, 224), dtype="bfloat16"),
)
SETS = {"quick": QUICK, "full": FULL}
TIMM = {"mvitv2_t": "mvitv2_tiny", "mvitv2_s": "mvitv2_small", "mvitv2_b": "mvitv2_base", "mvitv2_l": "mvitv2_large"}
TORCHVISION = {"mvitv2_s_16x4": "mvit_v2_s"}
Step = Callable[[], object]


def candidates(case: Case) -> dict[str, nn.Module]:
    """Our backends, and every peer that has the model and is installed; speed does not depend on weights."""
    models: dict[str, nn.Module] = {}
    for backend in BACKENDS:
        if backend != "cpp" or cpp.available():
            models[f"mvitv2 {backend}"] = create_model(case.variant, backend=backend)
    if not case.trains:
        models["mvitv2 optimized"] = optimize_for_inference(create_model(case.variant))
    for library, names in (("timm", TIMM), ("torchvision.models", TORCHVISION)):
        if case.variant in names:
            try:
                models[library.partition(".")[0]] = _peer(library, names[case.variant])
            except MissingExtra:
                continue
    return models


def _peer(library: str, name: str) -> nn.Module:
    module = required(library, extra="train")
    return module.create_model(name) if library == "timm" else module.get_model(name)


def step_of(case: Case, model: nn.Module, device: str) -> Step:
    """One inference, or one forward and backward pass."""
    dtype = getattr(torch, case.dtype)
    model = model.to(device=device)
    pixels = torch.randn(case.batch, *case.shape, device=device)
    if case.trains:
        model.train()
        return lambda: _train(model, pixels, dtype)
    model.to(dtype).eval()
    pixels = pixels.to(dtype)
    return lambda: _infer(model, pixels)


def _infer(model: nn.Module, pixels: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(pixels)


def _train(model: nn.Module, pixels: Tensor, dtype: torch.dtype) -> None:
    model.zero_grad(set_to_none=True)
    with torch.autocast(pixels.device.type, dtype, enabled=dtype != torch.float32):
        loss = model(pixels).float().square().mean()
    loss.backward()
