"""Published files by name: the tables, their lookup, and the way from a name to a file on this machine."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mvitv2.weights.download import DownloadError, fetch, fetch_hub
from mvitv2.weights.published import IMAGES, PRETRAINING, Release
from mvitv2.weights.published_detectors import DETECTORS
from mvitv2.weights.published_video import VIDEOS

RELEASES: Mapping[str, Release] = MappingProxyType({found.name: found for found in (*IMAGES, *VIDEOS, *DETECTORS)})
"""Every published file by its name; of several with one model the authors' own comes first."""


def release(name: str) -> Release:
    """The published file called ``name``.

    Args:
        name: A key of ``RELEASES``; the file's own name (``MViTv2_T_in1k.pyth``), its address, or its repository on the
            hub (``timm/mvitv2_tiny.fb_in1k``), where these name one file.

    Raises:
        ValueError: There is none, or several have this file name; the message lists what was perhaps meant.
    """
    if name in RELEASES:
        return RELEASES[name]
    found = [entry for entry in RELEASES.values() if name in _other_names(entry)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{name!r} names {len(found)} published files: {[entry.name for entry in found]}")
    known = [*RELEASES, *(other for entry in RELEASES.values() for other in _other_names(entry))]
    close = get_close_matches(name, known, n=4, cutoff=0.5) or [entry for entry in RELEASES if name in entry][:4]
    raise ValueError(f"no published file is called {name!r}; did you mean {close or list(RELEASES)[:4]}?")


def _other_names(entry: Release) -> tuple[str, ...]:
    """Address, repository and file name, as far as there are any."""
    repository = entry.hub[0] if entry.hub else ""
    own = "" if entry.hub else entry.filename
    return tuple(filter(None, (entry.url, repository, repository.removeprefix("timm/"), own)))


def releases_of(variant: str, *, task: str | None = None) -> tuple[Release, ...]:
    """All published files of an architecture, the authors' own first; those of one ``task`` only, if it is given."""
    return tuple(
        entry for entry in RELEASES.values() if entry.variant == variant and (task is None or entry.task == task)
    )


def default_release(variant: str) -> Release:
    """The file that ``pretrained=True`` means: the first that can be fetched without a browser, a trained model if any.

    Raises:
        ValueError: Nothing was published for this architecture; those with files are listed.
    """
    there = [entry for entry in releases_of(variant) if entry.url or entry.hub]
    if not there:
        known = sorted({entry.variant for entry in RELEASES.values() if entry.variant})
        raise ValueError(f"nobody published weights of {variant!r}; there are some of {known}")
    return min(there, key=lambda entry: entry.task == PRETRAINING)  # the first of the smallest


def fetch_release(entry: Release | str, **options: Any) -> Path:
    """The file of a release, from the cache or the network.

    Args:
        entry: A release or its name.
        **options: ``cache_dir``, ``offline``, ``mirror`` as for :func:`~mvitv2.weights.download.fetch`, and
            ``progress`` where the file does not come from the hub.

    Raises:
        ValueError: There is no release of that name.
        DownloadError: It cannot be fetched, or only by hand; the message says how.
    """
    found = release(entry) if isinstance(entry, str) else entry
    if found.hub:
        return fetch_hub(*found.hub, **{key: value for key, value in options.items() if key != "progress"})
    if found.url is None:
        raise DownloadError(
            f"{found.name} has no direct address: save {found.page} and give the path of the saved file"
        )
    return fetch(found.url, sha256=found.sha256, size=found.size, **options)
