"""A second place for a run: its checkpoints and results on object storage, wherever fsspec reaches.

A step's folder there counts once its list of files is there, which is written last. A machine that is given back, or a
disk that is lost, then costs the steps since the last copy, and nothing else.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mvitv2.extras import required
from mvitv2.train import shards
from mvitv2.train.checkpoint import BEST, LAST, PREVIOUS
from mvitv2.train.failures import CheckpointError
from mvitv2.train.folder import METRICS, RECIPE, RESULTS, SUMMARY, UNREADABLE
from mvitv2.weights.files import replacing

RESULT_FILES = (RECIPE, RESULTS, METRICS, UNREADABLE, BEST, SUMMARY)
LIST = "mirrored.json"
KEPT = 2
"""Steps that stay there."""


class Mirror:
    """A folder behind a URL.

    Args:
        url: Such as ``s3://bucket/runs/flowers``; the library for its scheme (s3fs, gcsfs, ...) must be there.

    Raises:
        ValueError: fsspec cannot reach such addresses, or lacks the library.
    """

    def __init__(self, url: str):
        library: Any = required("fsspec", extra="remote")
        self.url = url
        try:
            self.files, self.root = library.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ValueError(f"mirror={url!r} cannot be used: {error}") from error

    def push(self, folder: Path, step: int) -> None:
        """Copy the newest checkpoint and the results of a run.

        Args:
            folder: Of the run.
            step: That the checkpoint is of.

        Raises:
            CheckpointError: Not all of it could be copied; what was there before still is.
        """
        try:
            for name in RESULT_FILES:
                if (folder / name).exists():
                    self.files.put_file(str(folder / name), f"{self.root}/{name}")
            self._push_step(folder, f"step-{step:08d}")
        except OSError as error:
            raise CheckpointError(f"{self.url}: the run could not be copied there ({error})") from error

    def _push_step(self, folder: Path, name: str) -> None:
        """A step's folder, its list last; then away with those before the one before."""
        parts = folder / shards.FOLDER / name
        sources = sorted(parts.iterdir()) if parts.exists() else [folder / LAST]
        target = f"{self.root}/{name}"
        if self.files.exists(f"{target}/{LIST}"):
            self.files.rm_file(f"{target}/{LIST}")
        self.files.makedirs(target, exist_ok=True)
        for path in sources:
            self.files.put_file(str(path), f"{target}/{path.name}")
        sizes = {path.name: path.stat().st_size for path in sources}
        self.files.pipe_file(f"{target}/{LIST}", json.dumps(sizes).encode())
        for old in self._names()[KEPT:]:
            self.files.rm(f"{self.root}/{old}", recursive=True)

    def _names(self) -> list[str]:
        """Step folders, the newest first, those that never became whole among them."""
        if not self.files.exists(self.root):
            return []
        found = (path.rstrip("/").rpartition("/")[2] for path in self.files.ls(self.root, detail=False))
        return sorted((name for name in found if name.startswith("step-")), reverse=True)

    def pull(self, folder: Path) -> int:
        """Fetch what was copied, if the folder holds no checkpoint of its own; gives the number of steps fetched.

        Raises:
            CheckpointError: It is there, and cannot be fetched.
        """
        if shards.is_there(folder) or any((folder / name).exists() for name in (LAST, PREVIOUS)):
            return 0
        try:
            whole = [name for name in self._names() if self._sizes(name) is not None][:KEPT]
            if whole:
                self._fetch((name, folder / name) for name in RESULT_FILES if self.files.exists(f"{self.root}/{name}"))
            for place, name in reversed(list(enumerate(whole))):  # the newest last, so that it is there or not
                self._pull_step(folder, name, (LAST, PREVIOUS)[place])
        except OSError as error:
            raise CheckpointError(f"{self.url}: the run that is there cannot be fetched ({error})") from error
        return len(whole)

    def _pull_step(self, folder: Path, name: str, single: str) -> None:
        sizes = self._sizes(name) or {}
        if LAST in sizes:
            self._fetch([(f"{name}/{LAST}", folder / single)])
            return
        target = folder / shards.FOLDER / name
        temporary = target.with_name(f".{name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        self._fetch((f"{name}/{part}", temporary / part) for part in sizes)
        temporary.rename(target)

    def _sizes(self, name: str) -> dict[str, int] | None:
        """The list of a step's folder; ``None`` where it is not whole."""
        path = f"{self.root}/{name}/{LIST}"
        return json.loads(self.files.cat_file(path)) if self.files.exists(path) else None

    def _fetch(self, pairs: Iterable[tuple[str, Path]]) -> None:
        for name, path in pairs:
            with replacing(path) as temporary:
                self.files.get_file(f"{self.root}/{name}", str(temporary))


def mirror_of(url: str | None) -> Mirror | None:
    """The mirror at a URL, if there is to be one."""
    return None if url is None else Mirror(url)
