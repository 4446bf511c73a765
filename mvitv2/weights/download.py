"""Published files, fetched once into a cache: resumed, verified, safe beside other processes, mirrored or offline.

``MVITV2_CACHE`` moves the cache, ``MVITV2_OFFLINE=1`` forbids the network, ``MVITV2_MIRROR=https://host/path`` stands
in for scheme and host of every address. The function arguments of the same names win over them.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mvitv2.weights import transfer

ATTEMPTS = 5
"""Requests without progress before a download is given up."""
PAUSE = 1.0
"""Seconds before the second request; doubled each time."""
PROGRESS = 1 << 20
"""A request that brought this many bytes counts as progress."""
TRUE = ("1", "true", "yes", "on")
HASH_IN_NAME = re.compile(r"-(?!(?:19|20)\d{6}\.)([0-9a-f]{8})\.[a-z]+$")
"""torchvision and OpenMMLab end names in the first eight digits of the sha256: ``mvit_v2_s-ae3be167.pth``; no dates."""


class DownloadError(OSError):
    """A file could not be fetched; the message says from where, why, and what to do."""


class NotOnHub(DownloadError):
    """A repository of the hub is there and has no such file."""


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is fetched."""

    sha256: str | None
    size: int | None

    def mismatch(self, path: Path) -> str | None:
        """Why the file at ``path`` is not the expected one; ``None`` if nothing speaks against it."""
        found = path.stat().st_size
        if self.size is not None and found != self.size:
            return f"it has {found} bytes, expected {self.size}"
        if self.sha256 is None:
            return None
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return None if digest.startswith(self.sha256) else f"its sha256 is {digest}, expected {self.sha256}"

    def __str__(self) -> str:
        size = f"{self.size} bytes" if self.size is not None else "size unknown"
        return f"{size}, sha256 {self.sha256}..." if self.sha256 else size


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """``cache_dir``, else ``MVITV2_CACHE``, else ``mvitv2`` in ``XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := cache_dir or os.environ.get("MVITV2_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mvitv2"


def cached_path(url: str, *, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where ``fetch`` puts the file of ``url``: host and path as folders, whatever mirror it comes from."""
    parts = urlsplit(url)
    segments = [segment for segment in parts.path.split("/") if segment not in ("", ".", "..")]
    if not segments or parts.path.endswith("/"):
        raise ValueError(f"{url} names no file")
    names = [re.sub(r"[^\w.+=@-]", "_", segment) for segment in (parts.netloc.rpartition("@")[2], *segments)]
    if parts.query or names[1:] != segments:  # keep addresses apart that would look alike
        names[-1] = f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{names[-1]}"
    return cache_folder(cache_dir).joinpath(*names)


def hash_in_name(url: str) -> str | None:
    """The first eight digits of the sha256, where the publisher wrote them into the name."""
    found = HASH_IN_NAME.search(urlsplit(url).path)
    return found[1] if found else None


def is_offline(offline: bool | None = None) -> bool:
    """``offline``, else whether ``MVITV2_OFFLINE`` says so."""
    return os.environ.get("MVITV2_OFFLINE", "").lower() in TRUE if offline is None else offline


def mirrored(url: str, mirror: str | None = None) -> str:
    """``url`` with scheme and host replaced by ``mirror`` or ``MVITV2_MIRROR``, if there is one."""
    base = mirror or os.environ.get("MVITV2_MIRROR")
    if not base:
        return url
    parts = urlsplit(url)
    return base.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")


def fetch(
    url: str,
    *,
    sha256: str | None = None,
    size: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
    mirror: str | None = None,
    progress: bool = True,
) -> Path:
    """The file of ``url``, from the cache or from the network.

    Args:
        url: ``https``; plain ``http`` on this machine only.
        sha256: All 64 hexadecimal digits or the first eight or more; ``None``: those in the name, if any.
        size: Bytes, where known.
        cache_dir: Folder of the cache; ``None``: see :func:`cache_folder`.
        offline: Never use the network; ``None``: see ``MVITV2_OFFLINE``.
        mirror: Stands in for scheme and host; ``None``: see ``MVITV2_MIRROR``.
        progress: Draw a bar on standard error, if that is a terminal.

    Raises:
        ValueError: The address or the hash is malformed.
        DownloadError: No answer, a refusal, a wrong file, no room on the disk, or offline and not cached.
    """
    source = transfer.checked(mirrored(url, mirror))
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{8,64}", sha256):
        raise ValueError(f"sha256={sha256!r} must be the first 8 to 64 hexadecimal digits, in lower case")
    expected = Expected(sha256 or hash_in_name(url), size)
    target = cached_path(url, cache_dir=cache_dir)
    problem = expected.mismatch(target) if target.is_file() else "it is not there"
    if problem is None:
        return target
    if is_offline(offline):
        raise DownloadError(
            f"offline, and {target} cannot be used: {problem}. Fetch {url} on another machine ({expected}) and put it "
            "there, or allow the network (MVITV2_OFFLINE=0)"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f"{target.name}.lock")), _bar(target.name, progress) as advance:
        if target.is_file() and expected.mismatch(target) is None:  # another process was faster
            return target
        _complete(source, target, expected, advance)
    return target


