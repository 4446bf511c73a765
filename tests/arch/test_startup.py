"""What a fresh process loads, and how long it takes: measured, since the syntax does not tell what libraries do."""

import json
import resource
import subprocess
import sys

import pytest

HELP_SECONDS = 0.5


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after running ``code``."""
    report = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def libraries(modules: set[str]) -> set[str]:
    """Top-level names that are neither Python's nor ours."""
    return {name.split(".")[0] for name in modules} - set(sys.stdlib_module_names) - {"mvitv2", "__main__"}


def loaded_beside_torch(code: str) -> set[str]:
    """Libraries that ``code`` loads, less those that the same modules of torch load by themselves."""
    modules = modules_after(code)
    torch_alone = sorted(name for name in modules if name.split(".")[0] == "torch" and not name.startswith("torch.ops"))
    by_torch = modules_after(f"import importlib\nfor name in {torch_alone}:\n    importlib.import_module(name)")
    return libraries(modules) - libraries(by_torch)


@pytest.mark.parametrize("code", ["import mvitv2", "import mvitv2.core.model", "from mvitv2 import create_model"])
def test_importing_loads_torch_and_nothing_else(code: str) -> None:
    assert loaded_beside_torch(code) == set()


def test_nothing_loads_the_compiler_before_something_is_compiled() -> None:
    """It takes longer than torch itself."""
    assert not {"torch._dynamo", "torch._inductor"} & modules_after(
        "import mvitv2.kernels, mvitv2.tasks.detect.detector"
    )


def test_another_library_is_noticed() -> None:
    assert loaded_beside_torch("import torch, rich, yaml") >= {"rich", "yaml"}


def test_help_is_quick_and_loads_no_torch() -> None:
    command = [sys.executable, "-m", "mvitv2", "--help"]
    assert cpu_seconds(command) - cpu_seconds([sys.executable, "-c", "pass"]) < HELP_SECONDS
    code = "import sys\nsys.argv = ['mvitv2', '--help']\nfrom mvitv2.cli.__main__ import main\n"
    assert "torch" not in modules_after(code + "try:\n    main()\nexcept SystemExit:\n    pass")


def test_a_slow_start_is_noticed() -> None:
    slow = "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end:\n    pass"
    assert cpu_seconds([sys.executable, "-c", slow], tries=1) > HELP_SECONDS


def cpu_seconds(command: list[str], *, tries: int = 3) -> float:
    """The least processor time that the command took in some tries: what it needs, without its neighbours."""
    times = []
    for _ in range(tries):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)
