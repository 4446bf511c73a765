"""The benchmarks measure in turns, keep what they measured, and say nothing while parity fails."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import measure
from benchmarks.cases import CASES, Case, contenders

CPU = torch.device("cpu")
FAILS = (sys.executable, "-c", "raise SystemExit(1)")
PASSES = (sys.executable, "-c", "")


def test_contenders_take_turns() -> None:
    order: list[str] = []
    runs = {name: (lambda name=name: order.append(name)) for name in "ab"}
    timings = measure.interleaved(runs, rounds=2, device=CPU)
    assert order == ["a", "b", "a", "b", "a", "b"]  # the first of each warms up
    assert set(timings) == {"a", "b"}
    with pytest.raises(ValueError, match="rounds=0"):
        measure.interleaved(runs, rounds=0, device=CPU)


def test_median_and_spread() -> None:
    assert measure.timing([1.0, 2.0, 5.0], None) == measure.Timing(median=2.0, spread=2.0, peak_bytes=None)


@pytest.mark.parametrize("train", [False, True])
def test_every_contender_computes(train: bool) -> None:
    case = Case(name="small", model="mvitv2_t", shape=(1, 3, 32, 32), train=train)
    for run in contenders(case, CPU).values():
        run()


def test_cases_have_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_nothing_is_measured_while_parity_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "GATE", FAILS)
    assert command.main(command.Options(output=tmp_path / "out")) == 1
    assert "nothing is measured" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_an_unknown_case_names_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(command.Options(cases="sound")) == 2
    assert "image-t" in capsys.readouterr().out


def test_numbers_are_kept_with_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = Case(name="small", model="mvitv2_t", shape=(1, 3, 32, 32))
    monkeypatch.setattr(command, "GATE", PASSES)
    monkeypatch.setattr(command, "CASES", (small,))
    assert command.main(command.Options(rounds=1, output=tmp_path)) == 0
    (report,) = tmp_path.glob("*.json")
    kept = json.loads(report.read_text())
    assert kept["torch"] == torch.__version__
    assert kept["results"]["small"]["reference"]["median"] > 0
    assert "times reference" in capsys.readouterr().out