def _complete(source: str, target: Path, expected: Expected, advance: Callable[[int, int | None], None]) -> None:
    """Bring the partial file to its end, verify it, and give it its name; start anew once if an old part spoiled it."""
    part = target.with_name(f"{target.name}.part")
    resumed = part.is_file()
    _download(source, part, expected, advance)
    problem = expected.mismatch(part)
    if problem is not None and resumed:
        transfer.discard(part)
        _download(source, part, expected, advance)
        problem = expected.mismatch(part)
    if problem is not None:
        transfer.discard(part)
        raise DownloadError(f"{source} gave a wrong file: {problem}. It was deleted; try again or another mirror")
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(target)
    transfer.discard(part)


def _download(source: str, part: Path, expected: Expected, advance: Callable[[int, int | None], None]) -> None:
    """Ask again and again, each time for what is missing, until all is there or nothing comes any more."""
    failures = 0
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            for done, total in transfer.append_rest(
                source, part, size=expected.size, verified=expected.sha256 is not None
            ):
                advance(done, total)
            return
        except transfer.Refusal as error:
            raise DownloadError(f"{source}: {error}") from error
        except transfer.Interruption as error:
            now = part.stat().st_size if part.is_file() else 0
            failures = 1 if now - before >= PROGRESS else failures + 1
            if failures >= ATTEMPTS:
                raise DownloadError(
                    f"{source}: {error}, after {failures} attempts. {now} bytes are kept and will be resumed; "
                    "check the network, set MVITV2_MIRROR, or put the file into the cache by hand"
                ) from error
            time.sleep(max(error.wait, PAUSE * 2 ** (failures - 1)))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of ``path`` against other processes and threads; waits while another holds it."""
    with path.open("ab") as file:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file lets go of it


@contextmanager
def _bar(name: str, wanted: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on standard error where that is a terminal; otherwise nothing is drawn."""
    from rich.console import Console

    console = Console(stderr=True)
    if not (wanted and console.is_terminal):
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def fetch_hub(
    repo_id: str,
    filename: str,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
    mirror: str | None = None,
) -> Path:
    """A file of a Hugging Face repository, in that library's cache unless ``cache_dir`` or ``MVITV2_CACHE`` is set.

    Args:
        repo_id: Such as ``timm/mvitv2_tiny.fb_in1k``.
        filename: Such as ``model.safetensors``.
        revision: Branch, tag or commit; ``None``: the main branch.
        cache_dir: As for :func:`fetch`.
        offline: As for :func:`fetch`.
        mirror: As for :func:`fetch`; a mirror is sent no token.

    Raises:
        ImportError: ``huggingface_hub`` is not installed.
        DownloadError: There is no such repository, no answer, or it is not cached and the network is forbidden.
        NotOnHub: The repository has no such file.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise ImportError("files of the Hugging Face hub need: pip install 'mvitv2[hub]'") from error
    base = mirror or os.environ.get("MVITV2_MIRROR")
    own_cache = cache_dir or os.environ.get("MVITV2_CACHE")
    options: dict[str, Any] = {"endpoint": transfer.checked(base).rstrip("/"), "token": False} if base else {}
    try:
        found = huggingface_hub.hf_hub_download(
            repo_id,
            filename,
            revision=revision,
            cache_dir=cache_folder(cache_dir) / "huggingface" if own_cache else None,
            local_files_only=is_offline(offline),
            **options,
        )
    except errors.LocalEntryNotFoundError as error:
        why = "offline, and it is not in the cache" if is_offline(offline) else "the hub does not answer"
        raise DownloadError(
            f"{filename} of {repo_id}: {why}. Fetch it on another machine with `hf download {repo_id} {filename}` and "
            "copy that cache here, or give the path of the file itself"
        ) from error
    except (errors.HfHubHTTPError, errors.HFValidationError) as error:
        kind = NotOnHub if isinstance(error, errors.EntryNotFoundError) else DownloadError
        raise kind(f"{filename} of {repo_id}: {str(error).strip().splitlines()[0]}") from error
    return Path(found)
