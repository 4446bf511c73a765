"""The golden files say what the code does."""

import pytest

from .texts import HERE, golden

EXPECTED = golden()


@pytest.mark.parametrize("path", EXPECTED)
def test_golden(path: str) -> None:
    file = HERE / path
    assert file.is_file(), f"{path} is missing; `python -m tests.golden` writes it"
    assert file.read_text(encoding="utf-8") == EXPECTED[path], (
        f"{path} has changed; if that is meant, run `python -m tests.golden`, read the diff, and commit it"
    )


def test_no_file_is_left_over() -> None:
    assert {file.relative_to(HERE).as_posix() for file in HERE.rglob("*.txt")} == set(EXPECTED)
