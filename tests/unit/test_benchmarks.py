"""The benchmarks measure in turns, keep what they measured, and say nothing while parity fails."""

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.cases import SETS, Case, candidates, step_of
from benchmarks.measure import interleaved

SMALL = Case("mvitv2_t", 1, (3, 32, 32))


def test_candidates_take_turns() -> None:
    order: list[str] = []
    steps = {name: (lambda name=name: order.append(name)) for name in "ab"}
    timings = interleaved(steps, rounds=2)
    assert order == ["a", "b", "a", "b", "a", "b"]  # the first round is not timed
    assert set(timings) == {"a", "b"}
    assert all(0 <= t.low <= t.median <= t.high for t in timings.values())


@pytest.mark.parametrize(
    "case", [SMALL, Case("mvitv2_t", 1, (3, 32, 32), dtype="bfloat16"), Case("mvitv2_t", 1, (3, 32, 32), trains=True)]
)
def test_every_backend_computes(case: Case) -> None:
    for name, model in candidates(case).items():
        if name.startswith("mvitv2"):
            step_of(case, model, "cpu")()


def test_cases_of_a_set_have_names_of_their_own() -> None:
    for cases in SETS.values():
        assert len({case.name for case in cases}) == len(cases)


def test_nothing_is_measured_while_parity_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "PARITY", ("--collect-only", "tests/no_such_folder"))
    assert command.main(["--output", str(tmp_path / "out")]) == 1
    assert "parity is red" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_numbers_are_kept_with_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "parity_is_green", lambda: True)
    monkeypatch.setattr(command, "SETS", {"quick": (SMALL,)})
    monkeypatch.setattr(
        command, "candidates", lambda case: {k: v for k, v in candidates(case).items() if k.startswith("mvitv2")}
    )
    assert command.main(["--rounds", "1", "--output", str(tmp_path)]) == 0
    (report,) = tmp_path.glob("*.json")
    kept = json.loads(report.read_text())
    assert kept["machine"]["versions"]["torch"]
    (case,) = kept["cases"]
    assert case["timings"]["mvitv2 reference"]["median"] > 0
    assert SMALL.name in capsys.readouterr().out
