"""The benchmarks measure in turns, keep what they measured, say why somebody is missing, and notice a slower us."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import memory
from benchmarks.candidates import Unfit, candidates
from benchmarks.cases import SETS, Case
from benchmarks.compare import falls, last_result, read
from benchmarks.limits import Limits, operations, parameter_bytes
from benchmarks.measure import interleaved
from mvitv2.cli import bench
from mvitv2.kernels import runs_here

SMALL = Case("mvitv2_t", 1, (3, 32, 32))
OURS = "mvitv2 (auto|reference|optimized)$"


def test_candidates_take_turns() -> None:
    order: list[str] = []
    steps = {name: (lambda name=name: order.append(name)) for name in "ab"}
    timings = interleaved(steps, rounds=2)
    assert order == ["a", "b", "a", "b", "a", "b"]  # the first round is not timed
    assert set(timings) == {"a", "b"}
    assert all(0 <= t.low <= t.median <= t.high <= t.slowest and t.rounds == 2 for t in timings.values())


@pytest.mark.parametrize(
    "case",
    [
        SMALL,
        Case("mvitv2_t", 1, (3, 32, 32), dtype="bfloat16"),
        Case("mvitv2_t", 1, (3, 32, 32), dtype="autocast"),
        Case("mvitv2_t", 1, (3, 32, 32), dtype="autocast", trains=True),
        Case("mvitv2_t_det", 1, (3, 64, 64)),
    ],
)
def test_every_backend_computes(case: Case) -> None:
    ran = 0
    for candidate in candidates(case):
        if candidate.kind == "ours" and not candidate.name.endswith("compiled"):
            try:
                candidate.step("cpu")()
            except Unfit as reason:
                assert "triton" in candidate.name or "CUDA" in str(reason) or runs_here("cpp")
            else:
                ran += 1
    assert ran >= 4


def test_cases_of_a_set_have_names_of_their_own() -> None:
    for cases in SETS.values():
        assert len({case.name for case in cases}) == len(cases)


def test_a_missing_peer_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    (openvino,) = (c for c in candidates(SMALL) if c.name == "OpenVINO")
    with pytest.raises(Unfit, match=r"pip install 'mvitv2\[bench\]'"):
        openvino.step("cpu")


def test_clips_are_measured_beside_the_peers_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pytorchvideo", None)
    found: set[tuple[str, bool]] = set()
    for case in SETS["video"]:
        names = {candidate.name: candidate for candidate in candidates(case)}
        peer = "torchvision" if case.variant == "mvitv2_s_16x4" else "pytorchvideo"
        found.add((peer, case.trains))
        assert {peer, f"{peer}, compiled", "mvitv2 auto"} <= set(names)
        if peer == "pytorchvideo":
            with pytest.raises(Unfit, match="pip install pytorchvideo"):
                names[peer].step("cpu")
    assert found == {(peer, trains) for peer in ("torchvision", "pytorchvideo") for trains in (False, True)}


def test_a_backbone_counts_its_operations() -> None:
    large = Case("mvitv2_t", 1, (3, 224, 224))
    assert operations(large) / 2e9 == pytest.approx(4.7, rel=0.05)  # multiply-adds in the paper's table 2
    assert operations(Case("mvitv2_t", 2, (3, 224, 224), trains=True)) == 6 * operations(large)
    assert parameter_bytes(large) == pytest.approx(24e6 * 4, rel=0.02)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own() -> None:
    added = memory.added(SMALL, "mvitv2 reference")
    assert added is not None and 0 < added < 2**30
    assert memory.added(SMALL, "no such candidate") is None


def test_nothing_is_measured_while_parity_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "PARITY", ("--collect-only", "tests/no_such_folder"))
    assert command.main(["--output", str(tmp_path / "out")]) == 1
    assert "parity is red" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "parity_is_green", lambda: True)
    monkeypatch.setattr(command, "SETS", {"quick": (SMALL,)})
    rates = {"float32": 1e11, "bfloat16": 1e12, "autocast": 1e12}
    monkeypatch.setattr(command, "limits", lambda device, clock: Limits(rates, 1e10))


@pytest.mark.usefixtures("small_runs")
def test_numbers_are_kept_with_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--rounds", "1", "--only", f"{OURS}|triton", "--output", str(tmp_path)]
    assert command.main(given) == 0
    (report,) = tmp_path.glob("*.json")
    kept = read(report)
    assert kept["machine"]["versions"]["torch"] and kept["machine"]["products"]
    (case,) = kept["cases"]
    assert case["timings"]["mvitv2 reference"]["median"] > 0
    assert "CUDA" in case["unfit"]["mvitv2 triton"]
    told = capsys.readouterr().out
    assert SMALL.name in told and "mvitv2 triton            not measured: " in told
    assert SMALL.name in report.with_suffix(".txt").read_text()

    assert command.main([*given, "--compare", "last"]) in (0, 1)  # one round is noise, but both are compared
    assert command.main([*given, "--set", "quick", "--compare", str(report)]) in (0, 1)


def test_a_first_comparison_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--compare", "--output", str(tmp_path)]) == 2
    assert "no result of quick-cpu" in capsys.readouterr().err


def test_a_pattern_that_finds_no_case_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--case", "mvitv3"]) == 2
    assert "no case of the set quick is found by 'mvitv3'" in capsys.readouterr().err


def record(**medians: float) -> dict[str, Any]:
    kinds = {"timm": "peer", "hiera": "context"}
    rows = {name: {"median": m, "kind": kinds.get(name, "ours")} for name, m in medians.items()}
    return {"cases": [{"name": "S", "timings": rows}]}


def test_ratios_are_compared_and_times_are_not() -> None:
    before = record(timm=2.0, auto=1.0, hiera=0.5)
    assert not list(falls(before, record(timm=20.0, auto=10.0, hiera=90.0)))  # a slower machine
    (fall,) = falls(before, record(timm=2.0, auto=1.5, hiera=0.5))
    assert str(fall) == "S: auto was 2.00x timm, now 1.33x"
    assert not list(falls(before, record(timm=2.0, auto=1.1)))  # within what the same code varies by
    assert not list(falls(before, record(auto=9.0)))  # nothing in common to compare with


def test_without_peers_the_reference_is_compared_with() -> None:
    before, now = record(auto=1.0), record(auto=2.0)
    for r in (before, now):
        r["cases"][0]["timings"]["mvitv2 reference"] = {"median": 3.0, "kind": "ours"}
    assert [fall.peer for fall in falls(before, now)] == ["mvitv2 reference"]


def test_the_last_result_is_found_and_old_forms_are_refused(tmp_path: Path) -> None:
    assert last_result(tmp_path, "quick-cpu") is None
    for day in ("2026-01-02", "2026-01-10"):
        (tmp_path / f"{day}-quick-cpu.json").write_text(json.dumps(record(auto=1.0)))
    newest = last_result(tmp_path, "quick-cpu")
    assert newest is not None and newest.name.startswith("2026-01-10")
    older = copy.deepcopy(record(auto=1.0))
    del older["cases"][0]["name"]
    newest.write_text(json.dumps(older))
    with pytest.raises(ValueError, match="older form"):
        read(newest)


def test_the_command_passes_its_options_on() -> None:
    options = bench.Options(set="main", only="timm|auto", threads=1, clock="cpu", memory=True, compare="last")
    parsed = command.parsed(bench.words(options))
    assert (parsed.set, parsed.only, parsed.threads, parsed.clock) == ("main", "timm|auto", 1, "cpu")
    assert parsed.memory and parsed.compare == "last" and parsed.case == ""


def test_an_installed_package_has_no_benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CHECKOUT", tmp_path)
    with pytest.raises(FileNotFoundError, match="clone the repository"):
        bench.run(bench.Options())
