"""One HTTP request for the missing rest of a file: ranges, redirects and failures, sorted into wait and give up."""

import http.client
import ipaddress
import re
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as cut."""
CHUNK = 1 << 20
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be different in a moment."""
LONGEST_WAIT = 60.0


class Refusal(Exception):
    """An answer that another attempt would not change."""


class Interruption(Exception):
    """A failure that another attempt may mend, after ``wait`` seconds at least."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = min(wait, LONGEST_WAIT)


def checked(url: str) -> str:
    """``url``, if it is safe to fetch: encrypted, or on this machine.

    Raises:
        ValueError: Neither.
    """
    parts = urlsplit(url)
    if (parts.scheme == "https" and parts.hostname) or (parts.scheme == "http" and is_loopback(parts.hostname)):
        return url
    raise ValueError(f"{url}: addresses must begin with https://; plain http is for this machine only")


def is_loopback(host: str | None) -> bool:
    """Whether ``host`` is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to https only; on this machine to http as well."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """As the base class does, or a refusal."""
        target, here = urlsplit(newurl), is_loopback(urlsplit(req.full_url).hostname)
        on_this_machine = here and is_loopback(target.hostname)
        if target.scheme != "https" and not (target.scheme == "http" and on_this_machine):
            fp.close()
            raise Refusal(f"it redirects to {newurl}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def append_rest(url: str, part: Path, *, size: int | None, verified: bool) -> Iterator[tuple[int, int | None]]:
    """Append the missing rest of ``url`` to ``part``, in one request.

    Args:
        url: A :func:`checked` address.
        part: Partial file; created where missing.
        size: Bytes of the whole, where known.
        verified: Whether a hash will tell a file that was put together from two versions.

    Yields:
        Bytes there, and bytes in all where known, after each chunk.

    Raises:
        Refusal, Interruption: See there.
    """
    version = _version_file(part)
    start = part.stat().st_size if part.is_file() and (verified or version.is_file()) else 0
    response = _answer(url, part, start)
    if response is None:  # nothing is missing
        return
    with response:
        start = _position(response, part, start)
        total = _total(response, start, size)
        _check_room(part, (total or 0) - start)
        if not start:
            _remember_version(response, version)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            done = start
            for chunk in _chunks(response):
                done += file.write(chunk)
                if total is not None and done > total:
                    break
                yield done, total
    if total is not None and done > total:
        discard(part)
        raise Refusal(f"it sends more than the {total} bytes expected")
    if total is not None and done < total:
        raise Interruption(f"the connection was cut after {done} of {total} bytes")


def discard(part: Path) -> None:
    """Remove a partial file and what is known of its version."""
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def _version_file(part: Path) -> Path:
    """Where the server's name for this version of the file is kept (``ETag`` or ``Last-Modified``)."""
    return part.with_name(f"{part.name}.version")


def _answer(url: str, part: Path, start: int) -> http.client.HTTPResponse | None:
    """The server's answer to the request from byte ``start`` on; ``None`` if there is nothing behind it."""
    request = urllib.request.Request(url, headers={"User-Agent": "mvitv2", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        if _version_file(part).is_file():
            request.add_header("If-Range", _version_file(part).read_text())
    direct = [urllib.request.ProxyHandler({})] if is_loopback(urlsplit(url).hostname) else []
    try:
        return urllib.request.build_opener(_Redirects, *direct).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                return _past_the_end(error, part, start)
            raise _sorted(error) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise Refusal(f"its certificate is not trusted: {reason}") from error
        raise Interruption(f"no answer: {reason or type(error).__name__}") from error


def _past_the_end(error: urllib.error.HTTPError, part: Path, start: int) -> None:
    """The partial file is the whole already, or it is longer than the whole and worthless."""
    if error.headers.get("Content-Range") == f"bytes */{start}":
        return
    discard(part)
    raise Interruption(f"the {start} bytes at hand are more than the server has; they were deleted")


def _sorted(error: urllib.error.HTTPError) -> Refusal | Interruption:
    """A passing failure of the server, or a final answer."""
    reason = f"HTTP {error.code} {error.reason}"
    if error.code in PASSING:
        wait = error.headers.get("Retry-After", "")
        return Interruption(reason, float(wait) if wait.isdecimal() else 0.0)
    hint = {401: "it needs a login", 403: "access is forbidden", 404: "there is no such file; has it moved?"}
    return Refusal(f"{reason}: {hint.get(error.code, 'the server refuses it')}")


def _position(response: http.client.HTTPResponse, part: Path, start: int) -> int:
    """The byte at which the body begins: ``start``, or 0 where the server does not resume."""
    if (response.headers.get_content_type() or "") == "text/html":
        raise Refusal("it answers with a web page; it needs a login, or the file has moved")
    if response.status != http.client.PARTIAL_CONTENT:
        return 0
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if not found or int(found[1]) != start:
        discard(part)
        raise Interruption(f"asked to go on at byte {start}, it sends {response.headers.get('Content-Range')!r}")
    return start


def _total(response: http.client.HTTPResponse, start: int, size: int | None) -> int | None:
    """Bytes of the whole file as the server announces them, compared with what is known."""
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdecimal() else None
    if None not in (total, size) and total != size:
        raise Refusal(f"it offers {total} bytes, expected {size}")
    return size if total is None else total


def _check_room(part: Path, needed: int) -> None:
    """Say at once what would fail in an hour."""
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise Refusal(
            f"{needed} bytes are missing and {part.parent} has room for {free}; make room or move MVITV2_CACHE"
        )


def _remember_version(response: http.client.HTTPResponse, version: Path) -> None:
    """Keep the name of this version, so that a later request goes on with the same or starts anew."""
    tag = response.headers.get("ETag", "")
    name = tag if tag.startswith('"') else response.headers.get("Last-Modified")  # W/ tags do not promise equal bytes
    if name:
        version.write_text(name)
    else:
        version.unlink(missing_ok=True)


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body, piece by piece."""
    while True:
        try:
            chunk = response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise Interruption(f"the connection broke: {error or type(error).__name__}") from error
        if not chunk:
            return
        yield chunk
