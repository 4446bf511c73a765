"""The report on an installation: declared libraries, what is missing or too old, and how attention is chosen."""

import importlib
import importlib.metadata

import pytest

from mvitv2.cli import environment
from mvitv2.cli.environment import Library
from mvitv2.kernels.triton import Availability


def test_every_library_of_an_installation_is_listed() -> None:
    found = {library.name: library for library in environment.libraries()}
    assert found["torch"].extras == () and found["torch"].state == "ok"
    assert set(found["torchvision"].extras) == {"train", "video", "detect"}
    assert "pytest" not in found


@pytest.mark.parametrize(
    ("installed", "extras", "state"),
    [
        ("1.10.0", (), "ok"),
        ("1.2.0+cu130", ("train",), "ok"),
        ("1.1.9", (), "too old, 1.2 is needed"),
        (None, ("train", "video"), "missing: pip install 'mvitv2[train]'"),
        (None, (), "missing: pip install mvitv2"),
    ],
)
def test_states(installed: str | None, extras: tuple[str, ...], state: str) -> None:
    assert Library("x", installed, "1.2", extras).state == state


def test_a_package_that_was_not_installed_has_no_list(monkeypatch) -> None:
    def missing(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    assert environment.libraries() == []


def test_what_is_too_old_is_a_problem(monkeypatch) -> None:
    monkeypatch.setattr(environment, "libraries", lambda: [Library("timm", "0.1", "1.0", ("train",))])
    monkeypatch.setattr(environment, "installed_version", lambda name: None)
    assert list(environment.problems()) == ["timm 0.1: too old, 1.0 is needed"]


def test_a_torchvision_that_does_not_fit_torch_is_a_problem(monkeypatch) -> None:
    def broken(module: str, *, extra: str) -> None:
        raise environment.MissingExtra(f"{module} cannot be imported (operator torchvision::nms does not exist)")

    monkeypatch.setattr(environment, "libraries", lambda: [])
    monkeypatch.setattr(environment, "installed_version", lambda name: "1.0")
    monkeypatch.setattr(environment, "required", broken)
    (problem,) = environment.problems()
    assert "nms does not exist" in problem and "of one kind" in problem


@pytest.mark.parametrize("compiled, told", [(True, ("cpp", "cpp")), (False, ("masked", "reference"))])
def test_the_choice_of_attention_is_told_with_its_rule(monkeypatch, compiled: bool, told: tuple[str, str]) -> None:
    monkeypatch.setattr(importlib.import_module("mvitv2.kernels.auto"), "compiled", lambda: compiled)
    first = environment.devices()[0]
    assert (first["device"], first["inference"], first["training"]) == ("cpu", *told)
    assert environment.rule().startswith('"auto" takes')
    assert ":func:" not in environment.rule()


def test_why_there_are_no_operators_is_told(monkeypatch) -> None:
    monkeypatch.setattr("mvitv2.kernels.cpp.missing", lambda: "no C++ compiler")
    assert environment.operators()["cpp_operators"] == "no C++ compiler"
    monkeypatch.setattr("mvitv2.kernels.cpp.missing", lambda: None)
    monkeypatch.setattr("mvitv2.kernels.cpp.instructions", lambda: "AMX")
    assert environment.operators()["cpp_operators"] == "built for this machine, products by AMX"


def test_why_triton_does_not_run_is_told(monkeypatch) -> None:
    monkeypatch.setattr("mvitv2.kernels.triton.available", lambda: Availability(False, "torch sees no CUDA device"))
    assert environment.operators()["triton_kernels"] == "not here: torch sees no CUDA device"


def test_the_cache_is_told_wherever_it_is(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MVITV2_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setenv("MVITV2_OFFLINE", "1")
    told = environment.cache()
    assert told["cache"].startswith(str(tmp_path / "not" / "yet"))
    assert "forbids" in told["network"]
