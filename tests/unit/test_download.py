"""Downloads against a server on this machine: resumed, verified, refused, repeated, mirrored, shared, offline."""

import hashlib
import http.server
import multiprocessing
import re
import socket
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mvitv2.weights import download, transfer
from mvitv2.weights.download import DownloadError, cached_path, fetch

BODY = bytes(range(256)) * 1200  # 300 kB
SHA = hashlib.sha256(BODY).hexdigest()


@dataclass
class Server:
    """What the server does, and what it was asked."""

    url: str = ""
    body: bytes = BODY
    ranges: bool = True
    etag: str | None = '"v1"'
    announce_length: bool = True
    statuses: list[int] = field(default_factory=list)
    """Answers to the next requests before the file is given."""
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the next connections are cut."""
    headers: dict[str, str] = field(default_factory=dict)
    redirect: str | None = None
    wrong_range: bool = False
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Serve one GET."""
        asked = handler.headers.get("Range")
        self.requests.append((handler.path, asked))
        if self.statuses:
            return self.status(handler, self.statuses.pop(0))
        if self.redirect:
            handler.send_response(302)
            handler.send_header("Location", self.redirect)
            handler.send_header("Content-Length", "0")
            return handler.end_headers()
        start = self.start(asked, handler.headers.get("If-Range"))
        if start > len(self.body) or (start == len(self.body) and start):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.body)}")
            handler.send_header("Content-Length", "0")
            return handler.end_headers()
        rest = self.body[start:]
        handler.send_response(206 if start else 200)
        if start:
            first = start + (1 if self.wrong_range else 0)
            handler.send_header("Content-Range", f"bytes {first}-{len(self.body) - 1}/{len(self.body)}")
            self.wrong_range = False
        if self.announce_length:
            handler.send_header("Content-Length", str(len(rest)))
        for name, value in ({"ETag": self.etag} if self.etag else {}).items() | self.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        cut = self.cuts.pop(0) if self.cuts else None
        if handler.command == "GET":
            handler.wfile.write(rest[:cut])
        handler.close_connection = True
        return None

    def start(self, asked: str | None, version: str | None) -> int:
        """First byte to send."""
        found = re.fullmatch(r"bytes=(\d+)-", asked or "")
        return int(found[1]) if found and self.ranges and version in (None, self.etag) else 0

    @staticmethod
    def status(handler: http.server.BaseHTTPRequestHandler, code: int) -> None:
        """An answer without a file."""
        handler.send_response(code)
        handler.send_header("Retry-After", "0")
        handler.send_header("Content-Length", "0")
        handler.end_headers()


