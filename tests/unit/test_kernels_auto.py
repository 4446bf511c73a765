"""The rule of "auto" for devices that need not be there, and recording for GPUs that need to be."""

import importlib
import itertools

import pytest
import torch

from mvitv2.kernels import BACKENDS, Graphed, choice, runs_here, use
from mvitv2.kernels.graphs import check_same
from mvitv2.kernels.triton import Availability
from mvitv2.models import create_model

auto = importlib.import_module("mvitv2.kernels.auto")


def test_every_choice_is_a_backend() -> None:
    asked = itertools.product(("cpu", "cuda", "mps"), (True, False), (torch.float32, torch.bfloat16, torch.float64))
    chosen = {choice(device=device, trains=trains, dtype=dtype).backend for device, trains, dtype in asked}
    assert chosen <= set(BACKENDS) and len(chosen) > 1


@pytest.mark.parametrize("there", [True, False])
def test_on_cuda(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(auto.triton, "available", lambda: Availability(there, "no device" if not there else "a GPU"))
    found = choice(device="cuda", trains=True, dtype=torch.bfloat16, sizes=(14, 14))
    assert found.backend == ("triton" if there else "folded")
    assert ("not measured" if there else "no device") in found.why
    assert choice(device="cuda", trains=False, dtype=torch.float64).backend == "folded"
    assert choice(device="cuda", trains=False, channels=300).backend == "folded"
    assert choice(device="cuda", trains=False, sizes=(300, 7)).backend == "folded"


def test_elsewhere() -> None:
    assert choice(device="mps", trains=False).backend == "folded"


@pytest.mark.parametrize(
    "built, trains, dtype, units, wanted",
    [
        (True, True, torch.float32, False, "cpp"),
        (True, False, torch.bfloat16, True, "cpp"),
        (True, False, torch.float64, True, "masked"),
        (False, True, torch.bfloat16, True, "reference"),
        (False, False, torch.bfloat16, True, "masked"),
        (False, False, torch.bfloat16, False, "reference"),
        (False, False, torch.float32, False, "masked"),
    ],
)
def test_on_a_cpu(monkeypatch: pytest.MonkeyPatch, built: bool, trains: bool, dtype, units: bool, wanted: str) -> None:
    monkeypatch.setattr(auto, "compiled", lambda: built)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units)
    found = choice(device="cpu", trains=trains, dtype=dtype)
    assert found.backend == wanted and found.why
    q = torch.randn(1, 1, 6, 4, dtype=dtype, requires_grad=trains)
    calls = []
    for name in ("reference", "masked", "folded"):
        monkeypatch.setattr(auto, name, lambda *given, name=name: calls.append(name))
    monkeypatch.setattr(auto.cpp, "attend", lambda *given: calls.append("cpp"))
    auto.auto(q, q, q, [])
    assert calls == [wanted], "what is told is what is done"


def test_triton_without_a_device_is_refused_in_a_sentence() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    assert "CUDA" in str(runs_here("triton")) or "triton is not installed" in str(runs_here("triton"))
    model = create_model("mvitv2_t", img_size=32, backend="triton").eval()
    with pytest.raises((ValueError, ImportError), match=r"run on CUDA devices|not installed"):
        model(torch.randn(1, 3, 32, 32))
    assert use(model, "reference")(torch.randn(1, 3, 32, 32)).shape == (1, 1000)


def test_graphs_are_for_cuda_and_inference() -> None:
    model = create_model("mvitv2_t", img_size=32, num_classes=3)
    with pytest.raises(ValueError, match=r"call model.eval\(\)"):
        Graphed(model, torch.randn(1, 3, 32, 32))
    with pytest.raises(ValueError, match="pixels are on cpu"):
        Graphed(model.eval(), torch.randn(1, 3, 32, 32))


def test_a_graph_takes_what_it_was_recorded_for() -> None:
    recorded = torch.randn(1, 3, 32, 32)
    check_same(recorded, torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"recorded for \(\(1, 3, 32, 32\).*got \(\(2, 3, 32, 32\)"):
        check_same(recorded, torch.randn(2, 3, 32, 32))
