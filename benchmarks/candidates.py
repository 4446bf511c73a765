"""Who takes part: our backends, and every peer that has the model; what cannot take part says why."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from mvitv2.extras import MissingExtra, required
from mvitv2.kernels import BACKENDS, Graphed, optimize_for_inference, runs_here
from mvitv2.models import create_model

from .cases import HIERA, PYTORCHVIDEO, TIMM, TORCHVISION, Case

Step = Callable[[], object]
PEERS = (("timm", TIMM), ("torchvision", TORCHVISION), ("pytorchvideo", PYTORCHVIDEO))


@dataclass(frozen=True)
class Candidate:
    """One line of a table.

    Attributes:
        name: As the reader sees it.
        kind: ``"ours"``, ``"peer"``, or ``"context"`` for another architecture.
        step: Makes what is timed, for a device.
    """

    name: str
    kind: str
    step: Callable[[str], Step]


class Unfit(Exception):
    """A candidate cannot run a case; the message says why."""


def candidates(case: Case) -> list[Candidate]:
    """Everybody who might run a case; making the step of one may raise :class:`Unfit`."""
    ours = [Candidate(f"mvitv2 {name}", "ours", partial(_backend, case, name, False)) for name in BACKENDS]
    ours.append(Candidate("mvitv2 auto, compiled", "ours", partial(_backend, case, "auto", True)))
    if not case.trains and case.dtype != "autocast":
        ours.append(Candidate("mvitv2 optimized", "ours", partial(_optimized, case)))
        ours.append(Candidate("mvitv2 auto, CUDA graph", "ours", partial(_graphed, case)))
    if case.by_windows:
        return ours
    peers: list[Candidate] = []
    for library, names in PEERS:
        if case.variant in names:
            for compiled in (False, True):
                name = f"{library}, compiled" if compiled else library
                peers.append(Candidate(name, "peer", partial(_peer, case, library, names[case.variant], compiled)))
    if not case.trains and case.dtype != "autocast":
        peers += [
            Candidate(n, "peer", partial(run, case)) for n, run in (("OpenVINO", _openvino), ("ONNX Runtime", _onnx))
        ]
    if case.variant in HIERA:
        peers.append(Candidate("Hiera (timm)", "context", partial(_peer, case, "timm", HIERA[case.variant], False)))
    return [*ours, *peers]


def _model(case: Case, backend: str) -> nn.Module:
    changes: dict[str, Any] = {"img_size": case.shape[-1]} if case.shape[-2] == case.shape[-1] else {}
    if case.by_windows:
        changes["num_classes"] = 0
    return create_model(case.variant, backend=backend, **changes)


def _backend(case: Case, name: str, compiled: bool, device: str) -> Step:
    reason = runs_here(name)
    if reason is None and name == "triton" and device != "cuda":
        reason = "Triton's kernels run on CUDA devices"
    if reason is None and name == "cpp" and device != "cpu":
        reason = "the C++ operators run on CPUs"
    if reason:
        raise Unfit(reason)
    return eager(case, _model(case, name), device, compiled=compiled)


def _optimized(case: Case, device: str) -> Step:
    if device != "cpu":
        raise Unfit("packed weights are for CPUs")
    return eager(case, optimize_for_inference(_model(case, "auto").eval(), dtype=dtype_of(case)), device)


def _graphed(case: Case, device: str) -> Step:
    if device != "cuda":
        raise Unfit("CUDA graphs need a CUDA device")
    model = _model(case, "auto").to(device, dtype_of(case)).eval()
    pixels = torch.randn(case.batch, *case.shape, device=device, dtype=dtype_of(case))
    graphed = Graphed(model, pixels)
    return lambda: graphed(pixels)


def peer(library: str, name: str, case: Case) -> nn.Module:
    """A peer's model with random weights: speed does not depend on them.

    Raises:
        Unfit: The library is not installed.
    """
    if library == "pytorchvideo":
        return _of_pytorchvideo(name)
    try:
        module: Any = required("torchvision.models" if library == "torchvision" else library, extra="train")
    except MissingExtra as error:
        raise Unfit(str(error)) from error
    if library == "timm":
        return module.create_model(name)
    return module.get_model(name)


def _of_pytorchvideo(name: str) -> nn.Module:
    """A model of a library that no extra brings: its last release is of 2022, and half of it fails to import.

    Raises:
        Unfit: It is not installed.
    """
    try:
        hub: Any = import_module("pytorchvideo.models.hub.vision_transformers")
    except ImportError as error:
        raise Unfit(f"pytorchvideo cannot be imported ({error}); pip install pytorchvideo") from error
    return getattr(hub, name)(pretrained=False)


def _peer(case: Case, library: str, name: str, compiled: bool, device: str) -> Step:
    return eager(case, peer(library, name, case), device, compiled=compiled)


def dtype_of(case: Case) -> torch.dtype:
    """What weights and inputs are kept in."""
    return torch.bfloat16 if case.dtype == "bfloat16" else torch.float32


def eager(case: Case, model: nn.Module, device: str, *, compiled: bool = False) -> Step:
    """One inference, or one forward and backward pass."""
    model = model.to(device=device, dtype=dtype_of(case)).train(case.trains)
    pixels = torch.randn(case.batch, *case.shape, device=device, dtype=dtype_of(case))
    called: Any = torch.compile(model) if compiled else model
    autocast = partial(torch.autocast, device, torch.bfloat16, enabled=case.dtype == "autocast")
    if case.trains:
        return partial(_train, model, called, pixels, autocast)
    return partial(_infer, called, pixels, autocast)


def _infer(model: nn.Module, pixels: Tensor, autocast: Callable[[], Any]) -> Any:
    with torch.inference_mode(), autocast():
        return model(pixels)


def _train(model: nn.Module, called: nn.Module, pixels: Tensor, autocast: Callable[[], Any]) -> None:
    model.zero_grad(set_to_none=True)
    with autocast():
        loss = called(pixels).float().square().mean()
    loss.backward()


def source(case: Case) -> nn.Module:
    """The peers' model that engines convert, in float32 and eval mode."""
    for library, names in PEERS:
        if case.variant in names:
            return peer(library, names[case.variant], case).eval()
    raise Unfit(f"no peer has {case.variant}")


