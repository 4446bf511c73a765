"""A picture behind an address, read into memory within limits of size and time; nothing is fetched unless asked for.

Only ``https`` and ``http`` are spoken, redirects included, and an encrypted address never leads to one that is not.
"""

import http.client
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from mvitv2.data.images import ImageError

MAX_BYTES = 64 << 20
"""Larger pictures are refused."""
SECONDS = 30.0
"""How long one picture may take, from the first request to the last byte."""
SCHEMES = ("https", "http")
CHUNK = 1 << 16
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_address(name: str) -> bool:
    """Whether a name is an address of any scheme (``https://...``, ``rtsp://...``) and none of a file."""
    return _ADDRESS.match(name) is not None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect within the web, never from an encrypted address to one that is not."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """As the base class does, or a refusal."""
        scheme, before = urlsplit(newurl).scheme, urlsplit(req.full_url).scheme
        if scheme not in SCHEMES or (before == "https" and scheme != "https"):
            fp.close()
            raise ImageError(f"redirects to {newurl}, which is not encrypted or not of the web", req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass(frozen=True)
class Web:
    """What fetches pictures: ``Web()(url)`` gives the bytes of one. It may be called from several threads at once.

    Raises:
        ImageError: On a call: no address of the web, no answer, a refusal, too large, or too slow.
    """

    max_bytes: int = MAX_BYTES
    seconds: float = SECONDS

    def __call__(self, url: str) -> bytes:
        """The bytes behind ``url``."""
        parts, deadline = urlsplit(url), time.monotonic() + self.seconds
        if parts.scheme.lower() not in SCHEMES or not parts.hostname:
            raise ImageError("is no address that can be read; expected https://host/picture.jpg", url)
        request = urllib.request.Request(url, headers={"User-Agent": "mvitv2", "Accept": "image/*,*/*;q=0.5"})
        direct = [urllib.request.ProxyHandler({})] if _is_here(parts.hostname) else []
        try:
            with urllib.request.build_opener(_Redirects, *direct).open(request, timeout=self.seconds) as response:
                return self._body(response, url, deadline)
        except urllib.error.HTTPError as error:
            with error:
                raise ImageError(f"the server answers HTTP {error.code} {error.reason}", url) from error
        except TimeoutError as error:
            raise ImageError(f"no answer within {self.seconds:g} seconds", url) from error
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            reason = getattr(error, "reason", error)
            late = isinstance(reason, TimeoutError)
            told = f"no answer within {self.seconds:g} seconds" if late else f"no answer: {reason or error!r}"
            raise ImageError(told, url) from error

    def _body(self, response: http.client.HTTPResponse, url: str, deadline: float) -> bytes:
        """All that is sent, while it is neither too much nor too slow, and whole."""
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced) > self.max_bytes:
            raise ImageError(f"has {announced} bytes, more than {self.max_bytes}", url)
        body = bytearray()
        while chunk := response.read1(CHUNK):
            body += chunk
            if len(body) > self.max_bytes:
                raise ImageError(f"sends more than {self.max_bytes} bytes", url)
            if time.monotonic() > deadline:
                raise ImageError(f"sent {len(body)} bytes in {self.seconds:g} seconds and was not done", url)
        if announced.isdecimal() and len(body) < int(announced):
            raise ImageError(f"the connection was cut after {len(body)} of {announced} bytes", url)
        return bytes(body)


def _is_here(host: str) -> bool:
    """Whether a host is this machine, which no proxy can reach."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
