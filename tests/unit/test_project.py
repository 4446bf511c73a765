"""The files around the code agree with each other: versions, requirements, make targets, pages, decisions."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mvitv2._version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
SPDX = PROJECT["license"]


def constraints() -> dict[str, str]:
    """Version by canonical name, of every line of constraints.txt that is no comment."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def requirements() -> list[Requirement]:
    """What the package and its extras ask for, other extras of its own left out."""
    extras = PROJECT["optional-dependencies"].values()
    wanted = map(Requirement, [*PROJECT["dependencies"], *(line for extra in extras for line in extra)])
    return [requirement for requirement in wanted if requirement.name != "mvitv2"]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_requirement_has_a_tested_version(requirement: Requirement) -> None:
    assert constraints()[canonicalize_name(requirement.name)] in requirement.specifier


def test_constraints_are_names_and_versions_alone() -> None:
    for name, version in constraints().items():
        assert re.fullmatch(r"[a-z0-9-]+", name), name
        assert re.fullmatch(r"[0-9][0-9a-z.+]*", version), f"{name}=={version}"


def test_torch_is_pinned_as_released() -> None:
    assert "+" not in constraints()["torch"], "a local build (+cpu, +cu130) cannot be had from everywhere"


def test_dev_has_every_extra() -> None:
    extras = PROJECT["optional-dependencies"]
    included = Requirement(extras["dev"][0])
    assert included.name == "mvitv2"
    assert included.extras == set(extras) - {"dev"}


def test_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == mvitv2._version.__version__
    assert citation["license"] == SPDX


def test_license_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text


def test_changelog_says_what_happened_to_numerics() -> None:
    versions = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1:]
    assert versions[0].startswith("[Unreleased]")
    assert [version.splitlines()[0] for version in versions if "*Numerics:*" not in version] == []


@pytest.mark.parametrize("target", ["demo", "test", "check", "lint", "format", "docs", "bench", "clean"])
def test_make_knows(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_make_says_which_python_is_missing(tmp_path: Path) -> None:
    command = ["make", "--makefile", str(ROOT / "Makefile"), "PYTHONS=no-such-python", ".venv/.python"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "No Python of at least 3.11" in done.stderr
    assert "make PYTHONS=" in done.stderr


def test_ci_runs_what_a_developer_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    assert "make test" in script.read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)


def pages(entry: object) -> list[str]:
    """The files in a piece of the menu."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else []
    return [page for part in parts for page in pages(part)]


def test_the_menu_has_every_page_once() -> None:
    menu = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    docs = ROOT / "docs"
    assert sorted(menu) == sorted(file.relative_to(docs).as_posix() for file in docs.rglob("*.md"))


def test_the_reference_has_every_part_of_the_package() -> None:
    reference = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    package = ROOT / "mvitv2"
    parts = {file.stem for file in package.iterdir() if file.suffix == ".py" or (file / "__init__.py").exists()}
    public = {part for part in parts if not part.startswith("_")} - {"cli"}
    assert public == set(re.findall(r"^::: mvitv2\.(\w+)$", reference, flags=re.M))


def test_decisions_are_numbered() -> None:
    assert [page.name[:5] for page in DECISIONS] == [f"{number:04}-" for number in range(1, len(DECISIONS) + 1)]


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_says_why_what_for_what_price_and_who_holds_it(page: Path) -> None:
    text = page.read_text()
    assert text.count("\n") <= 40
    assert text.startswith(f"# {int(page.name[:4])}. ")
    assert re.findall(r"^## (.*)$", text, flags=re.M) == ["Context", "Decision", "Price", "Enforced by"]
    enforced = text.split("## Enforced by")[1]
    tests = re.findall(r"`(tests/[\w/.]+)`", enforced)
    assert tests, "names no test"
    assert [name for name in tests if not (ROOT / name).exists()] == []
