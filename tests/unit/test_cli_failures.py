"""What a user hears when something goes wrong: one line for what was foreseen, and where bugs go for the rest."""

import errno
import warnings

import pytest

from mvitv2.aliases import variant_name
from mvitv2.cli.failures import UsageError, did_you_mean, guarded, one_line, report_bug


def raises(error: BaseException):
    def run() -> int:
        raise error

    return run


def fails_below() -> int:
    return len(variant_name("no such model"))


def stumbles() -> int:
    return int("this is no number")


def test_what_this_package_raises_is_one_line(capsys) -> None:
    assert guarded(fails_below, debug=False) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: there is no model 'no such model'")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a\nb"),
            1,
            "error: a b: No such file or directory",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), 1, "error: Permission denied"),
        (OSError("the network is down"), 1, "error: the network is down"),
        (
            ModuleNotFoundError("No module named 'PIL'", name="PIL"),
            1,
            "error: PIL is not installed, but mvitv2 needs it; pip install mvitv2 brings it along",
        ),
        (MemoryError(), 1, "error: out of memory (no details); try a smaller batch, picture or model"),
    ],
)
def test_what_the_machine_raises(capsys, error: BaseException, code: int, line: str) -> None:
    assert guarded(raises(error), debug=False) == code
    assert capsys.readouterr().err == f"{line}\n"


def test_no_memory_on_a_gpu(capsys) -> None:
    import torch

    assert guarded(raises(torch.OutOfMemoryError("CUDA out of memory.\nTried to")), debug=False) == 1
    assert capsys.readouterr().err.startswith("error: out of memory (CUDA out of memory. Tried to)")


def test_words_that_make_no_command_have_a_code_of_their_own(capsys) -> None:
    def run() -> int:
        from mvitv2.cli.commands import command

        return command("trian").call([])

    assert guarded(run, debug=False) == 2
    assert "no command 'trian'" in capsys.readouterr().err


def test_a_bug_is_let_through() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        guarded(stumbles, debug=False)
    with pytest.raises(UsageError):  # raised, but not by this package
        guarded(raises(UsageError("x")), debug=False)


def test_a_bug_is_reported_as_one(capsys) -> None:
    error = RuntimeError("shapes\ndo not match")
    report_bug(RuntimeError, error, None)
    shown = capsys.readouterr().err
    assert "error: RuntimeError: shapes do not match" in shown
    assert "--debug" in shown


def test_debug_shows_the_traceback_and_the_line(capsys) -> None:
    assert guarded(fails_below, debug=True) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.splitlines()[-1].startswith("error: there is no model")


def test_a_run_that_was_stopped_has_the_code_of_its_signal(capsys) -> None:
    def run() -> int:
        from mvitv2.cli.commands import command

        try:
            command("no such command")
        except UsageError as error:
            error.__dict__["signal_number"] = 15
            raise
        return 0

    assert guarded(run, debug=False) == 128 + 15
    assert not capsys.readouterr().err.startswith("error: ")


def test_an_interrupt_is_quiet(capsys) -> None:
    assert guarded(raises(KeyboardInterrupt()), debug=False) == 130
    assert capsys.readouterr().err == ""


def test_warnings_are_one_line_each_and_only_inside() -> None:
    before = warnings.formatwarning

    def run() -> int:
        assert warnings.formatwarning("a\nb", UserWarning, "f.py", 1) == "warning: a b\n"
        return 0

    assert guarded(run, debug=False) == 0
    assert warnings.formatwarning is before


def test_control_characters_never_reach_the_terminal() -> None:
    assert one_line("a\x1b[31mb\u202ec") == "a\\x1b[31mb\\u202ec"
    assert one_line("Grüße 猫") == "Grüße 猫"


def test_hints() -> None:
    assert did_you_mean("trian", ["train", "eval"]) == "; did you mean train?"
    assert did_you_mean("zzz", ["train"], otherwise="look there") == "; look there"
    assert did_you_mean("zzz", ["train"]) == ""
