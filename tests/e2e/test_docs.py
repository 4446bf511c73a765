"""Every page keeps its word: the fenced blocks of README.md and docs/ run, page by page, each in an empty folder.

``python`` blocks of a page share their names and run in this process. ``bash`` blocks run as they are, of ``console``
blocks the lines that start with ``$``; both find the commands of this environment first. A block that cannot run here
has ``<!-- not run: reason -->`` on the line before it.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = {"python", "bash", "console"}
SHOWN = {"text", "json", "yaml", "toml", "csv", "html", "mermaid", "bibtex", "make"}
SECONDS = 300

FENCE = re.compile(
    r"^(?P<indent>[ \t]*)```(?P<language>[\w+-]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```[ \t]*$", flags=re.M | re.S
)
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^\n]*\S) -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    code: str
    line: int
    """Where its first line of code is in the page."""
    reason: str | None
    """Why it is not run."""


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for fence in FENCE.finditer(text):
        indent = fence["indent"]
        code = "".join(line.removeprefix(indent) for line in fence["code"].splitlines(keepends=True))
        skip = NOT_RUN.search(text[: fence.start()])
        yield Block(fence["language"], code, text.count("\n", 0, fence.start("code")) + 1, skip and skip["reason"])


def commands(block: Block) -> str:
    """The shell script in a block: all of it, or the lines after ``$`` and those that a backslash continues."""
    if block.language == "bash":
        return block.code
    lines, going_on = [], False
    for line in block.code.splitlines():
        if going_on or line.startswith("$ "):
            lines.append(line if going_on else line.removeprefix("$ "))
            going_on = line.endswith("\\")
    return "\n".join(lines)


def run_page(page: str, text: str) -> None:
    """Run the blocks of a page in the current folder.

    Raises:
        ValueError: A block is of a language that is neither run nor only shown.
        AssertionError: A command failed; with what it printed.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(text):
        if block.language not in RUN | SHOWN:
            raise ValueError(
                f"{page}:{block.line}: a block of {block.language!r}: {sorted(RUN)} run, {sorted(SHOWN)} do not"
            )
        if block.reason or block.language in SHOWN:
            continue
        if block.language == "python":
            # the empty lines before it make the line numbers of a traceback those of the page
            exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), names)
        else:
            run_shell(f"{page}:{block.line}", commands(block))


def run_shell(place: str, script: str) -> None:
    """Run a script in bash, with the commands of this environment before all others."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{place}: exit code {done.returncode} from\n{script}\n{done.stdout}"


def written() -> list[str]:
    """Pages with at least one block."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [file.relative_to(ROOT).as_posix() for file in files if any(blocks(file.read_text()))]


@pytest.mark.slow
@pytest.mark.parametrize("page", written())
def test_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property) -> None:
    text = (ROOT / page).read_text()
    record_property("not run", sum(block.reason is not None for block in blocks(text)))
    monkeypatch.chdir(tmp_path)
    run_page(page, text)


def test_most_blocks_run() -> None:
    found = [block for page in written() for block in blocks((ROOT / page).read_text()) if block.language in RUN]
    skipped = [block for block in found if block.reason]
    assert 2 * len(skipped) <= len(found), f"{len(skipped)} of {len(found)} blocks are not run"


PAGE = """
# A page

```python
x = 20
```

1. In a list:

    ```python
    y = x + 1
    from pathlib import Path
    Path("y.txt").write_text(str(y))
    ```

<!-- not run: fetches 200 MB -->
```python
raise SystemExit
```

```console
$ test "$(cat y.txt)" = 21 && echo \\
    yes
yes
```

```text
not code
```
"""


def test_blocks_share_names_and_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page("page.md", PAGE)
    assert (tmp_path / "y.txt").read_text() == "21"
    assert [block.reason for block in blocks(PAGE)] == [None, None, "fetches 200 MB", None, None]


def test_a_broken_example_is_noticed_at_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZeroDivisionError) as caught:
        run_page("page.md", "text\n\n```python\nx = 0\n1 / x\n```\n")
    assert caught.traceback[-1].lineno == 4  # counted from 0: the fifth line
    with pytest.raises(AssertionError, match=r"page\.md:2: exit code 3(.|\n)*hello"):
        run_page("page.md", "```bash\necho hello; exit 3\n```\n")


def test_a_comment_without_reason_does_not_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyError):
        run_page("page.md", "<!-- not run: -->\n```python\n{}['x']\n```\n")


def test_an_unknown_language_is_noticed() -> None:
    with pytest.raises(ValueError, match="'cobol'"):
        run_page("page.md", "```cobol\nx = 1\n```\n")
