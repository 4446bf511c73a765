"""Numbers that mean nothing are refused in one line, before anything is read."""

import pytest

from mvitv2.cli.__main__ import main


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["eval", "no-model", "no-data", "--batch-size", "0"], "--batch-size 0 must be at least 1"),
        (["eval", "no-model", "no-data", "-j", "-2"], "--workers -2 must be at least 0"),
        (["eval", "no-model", "no-data", "--img-size", "32", "-4"], "--img-size -4 must be at least 1"),
        (["eval", "no-model", "no-data", "--timeout-minutes", "0"], "--timeout-minutes 0.0 must be above 0"),
        (["predict", "no-model", "x.mp4", "--batch-size", "-1"], "--batch-size -1 must be at least 1"),
        (["predict", "no-model", "x.png", "--nms-iou", "nan"], "--nms-iou nan must be from 0 to 1"),
        (["predict", "no-model", "x.png", "--tile", "-3"], "--tile -3 must be at least 32"),
        (["features", "no-model", "x.png", "--batch-size", "0"], "--batch-size 0 must be at least 1"),
        (["check", "no-data", "--show", "-1", "--similar", "2"], "--show -1 must be at least 0; --similar 2.0 must be"),
        (["check", "no-data", "--max-aspect", "-1"], "--max-aspect -1.0 must be at least 1"),
        (["bench", "--threads", "-1"], "--threads -1 must be at least 1"),
        (["bench", "--rounds", "0"], "--rounds 0 must be at least 1"),
        (["describe", "mvitv2_t", "--img-size", "-5"], "--img-size -5 must be at least 1"),
    ],
)
def test_a_number_out_of_range(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, error = capsys.readouterr()
    assert error.startswith(f"error: {told}") and error.count("\n") == 1 and not out


def test_numbers_in_range_are_let_through(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--batch-size", "1", "-j", "0", "--img-size", "1", "--timeout-minutes", "0.1", "--min-score", "1"]
    assert main(["eval", "no-model", "no-data", *words]) == 1
    assert "neither a file nor a model 'no-model'" in capsys.readouterr().err
