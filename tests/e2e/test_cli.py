"""The commands, as one types them: what they print, how they fail, and what a fresh process costs."""

import json
import os
import subprocess
import sys

import pytest

from mvitv2 import __version__
from mvitv2.cli.__main__ import main
from mvitv2.cli.commands import COMMANDS
from mvitv2.variants import VARIANTS


def fresh(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "mvitv2", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings}, check=False)


def error(capsys, *words: str, code: int = 1) -> str:
    """The one line that a command fails with."""
    assert main(words) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err.removeprefix("error: ").rstrip("\n")


def printed(capsys, *words: str, code: int = 0) -> str:
    """What a command prints."""
    assert main(words) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "\x1b" not in captured.out
    return captured.out


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_loads_no_torch(words: list[str]) -> None:
    code = f"import sys\nfrom mvitv2.cli.__main__ import main\nsys.exit(main({words}) or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Examples:\n  mvitv2 " in done.stdout
    assert "\x1b" not in done.stdout


def test_the_overview_names_every_command(capsys) -> None:
    shown = printed(capsys)
    assert printed(capsys, "--help") == shown
    assert printed(capsys, "help") == shown
    for name, command in COMMANDS.items():
        assert f"{name} " in shown and command.summary in shown


def test_help_of_one_command(capsys) -> None:
    assert printed(capsys, "help", "list") == printed(capsys, "list", "-h")


def test_version(capsys) -> None:
    assert printed(capsys, "--version") == f"mvitv2 {__version__}\n"


def test_unknown_commands_and_options(capsys) -> None:
    assert error(capsys, "lsit", code=2) == "mvitv2 has no command 'lsit'; did you mean list?"
    assert "no option '--jsno'" in error(capsys, "--jsno", code=2)
    assert "did you mean --json?" in error(capsys, "list", "--jsno", code=2)


def test_a_process_of_its_own_waits_without_spinning() -> None:
    code = "import mvitv2.cli.__main__, os; print(os.environ['OMP_WAIT_POLICY'])"
    left = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=left, check=True)
    assert done.stdout == "PASSIVE\n"


def test_debug_shows_a_traceback() -> None:
    without, with_it = fresh("describe", "no_model"), fresh("describe", "no_model", "--debug")
    assert (without.returncode, with_it.returncode) == (1, 1)
    assert without.stderr.count("\n") == 1
    assert "Traceback" in with_it.stderr


def test_a_bug_says_that_it_is_one() -> None:
    code = (
        "import sys\nsys.argv = ['mvitv2', 'list']\nimport mvitv2.cli.list as broken\n"
        "broken.run = lambda options: {}['no such key']\nfrom mvitv2.cli.__main__ import main\nsys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "bug of mvitv2" in done.stderr and "--debug" in done.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "mvitv2", "--help"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_list(capsys) -> None:
    lines = printed(capsys, "list").splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(VARIANTS)
    assert "mvitv2_t          image       24.2M     224x224     1000" in lines[1]


def test_list_by_task_name_or_other_name(capsys) -> None:
    by_task = json.loads(printed(capsys, "list", "--task", "video", "--json"))
    assert {entry["task"] for entry in by_task} == {"video"}
    assert by_task == json.loads(printed(capsys, "list", "*video*", "json=true"))
    (only,) = json.loads(printed(capsys, "list", "mvit_v2_s", "--json"))
    assert (only["name"], only["parameters"], only["input"]) == ("mvitv2_s_16x4", 34_537_744, [16, 224, 224])
    assert "did you mean mvitv2_t" in error(capsys, "list", "mvitv2_tt")


def test_list_by_a_part_of_a_name(capsys) -> None:
    shown = printed(capsys, "list", "maskfeat")
    assert [line.split()[0] for line in shown.splitlines()[1:]] == ["maskfeat_s_16x4", "maskfeat_l_16x4"]


def test_describe(capsys) -> None:
    shown = printed(capsys, "describe", "mvitv2_t")
    assert shown.startswith("mvitv2_t: image, 224x224, 3 channels, 1000 classes\n24.2M parameters, 4.68 GMACs")
    assert len([line for line in shown.splitlines() if line.strip()[:1].isdigit() and ">" in line]) == 10
    assert "Fields that differ" not in shown


def test_describe_at_another_size(capsys) -> None:
    told = json.loads(printed(capsys, "describe", "mvit_v2_s", "imgsz=112", "--num-frames", "8", "--json"))
    assert told["config"]["input_size"] == [8, 112, 112]
    assert told["multiply_adds"] > 0
    assert "class_token=True" in printed(capsys, "describe", "mvitv2_s_cls", "--num-classes", "0")


def test_describe_what_is_not_there(capsys) -> None:
    assert "did you mean mvitv2_s" in error(capsys, "describe", "mvitv2_sss")
    assert "is a model for images" in error(capsys, "describe", "mvitv2_t", "--num-frames", "2")
    assert error(capsys, "describe", code=2) == "describe needs NAME (mvitv2 describe --help)"


def test_doctor(capsys) -> None:
    code = main(["doctor"])
    shown = capsys.readouterr().out
    assert code == int("problem:" in shown)
    for part in ("torch ", "OMP_WAIT_POLICY", "cpu ", '"auto" takes', "torchvision", "cache"):
        assert part in shown


def test_doctor_as_json(capsys) -> None:
    code = main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == int(bool(told["problems"]))
    assert told["devices"][0]["device"] == "cpu"
    assert {"name", "installed", "least", "extras", "state"} == set(told["libraries"][0])