def _openvino(case: Case, device: str) -> Step:
    if device != "cpu":
        raise Unfit("OpenVINO runs on CPUs here")
    try:
        engine: Any = required("openvino", extra="bench")
    except MissingExtra as error:
        raise Unfit(str(error)) from error
    pixels = torch.randn(case.batch, *case.shape)
    model = engine.convert_model(source(case), example_input=pixels, input=[list(pixels.shape)])
    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if case.dtype == "bfloat16" else "f32",  # else it takes bfloat16 in silence
    }
    compiled, given = engine.compile_model(model, "CPU", options), pixels.numpy()
    request = compiled.create_infer_request()
    return lambda: request.infer({0: given})


def _onnx(case: Case, device: str) -> Step:
    if device != "cpu":
        raise Unfit("ONNX Runtime runs on CPUs here")
    if case.dtype != "float32":
        raise Unfit("ONNX Runtime's CPU kernels have no bfloat16")
    try:
        engine: Any = required("onnxruntime", extra="export")
        required("onnxscript", extra="export")
    except MissingExtra as error:
        raise Unfit(str(error)) from error
    pixels = torch.randn(case.batch, *case.shape)
    exported = torch.onnx.export(source(case), (pixels,), dynamo=True, verbose=False)
    if exported is None:
        raise Unfit("torch.onnx.export gave no program")
    options = engine.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    session = engine.InferenceSession(
        exported.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    given = {session.get_inputs()[0].name: pixels.numpy()}
    return lambda: session.run(None, given)
