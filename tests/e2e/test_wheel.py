"""What people install: the wheel holds the package and nothing else, and works away from the checkout."""

import email
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mvitv2._version import __version__

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the checkout with what is installed, so that nothing is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = email.message_from_bytes(archive.read(f"mvitv2-{__version__}.dist-info/METADATA"))
    assert {name.split("/")[0] for name in names} == {"mvitv2", f"mvitv2-{__version__}.dist-info"}
    sources = {file.relative_to(ROOT).as_posix() for file in (ROOT / "mvitv2").rglob("*.py")}
    assert sources | {"mvitv2/py.typed"} <= names
    assert f"mvitv2-{__version__}.dist-info/licenses/LICENSE" in names
    assert metadata["Version"] == __version__


def test_it_runs_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); import mvitv2; print(mvitv2.__version__, mvitv2.__file__)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=elsewhere, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [__version__, str(installed / "mvitv2" / "__init__.py")]
