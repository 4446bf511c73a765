"""What is kept between runs: a folder of its own in the cache, and files that are written whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def cache_folder(name: str) -> Path:
    """``name`` in ``MVITV2_CACHE``, else in ``mvitv2`` in ``XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := os.environ.get("MVITV2_CACHE"):
        return Path(chosen).expanduser() / name
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mvitv2" / name


def is_offline() -> bool:
    """Whether ``MVITV2_OFFLINE`` forbids the network."""
    return os.environ.get("MVITV2_OFFLINE", "").lower() in ("1", "true", "yes", "on")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, which takes the place of ``path`` at the end: whole, or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
