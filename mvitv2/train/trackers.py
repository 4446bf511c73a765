"""Where a run can be followed besides its own files: TensorBoard, Weights & Biases, MLflow and trackio, one protocol.

``metrics.jsonl`` and ``results.csv`` are always written (:mod:`mvitv2.train.books`); a tracker gets the same figures.
A run that is resumed goes on in the same place, and no step is told twice: TensorBoard forgets what came after the
checkpoint, the others, which cannot, are not told again what they know. Resuming is exact, so both show one curve.
"""

import json
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from mvitv2.train.folder import write_json

TENSORBOARD = "tensorboard"


class Tracker(Protocol):
    """What the engine asks of a place where runs are followed."""

    def config(self, values: Mapping[str, Any]) -> None:
        """The settings of the run, once, at its start."""
        ...

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Figures of a step, by name."""
        ...

    def finish(self) -> None:
        """The run has ended, however it did."""
        ...


class TensorBoard:
    """Event files in ``tensorboard/`` of the run: ``tensorboard --logdir runs``.

    Args:
        folder: Of the run.
        step: Where it starts; what an earlier process told of later steps is taken back.
    """

    def __init__(self, folder: Path, *, step: int):
        writer: Any = library("torch.utils.tensorboard", package="tensorboard")
        self.writer = writer.SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1 if step else None)

    def config(self, values: Mapping[str, Any]) -> None:
        """As a text, in the tab of texts."""
        rows = "".join(f"| {name} | `{value}` |\n" for name, value in values.items())
        self.writer.add_text("recipe", f"| field | value |\n|---|---|\n{rows}", global_step=0)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Scalars."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, global_step=step)

    def finish(self) -> None:
        """Write what is waiting."""
        self.writer.close()


class Service:
    """What the libraries have in common that keep runs elsewhere: a run has a name there, and told is told.

    Args:
        folder: Of the run; its name is the run's, and what was told is noted in ``trackers/``.
        name: Of the library.
    """

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self.note = folder / "trackers" / f"{name}.json"
        self.note.parent.mkdir(parents=True, exist_ok=True)
        known = _noted(self.note)
        self.run: str | None = known.get("run")
        self.told: dict[str, int] = known.get("told", {})

    def started(self, run: str | None) -> None:
        """Note what the run is called there."""
        self.run = run
        write_json(self.note, {"run": self.run, "told": self.told})

    def fresh(self, values: Mapping[str, float], step: int) -> dict[str, float]:
        """Those of the figures that were not told before; notes that they are told now."""
        new = {name: value for name, value in values.items() if step > self.told.get(name, 0)}
        if new:
            self.told.update(dict.fromkeys(new, step))
            self.note.write_text(json.dumps({"run": self.run, "told": self.told}), encoding="utf-8")
        return new


class WandbLike(Service):
    """Weights & Biases, and trackio, which has the same functions.

    Args:
        folder: Of the run.
        name: ``"wandb"`` or ``"trackio"``.
    """

    def __init__(self, folder: Path, name: str):
        self.module: Any = library(name)
        super().__init__(folder, name)

    def config(self, values: Mapping[str, Any]) -> None:
        """Start the run there, or go on with it."""
        if self.name == "wandb":
            options = {"dir": str(self.folder), "id": self.run, "resume": "allow"}
        else:
            options = {"resume": "allow" if self.run else "never"}
        name = self.run if self.run and self.name == "trackio" else self.folder.name
        run = self.module.init(project="mvitv2", name=name, config=dict(values), **options)
        self.started(str(getattr(run, "id" if self.name == "wandb" else "name", None) or self.folder.name))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Figures that are new."""
        if new := self.fresh(values, step):
            self.module.log(new, step=step)

    def finish(self) -> None:
        """Send what is waiting."""
        self.module.finish()


class MLflow(Service):
    """MLflow, wherever ``MLFLOW_TRACKING_URI`` says that it keeps runs.

    Args:
        folder: Of the run.
        name: ``"mlflow"``.
    """

    def __init__(self, folder: Path, name: str = "mlflow"):
        self.module: Any = library(name)
        super().__init__(folder, name)

    def config(self, values: Mapping[str, Any]) -> None:
        """Start the run there, or go on with it."""
        if self.run is None:
            run = self.module.start_run(run_name=self.folder.name)
            self.module.log_params(dict(values))
            self.started(run.info.run_id)
        else:
            self.module.start_run(run_id=self.run)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Figures that are new."""
        if new := self.fresh(values, step):
            self.module.log_metrics(new, step=step)

    def finish(self) -> None:
        """Send what is waiting."""
        self.module.end_run()


NAMES = (TENSORBOARD, "wandb", "mlflow", "trackio")
FAILURES = {"wandb": ("wandb.errors", "Error"), "mlflow": ("mlflow.exceptions", "MlflowException")}
"""What a library raises, beside Python's own, when its service does not answer."""


def failures(name: str) -> tuple[type[Exception], ...]:
    """What must not end a run that is under way: a full disk, a line that is down, a service that refuses."""
    module, kind = FAILURES.get(name, ("builtins", "OSError"))
    return (OSError, RuntimeError, ValueError, getattr(import_module(module), kind))


def library(name: str, *, package: str | None = None) -> ModuleType:
    """A tracker's library.

    Raises:
        ImportError: It is not installed; the message says what to install.
    """
    try:
        return import_module(name)
    except ImportError as error:
        wanted = package or name
        raise ImportError(
            f"--log {wanted} needs {wanted}, which cannot be imported ({error}); pip install {wanted}"
        ) from (error)


def chosen(names: str) -> tuple[str, ...]:
    """Trackers by name from ``"auto"`` (TensorBoard where it is installed), ``"none"``, or names with commas between.

    Raises:
        ValueError: There is no such tracker.
        ImportError: The library of one is not installed.
    """
    if names == "auto":
        return (TENSORBOARD,) if find_spec(TENSORBOARD) else ()
    wanted = [] if names == "none" else [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in NAMES]:
        raise ValueError(
            f"--log {names}: there is no tracker {unknown[0]!r}; there are {', '.join(NAMES)}, auto and none"
        )
    for name in wanted:
        library("torch.utils.tensorboard" if name == TENSORBOARD else name, package=name)
    return tuple(dict.fromkeys(wanted))


def tracker(name: str, folder: Path, *, step: int) -> Tracker:
    """One tracker of a run.

    Args:
        name: One of :data:`NAMES`.
        folder: Of the run.
        step: Where the run starts or goes on.
    """
    if name == TENSORBOARD:
        return TensorBoard(folder, step=step)
    return MLflow(folder, name) if name == "mlflow" else WandbLike(folder, name)


def _noted(path: Path) -> dict[str, Any]:
    """What a note says; nothing where it is missing or was cut off."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
