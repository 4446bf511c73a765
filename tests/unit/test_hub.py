"""Models as folders and repositories: written, read, pushed, whoever's library wrote them."""

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import mvitv2
from mvitv2.cli.__main__ import main
from mvitv2.core.model import MViT
from mvitv2.preprocessing import Preprocessing
from mvitv2.weights import hub
from mvitv2.weights.download import DownloadError
from mvitv2.weights.hub import UploadError
from mvitv2.weights.page import page
from mvitv2.weights.rename import DialectError
from tests import tiny

CLASSES = ["ant", "bee", "cat", "dog", "eel"]
PIXELS = Preprocessing(size=(32, 48), resize=(40, 60))


@pytest.fixture
def model() -> MViT:
    made = tiny.model(tiny.image())
    made.card = {"classes": CLASSES, "preprocessing": PIXELS.to_dict(), "provenance": {"license": "MIT"}}
    return made


def same(found: Any, model: MViT) -> None:
    pixels = tiny.pixels(model.config)
    torch.testing.assert_close(found(pixels), model(pixels))
    assert not found.training


def test_a_folder_gives_the_model_back(model: MViT, tmp_path: Path) -> None:
    folder = mvitv2.save_pretrained(model, tmp_path / "made" / "here")
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    for source in (folder, str(folder), folder / "model.safetensors"):
        found: Any = mvitv2.from_pretrained(source)
        same(found, model)
        assert found.card["classes"] == CLASSES and found.card["preprocessing"] == PIXELS.to_dict()
    stated = json.loads((folder / "config.json").read_text())
    assert stated["id2label"]["3"] == "dog" and stated["architectures"] == ["MViTv2ForImageClassification"]


def test_other_classes_are_asked_for_on_the_way(model: MViT, tmp_path: Path) -> None:
    found: Any = mvitv2.from_pretrained(mvitv2.save_pretrained(model, tmp_path), num_classes=2, img_size=(64, 96))
    assert found.config.num_classes == 2 and found.card["classes"] == []
    assert found.card["preprocessing"]["size"] == [64, 96]


def test_clips_have_a_folder_too(tmp_path: Path) -> None:
    clips = tiny.model(tiny.clip())
    same(mvitv2.from_pretrained(mvitv2.save_pretrained(clips, tmp_path)), clips)
    assert "architectures" not in json.loads((tmp_path / "config.json").read_text())
    assert "video-classification" in (tmp_path / "README.md").read_text()


def test_the_page_says_what_the_card_says(model: MViT) -> None:
    text = page(model)
    assert "pipeline_tag: image-classification" in text and "ant, bee, cat, dog, eel" in text
    assert "| resize | [40, 60] |" in text and "- license: MIT" in text and "top1" not in text
    model.card["provenance"] = {"metric": "top1", "value": 0.5, "epoch": 3}
    assert "- top1 0.5 on the validation data of its training, epoch 3" in page(model)


@pytest.mark.slow
def test_folders_of_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("mvitv2_tiny", num_classes=5, img_size=32).eval()
    names = ["a", "b", "c", "d", "e"]
    timm.models.save_for_hf(theirs, tmp_path, model_config={"label_names": names})
    found: Any = mvitv2.from_pretrained(tmp_path)
    pixels = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(found(pixels), theirs(pixels), rtol=1e-4, atol=1e-5)
    assert found.card["classes"] == names and found.card["preprocessing"]["interpolation"] == "bicubic"


def test_a_run_and_a_file_of_another_codebase(model: MViT, tmp_path: Path) -> None:
    mvitv2.save_weights(model, tmp_path / "best.safetensors")
    same(mvitv2.from_pretrained(tmp_path), model)
    square = tiny.model(tiny.image(input_size=(32, 32)))
    mvitv2.save_weights(square, tmp_path / "m.pyth", dialect="official")
    same(mvitv2.from_pretrained(tmp_path / "m.pyth"), square)


