"""What a reader may count on in every file: short, finished, honest about errors, at home on any machine."""

import pytest

from .rules import bad_manners, machine_traces, too_long
from .source import assert_none, package, texts, tracked

LARGEST = 1_000_000  # bytes; as in .pre-commit-config.yaml


def test_files_and_functions_are_short() -> None:
    assert_none(too_long(package()))


def test_manners() -> None:
    assert_none(bad_manners(package()))


def test_no_traces_of_a_machine() -> None:
    assert_none(machine_traces(texts()))


def test_no_large_files() -> None:
    assert {name: size for name, file in tracked().items() if (size := file.stat().st_size) > LARGEST} == {}


def test_a_long_file_is_noticed() -> None:
    assert too_long({"mvitv2/core/a.py": "x = 1\n" * 300}) == []
    assert len(too_long({"mvitv2/core/a.py": "x = 1\n" * 301})) == 1


def test_a_long_function_is_noticed_whatever_its_docstring() -> None:
    docstring = '    """First.\n' + "\n" * 50 + '    """\n'
    assert too_long({"mvitv2/core/a.py": "def f():\n" + docstring + "    x = 1\n" * 39}) == []
    assert len(too_long({"mvitv2/core/a.py": "def f():\n" + docstring + "    x = 1\n" * 40})) == 1
    assert len(too_long({"mvitv2/core/a.py": "class A:\n    async def f(self):\n" + "        x = 1\n" * 40})) == 1


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept (ValueError, BaseException) as error:\n    raise",
        "try:\n    f()\nexcept:\n    pass",
        "assert x > 0",
        "print('hello')",
        "model.load_state_dict(state, strict=False)",
        "model = torch.jit.script(model)",
        "# TO" + "DO: the rest",
    ],
)
def test_bad_manners_are_noticed(text: str) -> None:
    assert len(bad_manners({"mvitv2/data/images.py": text})) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("mvitv2/data/images.py", "try:\n    f()\nexcept (OSError, ValueError) as error:\n    raise E from error"),
        ("mvitv2/data/images.py", "for a, b in zip(x, y, strict=True):\n    pprint(a)"),
        ("mvitv2/cli/list.py", "print('hello')"),
    ],
)
def test_good_manners_are_let_through(path: str, text: str) -> None:
    assert bad_manners({path: text}) == []


@pytest.mark.parametrize(
    "text",
    [
        "DATA = '/roo" + "t/data/x'",
        "see /wo" + "rk/main/README",
        "index: https://py" + "pi.org/simple",
        "resolved = https://files.python" + "hosted.org/packages/",
        "cd /ho" + "me/anna/project",
    ],
)
def test_traces_of_a_machine_are_noticed(text: str) -> None:
    assert len(machine_traces({"a.md": text})) == 1


@pytest.mark.parametrize("text", ["docs/work/main.md", "../shared/data", "a/root/b", "https://example.org/work/x"])
def test_other_paths_are_let_through(text: str) -> None:
    assert machine_traces({"a.md": text}) == []
