"""Published weights by name: which file is meant, and that it arrives through the real download path."""

import dataclasses
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import mvitv2
from mvitv2.core.config import MViTConfig
from mvitv2.core.model import MViT
from mvitv2.core.stages import stages
from mvitv2.preprocessing import IMAGENET, IMAGENET_TIMM
from mvitv2.weights import pretrained
from mvitv2.weights.pretrained import load_pretrained, pretrained_release
from mvitv2.weights.published import Release
from mvitv2.weights.releases import RELEASES


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that does not write to the terminal."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("mvitv2_t", "mvitv2_t.official_in1k"),
        ("mvitv2_tiny", "mvitv2_t.timm_in1k"),
        ("mvitv2_base_cls.fb_inw21k", "mvitv2_b_cls_21k.timm_in21k"),
        ("mvit_v2_s", "mvitv2_s_16x4.torchvision_k400"),
        ("mvitv2-tiny_3rdparty_in1k", "mvitv2_t.mmpretrain_in1k"),
        ("mvitv2_s_16x4.torchvision_k400", "mvitv2_s_16x4.torchvision_k400"),
    ],
)
def test_a_name_means_its_own_codebases_file(name: str, release: str) -> None:
    assert pretrained_release(name).name == release


def test_peers_that_measure_otherwise_preprocess_otherwise() -> None:
    assert pretrained_release("mvitv2_t").preprocessing == IMAGENET
    assert pretrained_release("mvitv2_tiny").preprocessing == IMAGENET_TIMM


def tiny(**fields: Any) -> MViT:
    return MViT(MViTConfig(blocks=stages(depths=(1, 1), embed_dim=16), input_size=(64, 64), num_classes=7, **fields))


def test_weights_arrive_from_a_server(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    source = tiny().eval()
    mvitv2.save_weights(source, folder / "tiny.pyth", dialect="official")
    entry = Release(
        name="tiny.local",
        variant="mvitv2_t",
        dialect="official",
        task="image classification",
        num_classes=7,
        preprocessing=IMAGENET,
        url=f"{address}/tiny.pyth",
        reported={"top1": 1.0},
    )
    monkeypatch.setattr(pretrained, "RELEASES", {**RELEASES, entry.name: entry})
    loaded = load_pretrained(tiny(), entry.name, cache_dir=tmp_path / "cache", progress=False).eval()
    pixels = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded(pixels), source(pixels))
    assert loaded.card["provenance"]["release"] == "tiny.local"
    assert loaded.card["preprocessing"]["size"] == [64, 64]

    offline = dataclasses.replace(entry, url=f"{address}/gone.pyth")
    monkeypatch.setattr(pretrained, "RELEASES", {entry.name: offline})
    with pytest.raises(OSError, match="offline"):
        load_pretrained(tiny(), entry.name, cache_dir=tmp_path / "cache", offline=True)


def test_another_variant_is_refused(tmp_path: Path) -> None:
    mvitv2.save_weights(tiny(), tmp_path / "tiny.safetensors")
    with pytest.raises(ValueError, match=r"2 blocks and widths \[16, 32\].*10 blocks"):
        mvitv2.create_model("mvitv2_t", checkpoint_path=tmp_path / "tiny.safetensors")


def test_classes_have_the_names_of_their_data_set() -> None:
    pytest.importorskip("timm")
    pytest.importorskip("torchvision")
    assert len(set(pretrained.class_names(1000))) > 990
    assert pretrained.class_names(1000)[281].startswith("tabby")
    assert pretrained.class_names(400)[0] == "abseiling"
    assert pretrained.class_names(19168) == []
