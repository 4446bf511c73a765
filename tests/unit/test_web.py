"""Pictures behind addresses: within limits of size and time, and never without being asked."""

import http.server
import io
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from mvitv2 import save_weights
from mvitv2.cli.__main__ import main
from mvitv2.data.images import ImageError
from mvitv2.data.web import Web, is_address
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.prediction import predict

from ..e2e.training_job import small_model


def png() -> bytes:
    stored = io.BytesIO()
    Image.new("RGB", (30, 40), (9, 90, 200)).save(stored, "PNG")
    return stored.getvalue()


BODY = png()


class Handler(http.server.BaseHTTPRequestHandler):
    """A server with a picture, and with every kind of trouble."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/a.png")
            return self.end_headers()
        if path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            return self.end_headers()
        if path == "/ftp":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/a.png")
            return self.end_headers()
        if path == "/none.png":
            return self.send_error(404)
        self.send_response(200)
        if path == "/cut.png":
            self.send_header("Content-Length", str(2 * len(BODY)))
        self.end_headers()
        if path == "/slow.png":
            with suppress(OSError):  # the other side has hung up by then
                for byte in BODY[:20]:
                    time.sleep(0.05)
                    self.wfile.write(bytes([byte]))
            return None
        self.wfile.write(b"<html>" if path == "/page" else BODY)
        return None

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    thread.join()
    running.server_close()


def test_a_picture_and_a_redirect_to_it(server: str) -> None:
    assert Web()(f"{server}/a.png") == Web()(f"{server}/moved") == BODY


@pytest.mark.parametrize(
    ("path", "limits", "message"),
    [
        ("/none.png", {}, "HTTP 404"),
        ("/elsewhere", {}, "HTTP 302 .*file:///etc/passwd.* is not allowed"),
        ("/ftp", {}, "redirects to ftp://127.0.0.1/a.png, which is not"),
        ("/cut.png", {}, f"cut after {len(BODY)} of {2 * len(BODY)} bytes"),
        ("/a.png", {"max_bytes": 20}, "more than 20 bytes"),
        ("/cut.png", {"max_bytes": len(BODY)}, f"has {2 * len(BODY)} bytes, more than {len(BODY)}"),
        ("/slow.png", {"seconds": 0.3}, "in 0.3 seconds and was not done"),
    ],
)
def test_trouble_is_told_in_one_line(server: str, path: str, limits: dict[str, float], message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        Web(**limits)(server + path)  # type: ignore[arg-type]
    assert caught.value.source == server + path and "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a.png", "https://", "rtsp://host/1"])
def test_only_the_web_is_spoken(url: str) -> None:
    assert is_address(url)
    with pytest.raises(ImageError, match="is no address that can be read"):
        Web()(url)


@pytest.mark.parametrize("name", ["a.png", "C:\\a.png", "c:/a.png", "a/b://c", "-", "*"])
def test_files_are_no_addresses(name: str) -> None:
    assert not is_address(name)


def test_nobody_listens() -> None:
    with pytest.raises(ImageError, match="no answer"):
        Web()("http://127.0.0.1:9/a.png")


@pytest.fixture
def weights(tmp_path: Path) -> str:
    model = small_model()
    record = Preprocessing(size=(16, 16), resize=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    model.card = {"classes": ["top", "middle", "bottom"], "preprocessing": record.to_dict()}
    save_weights(model, tmp_path / "w.safetensors")
    return str(tmp_path / "w.safetensors")


def test_predict_reads_addresses_among_files(server: str, weights: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "a.png").write_bytes(BODY)
    urls = [f"{server}/a.png?size=1", f"{server}/none.png", f"{server}/page"]
    words = ["predict", weights, str(tmp_path / "a.png"), *urls, "--allow-urls", "--save", str(tmp_path / "seen")]
    assert main(words) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split()[1:] == lines[1].split()[1:]  # the same picture
    assert "/none.png: the server answers HTTP 404" in err and "2 of 4 could not be predicted" in err
    host = server.removeprefix("http://")
    assert (tmp_path / "seen" / host / "a.png.jpg").is_file()
    assert {path.name for path in (tmp_path / "seen" / host).iterdir()} == {"a.png.jpg"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.com/a.png", "https://example.com/a.png is an address; --allow-urls fetches it"),
        ("rtsp://example.com/1", "rtsp:// is not supported"),
        ("webcam", "webcam is a camera or a screen to other programs, which is not supported here"),
        ("0", "0 is a camera"),
    ],
)
def test_what_is_not_read_is_refused_at_once(source: str, message: str, capsys) -> None:
    assert main(["predict", "no-such-model", source]) == 2
    assert message in capsys.readouterr().err


def test_without_a_fetcher_nothing_is_fetched() -> None:
    model = small_model()
    (answer,) = predict(model, "https://example.com/a.png", preprocessing=Preprocessing(size=(16, 16), resize=16))
    assert "reading those is not allowed" in (answer.error or "")