def test_what_is_no_model_is_told(model: MViT, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a file, a folder nor a published model"):
        mvitv2.from_pretrained("no_such_model")
    with pytest.raises(ValueError, match="is a folder without weights"):
        mvitv2.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="expected an MViT, got Linear"):
        mvitv2.save_pretrained(torch.nn.Linear(1, 1), tmp_path)  # type: ignore[arg-type]
    mvitv2.save_pretrained(model, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(DialectError, match="of a model of type 'vit', not 'mvitv2'"):
        mvitv2.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is no JSON"):
        mvitv2.from_pretrained(tmp_path)


class Repository(http.server.SimpleHTTPRequestHandler):
    """A hub whose only repository is ``user/tiny``."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        file = Path(self.directory) / self.path.rpartition("/")[2]
        there = self.path.startswith("/user/tiny/resolve/") and file.is_file()
        self.send_response(200 if there else 404)
        content = file.read_bytes() if there else b""
        if there:
            self.send_header("ETag", f'"{len(content):064x}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        else:
            self.send_header("X-Error-Code", "EntryNotFound" if "/user/tiny/" in self.path else "RepoNotFound")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def mirror(tmp_path: Path, model: MViT, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("huggingface_hub", reason="comes with mvitv2[hub]")
    folder = mvitv2.save_pretrained(model, tmp_path / "served")
    handler = functools.partial(Repository, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("MVITV2_MIRROR", address)
    # not MVITV2_CACHE, where the C++ operators lie as well and would be compiled anew
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


def test_repositories_of_the_hub(mirror: str, model: MViT, tmp_path: Path, capsys) -> None:
    for name in ("user/tiny", "hf-hub:user/tiny", "user/tiny@main"):
        found: Any = mvitv2.from_pretrained(name)
        same(found, model)
        assert found.card["provenance"] == {"license": "MIT", "hub": "user/tiny"}
    same(mvitv2.from_pretrained("user/tiny", offline=True), model)
    with pytest.raises(DownloadError, match="user/none"):
        mvitv2.from_pretrained("user/none")
    picture = tmp_path / "a.png"
    pytest.importorskip("PIL.Image").new("RGB", (50, 40)).save(picture)
    assert main(["predict", "hf-hub:user/tiny", str(picture), "-k", "1"]) == 0
    assert capsys.readouterr().out.split()[-1] in CLASSES


def test_a_repository_without_configuration(mirror: str, model: MViT, tmp_path: Path) -> None:
    (tmp_path / "served" / "config.json").unlink()
    same(mvitv2.from_pretrained("user/tiny"), model)


def test_pushing_makes_the_repository_and_sends_the_folder(model: MViT, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("huggingface_hub", reason="comes with mvitv2[hub]")
    calls: list[Any] = []

    def upload(*, repo_id: str, folder_path: str, revision: str | None, commit_message: str) -> str:
        same(mvitv2.from_pretrained(folder_path), model)
        calls.append((repo_id, revision, commit_message))
        return "https://hub/commit/1"

    def create(repo_id: str, *, private: bool | None, exist_ok: bool) -> None:
        calls.append((repo_id, private, exist_ok))

    api = SimpleNamespace(create_repo=create, upload_folder=upload)
    monkeypatch.setattr(library, "HfApi", lambda token: api)
    assert mvitv2.push_to_hub(model, "user/new", private=True, message="First") == "https://hub/commit/1"
    assert calls == [("user/new", True, True), ("user/new", None, "First")]


def test_a_hub_that_refuses_says_what_to_do(model: MViT, monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    library: Any = pytest.importorskip("huggingface_hub", reason="comes with mvitv2[hub]")
    plain = library.HfApi
    monkeypatch.setattr(library, "HfApi", lambda token: plain(endpoint=mirror, token="none"))
    with pytest.raises(UploadError, match=r"user/new cannot be written: .*hf auth login"):
        hub.push_to_hub(model, "user/new")  # this server knows no POST
    with pytest.raises(UploadError, match="a/b/c"):
        hub.push_to_hub(model, "a/b/c")