@pytest.fixture
def server():
    """A server of its own for each test."""
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No settings from outside, no waiting between attempts."""
    for name in ("MVITV2_CACHE", "MVITV2_OFFLINE", "MVITV2_MIRROR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.001)


def part_of(url: str, cache: Path, content: bytes, version: str | None = '"v1"') -> Path:
    """A partial file, as an earlier process left it."""
    path = cached_path(url, cache_dir=cache)
    path.parent.mkdir(parents=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    if version:
        part.with_name(f"{part.name}.version").write_text(version)
    return part


def left_in(cache: Path) -> set[str]:
    """Names of all files below ``cache`` but locks."""
    return {path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_a_file_is_fetched_once_and_lies_under_host_and_path(server, tmp_path):
    path = fetch(f"{server.url}/mvit/MViTv2_T.pyth", sha256=SHA, size=len(BODY), cache_dir=tmp_path)
    assert path.read_bytes() == BODY
    assert path == tmp_path / server.url.removeprefix("http://").replace(":", "_") / "mvit" / "MViTv2_T.pyth"
    assert fetch(f"{server.url}/mvit/MViTv2_T.pyth", cache_dir=tmp_path) == path
    assert len(server.requests) == 1
    assert left_in(tmp_path) == {"MViTv2_T.pyth"}


@pytest.mark.parametrize("digits", [8, 12, 64])
def test_a_hash_may_be_given_by_its_first_digits(server, tmp_path, digits):
    assert fetch(f"{server.url}/a.pth", sha256=SHA[:digits], cache_dir=tmp_path).read_bytes() == BODY


def test_the_hash_in_a_name_counts(server, tmp_path):
    assert fetch(f"{server.url}/mvit_v2_s-{SHA[:8]}.pth", cache_dir=tmp_path).read_bytes() == BODY
    with pytest.raises(DownloadError, match="expected 00000000"):
        fetch(f"{server.url}/mvit_v2_s-00000000.pth", cache_dir=tmp_path)


def test_which_names_hold_a_hash():
    host = "https://download.pytorch.org/models"
    assert download.hash_in_name(f"{host}/mvit_v2_s-ae3be167.pth") == "ae3be167"
    assert download.hash_in_name(f"{host}/mvitv2-tiny_3rdparty_in1k_20220722-db7beeef.pth") == "db7beeef"
    assert download.hash_in_name(f"{host}/model-20220722.pth") is None
    assert download.hash_in_name(f"{host}/MViTv2_S_16x4_k400_f302660347.pyth") is None
    assert download.hash_in_name(f"{host}/model_final_1a1c30.pkl") is None


def test_a_wrong_file_is_refused_and_deleted(server, tmp_path):
    with pytest.raises(DownloadError, match="wrong file: its sha256 is"):
        fetch(f"{server.url}/a.pth", sha256="0" * 64, cache_dir=tmp_path)
    with pytest.raises(DownloadError, match="offers 307200 bytes, expected 5"):
        fetch(f"{server.url}/a.pth", size=5, cache_dir=tmp_path)
    server.announce_length = False
    with pytest.raises(DownloadError, match="more than the 5 bytes expected"):
        fetch(f"{server.url}/a.pth", size=5, cache_dir=tmp_path)
    assert left_in(tmp_path) == set()


def test_a_spoiled_file_in_the_cache_is_fetched_again(server, tmp_path):
    path = cached_path(f"{server.url}/a.pth", cache_dir=tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"spoiled")
    assert fetch(f"{server.url}/a.pth", sha256=SHA, cache_dir=tmp_path).read_bytes() == BODY


def test_a_partial_file_is_continued(server, tmp_path):
    part_of(f"{server.url}/a.pth", tmp_path, BODY[:1000])
    assert fetch(f"{server.url}/a.pth", sha256=SHA, cache_dir=tmp_path).read_bytes() == BODY
    assert server.requests == [("/a.pth", "bytes=1000-")]
    assert left_in(tmp_path) == {"a.pth"}


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    server.ranges = False
    part_of(f"{server.url}/a.pth", tmp_path, b"x" * 1000)
    assert fetch(f"{server.url}/a.pth", sha256=SHA, cache_dir=tmp_path).read_bytes() == BODY
    assert server.requests == [("/a.pth", "bytes=1000-")]


def test_another_version_on_the_server_starts_anew(server, tmp_path):
    part_of(f"{server.url}/a.pth", tmp_path, b"x" * 1000, version='"v0"')
    assert fetch(f"{server.url}/a.pth", cache_dir=tmp_path).read_bytes() == BODY


def test_a_partial_file_of_unknown_version_is_used_only_if_a_hash_can_tell(server, tmp_path):
    part_of(f"{server.url}/a.pth", tmp_path, BODY[:1000], version=None)
    assert fetch(f"{server.url}/a.pth", cache_dir=tmp_path).read_bytes() == BODY
    part_of(f"{server.url}/b/b.pth", tmp_path, BODY[:1000], version=None)
    assert fetch(f"{server.url}/b/b.pth", sha256=SHA, cache_dir=tmp_path).read_bytes() == BODY
    assert [asked for _, asked in server.requests] == [None, "bytes=1000-"]


def test_a_partial_file_with_wrong_bytes_is_thrown_away_once(server, tmp_path):
    part_of(f"{server.url}/a.pth", tmp_path, b"x" * 1000)
    assert fetch(f"{server.url}/a.pth", sha256=SHA, cache_dir=tmp_path).read_bytes() == BODY
    assert [asked for _, asked in server.requests] == ["bytes=1000-", None]


@pytest.mark.parametrize("extra", [0, 7])
def test_a_partial_file_that_is_whole_or_longer(server, tmp_path, extra):
    part_of(f"{server.url}/a.pth", tmp_path, BODY + b"x" * extra)
    assert fetch(f"{server.url}/a.pth", sha256=SHA, cache_dir=tmp_path).read_bytes() == BODY
    assert len(server.requests) == (2 if extra else 1)


def test_a_range_that_was_not_asked_for_is_not_appended(server, tmp_path):
    server.wrong_range = True
    part_of(f"{server.url}/a.pth", tmp_path, BODY[:1000])
    assert fetch(f"{server.url}/a.pth", sha256=SHA, cache_dir=tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("etag", ['"v1"', 'W/"weak"', None])
def test_a_connection_cut_half_way_is_resumed(server, tmp_path, etag):
    server.etag = etag
    server.cuts = [100_000, 100_000]
    assert fetch(f"{server.url}/a.pth", sha256=SHA, cache_dir=tmp_path).read_bytes() == BODY
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-", "bytes=200000-"]


def test_passing_failures_are_waited_for(server, tmp_path):
    server.statuses = [500, 503, 429, 502]
    assert fetch(f"{server.url}/a.pth", cache_dir=tmp_path).read_bytes() == BODY
    assert len(server.requests) == 5


def test_lasting_failures_end_after_a_few_attempts_and_keep_what_came(server, tmp_path):
    server.cuts = [1000] + [0] * 20
    with pytest.raises(DownloadError, match=r"cut after 1000 of 307200 bytes, after 5 attempts\. 1000 bytes are kept"):
        fetch(f"{server.url}/a.pth", cache_dir=tmp_path)
    server.cuts = []
    assert fetch(f"{server.url}/a.pth", cache_dir=tmp_path).read_bytes() == BODY
    assert server.requests[-1][1] == "bytes=1000-"


def test_progress_gives_a_slow_line_more_attempts(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PROGRESS", 10_000)
    server.cuts = [20_000] * 12
    assert fetch(f"{server.url}/a.pth", cache_dir=tmp_path).read_bytes() == BODY
    assert len(server.requests) == 13


@pytest.mark.parametrize(
    ("status", "hint"), [(404, "no such file"), (403, "forbidden"), (401, "login"), (410, "refuses")]
)
def test_final_answers_are_not_repeated(server, tmp_path, status, hint):
    server.statuses = [status] * 9
    with pytest.raises(DownloadError, match=rf"{server.url}/a\.pth: HTTP {status} .*{hint}"):
        fetch(f"{server.url}/a.pth", cache_dir=tmp_path)
    assert len(server.requests) == 1


def test_a_web_page_is_no_weights_file(server, tmp_path):
    server.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(DownloadError, match="web page"):
        fetch(f"{server.url}/a.pth", cache_dir=tmp_path)
    assert left_in(tmp_path) == set()


def test_nobody_answers(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a.pth"
        with pytest.raises(DownloadError, match=r"no answer: .*refused.*after 5 attempts"):
            fetch(url, cache_dir=tmp_path)


def test_a_full_disk_is_said_before_the_download(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DownloadError, match="room for 1000; make room"):
        fetch(f"{server.url}/a.pth", cache_dir=tmp_path)


def test_redirects_on_this_machine_are_followed_with_their_range(server, tmp_path):
    part_of(f"{server.url}/a.pth", tmp_path, BODY[:1000])
    server.statuses = []
    plain = server.answer

    def once(handler):
        if handler.path == "/a.pth":
            handler.send_response(302)
            handler.send_header("Location", "/b.pth")
            handler.send_header("Content-Length", "0")
            return handler.end_headers()
        return plain(handler)

    server.answer = once
    assert fetch(f"{server.url}/a.pth", sha256=SHA, cache_dir=tmp_path).read_bytes() == BODY
    assert server.requests == [("/b.pth", "bytes=1000-")]


@pytest.mark.parametrize("elsewhere", ["http://example.com/a.pth", "ftp://127.0.0.1/a", "file:///etc/passwd"])
def test_redirects_to_unsafe_places_are_refused(server, tmp_path, elsewhere):
    server.redirect = elsewhere
    with pytest.raises(DownloadError, match=r"not encrypted|refuses it"):
        fetch(f"{server.url}/a.pth", cache_dir=tmp_path)


def test_an_endless_redirect_ends(server, tmp_path):
    server.redirect = f"{server.url}/a.pth"
    with pytest.raises(DownloadError, match="HTTP 302"):
        fetch(f"{server.url}/a.pth", cache_dir=tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.pth",
        "ftp://example.com/a",
        "file:///a.pth",
        "a.pth",
        "https:///a",
        "http://127.evil.com/a",
    ],
)
def test_only_encrypted_addresses_are_asked(url, tmp_path):
    with pytest.raises(ValueError, match="https"):
        fetch(url, cache_dir=tmp_path)


def test_malformed_arguments(tmp_path):
    with pytest.raises(ValueError, match="hexadecimal"):
        fetch("https://example.com/a.pth", sha256="XYZ", cache_dir=tmp_path)
    for url in ("https://example.com", "https://example.com/models/"):
        with pytest.raises(ValueError, match="names no file"):
            fetch(url, cache_dir=tmp_path)


# --- offline, mirror, places -------------------------------------------------------------------------------------


def test_offline_says_which_file_to_put_where_and_then_takes_it(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MVITV2_OFFLINE", "1")
    url = "https://dl.fbaipublicfiles.com/mvit/mvitv2_models/MViTv2_T_in1k.pyth"
    path = cached_path(url, cache_dir=tmp_path)
    with pytest.raises(DownloadError) as caught:
        fetch(url, sha256=SHA, size=len(BODY), cache_dir=tmp_path)
    assert url in str(caught.value)
    assert str(path) in str(caught.value)
    assert "307200 bytes" in str(caught.value)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    with pytest.raises(DownloadError, match="14 bytes, expected 307200"):
        fetch(url, sha256=SHA, size=len(BODY), cache_dir=tmp_path)
    assert path.read_bytes() == b"something else"
    path.write_bytes(BODY)
    assert fetch(url, sha256=SHA, size=len(BODY), cache_dir=tmp_path) == path
    monkeypatch.setenv("MVITV2_OFFLINE", "0")
    assert not download.is_offline()
    assert download.is_offline(True)


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_mirror_stands_in_for_scheme_and_host(server, tmp_path, monkeypatch, by_variable):
    url = "https://dl.fbaipublicfiles.com/mvit/a.pth?download=true"
    mirror = None if by_variable else f"{server.url}/copies/"
    if by_variable:
        monkeypatch.setenv("MVITV2_MIRROR", f"{server.url}/copies")
    path = fetch(url, sha256=SHA, cache_dir=tmp_path, mirror=mirror)
    assert server.requests == [("/copies/mvit/a.pth?download=true", None)]
    assert path == cached_path(url, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="https"):
        fetch("https://example.com/b.pth", mirror="http://example.com", cache_dir=tmp_path)


def test_where_the_cache_is(monkeypatch, tmp_path):
    assert download.cache_folder() == Path("~/.cache/mvitv2").expanduser()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert download.cache_folder() == tmp_path / "xdg" / "mvitv2"
    monkeypatch.setenv("MVITV2_CACHE", str(tmp_path / "mine"))
    assert download.cache_folder() == tmp_path / "mine"
    assert download.cache_folder("~/other") == Path("~/other").expanduser()


@pytest.mark.parametrize(
    "path", ["../../../etc/passwd", "..%2f..%2fa", "a/../../b", "x\\..\\y", "sp ace", "grün", "a?b=../c"]
)
def test_no_address_leads_out_of_the_cache(path, tmp_path):
    found = cached_path(f"https://example.com/{path}", cache_dir=tmp_path)
    assert found.resolve().is_relative_to(tmp_path / "example.com")
    assert re.fullmatch(r"[\w.+=@-]+", found.name)


def test_addresses_that_differ_in_their_query_are_kept_apart():
    assert cached_path("https://example.com/a?x=1") != cached_path("https://example.com/a?x=2")
    assert cached_path("https://user:secret@example.com/a").parts[-2] == "example.com"


# --- two at a time -----------------------------------------------------------------------------------------------


def test_threads_that_want_the_same_file_fetch_it_once(server, tmp_path):
    found: list[bytes] = []

    def work() -> None:
        found.append(fetch(f"{server.url}/a.pth", sha256=SHA, cache_dir=tmp_path).read_bytes())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [BODY] * 4
    assert len(server.requests) == 1


def hold(path: Path, ready, let_go) -> None:
    """Another process with the lock."""
    with download.locked(path):
        ready.set()
        let_go.wait(30)


def test_processes_wait_for_each_other(server, tmp_path):
    url = f"{server.url}/a.pth"
    path = cached_path(url, cache_dir=tmp_path)
    path.parent.mkdir(parents=True)
    context = multiprocessing.get_context("spawn")
    ready, let_go = context.Event(), context.Event()
    other = context.Process(target=hold, args=(path.with_name("a.pth.lock"), ready, let_go))
    other.start()
    assert ready.wait(60)
    mine = threading.Thread(target=fetch, args=(url,), kwargs={"cache_dir": tmp_path})
    mine.start()
    mine.join(0.2)
    assert mine.is_alive()
    assert server.requests == []
    let_go.set()
    mine.join(30)
    other.join(30)
    assert path.read_bytes() == BODY


def test_a_cached_file_needs_no_writable_cache(server, tmp_path):
    path = fetch(f"{server.url}/a.pth", cache_dir=tmp_path)
    path.with_name("a.pth.lock").unlink()
    assert fetch(f"{server.url}/a.pth", cache_dir=tmp_path) == path
    assert not path.with_name("a.pth.lock").exists()


def test_a_bar_is_drawn_on_a_terminal_only(server, tmp_path, monkeypatch, capsys):
    fetch(f"{server.url}/a.pth", cache_dir=tmp_path)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    fetch(f"{server.url}/b.pth", cache_dir=tmp_path)
    assert "b.pth" in capsys.readouterr().err
    fetch(f"{server.url}/c.pth", cache_dir=tmp_path, progress=False)
    assert capsys.readouterr().err == ""


# --- the Hugging Face hub ----------------------------------------------------------------------------------------


@pytest.fixture
def hub(server, monkeypatch):
    """The server as a hub that holds one file."""
    pytest.importorskip("huggingface_hub", reason="comes with mvitv2[hub]")
    plain = server.answer

    def answer(handler):
        if handler.path == "/timm/tiny/resolve/main/model.safetensors":
            server.headers = {"X-Repo-Commit": "0" * 40, "ETag": f'"{SHA}"'}
            server.etag = None
            return plain(handler)
        server.requests.append((handler.path, None))
        handler.send_response(404)
        handler.send_header("X-Error-Code", "EntryNotFound" if "/timm/tiny/" in handler.path else "RepoNotFound")
        handler.send_header("Content-Length", "0")
        return handler.end_headers()

    server.answer = answer
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return server


def test_files_of_the_hub_come_through_its_library(hub, tmp_path):
    path = download.fetch_hub("timm/tiny", "model.safetensors", mirror=hub.url, cache_dir=tmp_path)
    assert path.read_bytes() == BODY
    assert path.is_relative_to(tmp_path / "huggingface")
    asked = len(hub.requests)
    found = download.fetch_hub("timm/tiny", "model.safetensors", mirror=hub.url, cache_dir=tmp_path, offline=True)
    assert found == path
    assert len(hub.requests) == asked


def test_what_the_hub_lacks_is_said(hub, tmp_path):
    with pytest.raises(DownloadError, match=r"other\.bin of timm/tiny: .*404"):
        download.fetch_hub("timm/tiny", "other.bin", mirror=hub.url, cache_dir=tmp_path)
    with pytest.raises(DownloadError, match=r"model\.safetensors of timm/none"):
        download.fetch_hub("timm/none", "model.safetensors", mirror=hub.url, cache_dir=tmp_path)
    with pytest.raises(DownloadError, match="not/a/name"):
        download.fetch_hub("not/a/name", "model.safetensors", mirror=hub.url, cache_dir=tmp_path)


def test_the_hub_offline_says_what_to_do(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("MVITV2_OFFLINE", "1")
    with pytest.raises(DownloadError, match=r"offline, and it is not in the cache.*hf download timm/tiny"):
        download.fetch_hub("timm/tiny", "model.safetensors", cache_dir=tmp_path)
    assert hub.requests == []


def test_without_its_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'mvitv2\[hub\]'"):
        download.fetch_hub("timm/tiny", "model.safetensors")
