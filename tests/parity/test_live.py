"""Live parity with timm and torchvision: random configurations of theirs, weights moved both ways, equal logits.

Their modules are built here with random weights. Ours take their state dicts, theirs take our files with
``strict=True``, and both give the same numbers in float64, the ones on the way included.
"""

import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mvitv2
from mvitv2.core.config import MViTConfig
from mvitv2.models import backbone
from mvitv2.weights import files
from mvitv2.weights.peers.timm import timm_config
from mvitv2.weights.peers.torchvision import torchvision_config

timm = pytest.importorskip("timm", reason="timm is a development dependency")
pytest.importorskip("torchvision", reason="torchvision is a development dependency")
import safetensors.torch  # noqa: E402
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg  # noqa: E402
from torchvision.models.video import mvit as torchvision_mvit  # noqa: E402

SEEDS = range(8)
CLOSE: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}
"""The same operations in another order, in float64."""


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def drawn(model: Any) -> Any:
    """Random weights large enough that every tensor matters, in eval mode."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.normal_(std=0.3)
            if value.ndim == 1 and name.endswith("weight"):
                value.add_(1)
    return model.eval()


def image_size(choose: random.Random, **fields: Any) -> dict[str, Any]:
    """A configuration of timm that runs, its sizes divisible all the way down."""
    count = choose.choice((1, 2, 3, 4))
    heads = [choose.choice((1, 2)) for _ in range(count)]
    attention, kernel = choose.random() < 0.7, choose.choice(((3, 3), (3, 3), (5, 5), (1, 1)))
    strides = ((1, 1), *(choose.choice(((2, 2), (2, 2), (1, 1))) for _ in range(count - 1)))
    keys = choose.choice((None, tuple(choose.choice(((1, 1), (2, 2), (4, 4))) for _ in range(count))))
    patches = choose.choice((((7, 7), (4, 4), (3, 3)), ((3, 3), (2, 2), (1, 1)), ((4, 4), (4, 4), (0, 0))))
    return {
        "depths": tuple(choose.choice((1, 2)) for _ in range(count)),
        "embed_dim": tuple(8 * h * choose.choice((1, 2)) for h in heads),
        "num_heads": tuple(heads),
        "mlp_ratio": choose.choice((2.0, 4.0)),
        "expand_attn": attention,
        "qkv_bias": choose.random() < 0.7,
        "use_cls_token": choose.random() < 0.5,
        "use_abs_pos": choose.random() < 0.4,
        "residual_pooling": choose.random() < 0.7,
        "mode": choose.choice(("conv", "conv", "conv", "avg", "max")),
        "kernel_qkv": kernel,
        "stride_q": strides,
        "stride_kv": keys,
        "stride_kv_adaptive": (4, 4),
        "patch_kernel": patches[0],
        "patch_stride": patches[1],
        "patch_padding": patches[2],
        "rel_pos_type": choose.choice(("spatial", "spatial", "none")),
        "norm_eps": choose.choice((1e-6, 1e-5)),
        **fields,
    }


TOLD: dict[str, Any] = {
    "mode": "conv",
    "kernel_qkv": (3, 3),
    "residual_pooling": True,
    "norm_eps": 1e-6,
    "stride_kv": None,
    "rel_pos_type": "spatial",
    "patch_kernel": (7, 7),
    "patch_stride": (4, 4),
    "patch_padding": (3, 3),
}
"""What names and shapes cannot say, as every published model has it."""


def timm_model(cfg: dict[str, Any], **kwargs: Any) -> Any:
    return drawn(MultiScaleVit(MultiScaleVitCfg(**cfg), **kwargs))


def as_config(cfg: dict[str, Any], **kwargs: Any) -> MViTConfig:
    return timm_config(asdict(MultiScaleVitCfg(**cfg)), kwargs)


def same_images(ours: Any, theirs: Any, size: int, channels: int = 3) -> None:
    pixels = torch.randn(2, channels, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(pixels), theirs(pixels), **CLOSE)
        tokens, maps = theirs.forward_intermediates(pixels)
        our_tokens, our_maps = ours.forward_intermediates(pixels)
        torch.testing.assert_close(our_tokens, tokens, **CLOSE)
        torch.testing.assert_close(our_maps, maps, **CLOSE)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_configuration_of_timm(seed: int, tmp_path: Path) -> None:
    choose = random.Random(seed)
    torch.manual_seed(seed)
    cfg = image_size(choose)
    kwargs: dict[str, Any] = {
        "img_size": 64,
        "in_chans": choose.choice((1, 3, 4)),
        "num_classes": choose.choice((0, 7)),
    }
    if cfg["use_cls_token"] and choose.random() < 0.5:
        kwargs["global_pool"] = "avg"
    theirs = timm_model(cfg, **kwargs)
    ours = mvitv2.load_model(theirs.state_dict(), config=as_config(cfg, **kwargs))
    same_images(ours, theirs, 64, kwargs["in_chans"])

    path = mvitv2.save_weights(drawn(ours), tmp_path / "model.safetensors", dialect="timm")
    theirs.load_state_dict(safetensors.torch.load_file(path), strict=True)
    same_images(ours, theirs, 64, kwargs["in_chans"])
    same_images(mvitv2.load_model(path), theirs, 64, kwargs["in_chans"])


@pytest.mark.parametrize("seed", SEEDS)
def test_timm_without_a_configuration(seed: int) -> None:
    choose = random.Random(f"told {seed}")
    torch.manual_seed(seed)
    stages = choose.choice((2, 3, 4))
    heads = choose.choice((1, 2))
    published = {
        "depths": tuple(choose.choice((1, 2, 3)) for _ in range(stages)),
        "embed_dim": tuple(16 * heads * 2**s for s in range(stages)),
        "num_heads": tuple(heads * 2**s for s in range(stages)),
        "stride_q": ((1, 1), *[(2, 2)] * (stages - 1)),
        "stride_kv_adaptive": (min(4, 2 ** (stages - 1)),) * 2,
    }
    cfg = image_size(choose, **TOLD, **published)
    theirs = timm_model(cfg, img_size=64, num_classes=7)
    ours = mvitv2.load_model(theirs.state_dict())
    same_images(ours, theirs, 64)


def clip_settings(choose: random.Random, *, rel_pos: bool, told: bool) -> dict[str, Any]:
    """Arguments of torchvision's ``MViT``; ``told``: only what names and shapes can say."""
    count = choose.choice((2, 3, 4, 5))
    opens = sorted(choose.sample(range(1, count), k=min(2, count - 1)))
    in_attention, every = choose.random() < 0.5, rel_pos or choose.random() < 0.5
    blocks, dim, heads = [], choose.choice((8, 16)), 1
    for i in range(count):
        heads *= 2 if i in opens else 1
        widens = i in opens if in_attention else i + 1 in opens
        time = choose.choice((1, 1, 2)) if not told else 1
        keys = 2 ** max(len(opens) - sum(i >= o for o in opens), 0)
        stride = (time, 2, 2) if i in opens else (1, 1, 1)
        blocks.append(
            {
                "num_heads": heads,
                "input_channels": dim,
                "output_channels": 2 * dim if widens else dim,
                "kernel_q": (3, 3, 3) if every or i in opens else (),
                "kernel_kv": (3, 3, 3),
                "stride_q": stride if every or i in opens else (),
                "stride_kv": (1, keys, keys) if told or choose.random() < 0.7 else (1, 1, 1),
            }
        )
        dim = blocks[-1]["output_channels"]
    return {
        "spatial_size": (64, 64) if told or choose.random() < 0.6 else (64, 96),
        "temporal_size": 8,
        "block_setting": blocks,
        "residual_pool": rel_pos if told else choose.random() < 0.5,
        "residual_with_cls_embed": not told and choose.random() < 0.5,
        "rel_pos_embed": rel_pos,
        "proj_after_attn": in_attention,
        "num_classes": choose.choice((3, 7)),
    }


def torchvision_model(settings: dict[str, Any]) -> Any:
    blocks = [torchvision_mvit.MSBlockConfig(**{k: _lists(v) for k, v in b.items()}) for b in settings["block_setting"]]
    return drawn(torchvision_mvit.MViT(**{**settings, "block_setting": blocks}))


def _lists(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def same_clips(ours: Any, theirs: Any, size: tuple[int, ...]) -> None:
    clips = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(ours(clips), theirs(clips), **CLOSE)


@pytest.mark.parametrize("rel_pos", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("seed", SEEDS)
def test_any_configuration_of_torchvision(seed: int, rel_pos: bool, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    settings = clip_settings(random.Random(f"{seed} {rel_pos}"), rel_pos=rel_pos, told=False)
    theirs, config = torchvision_model(settings), torchvision_config(None, settings)
    ours = mvitv2.load_model(theirs.state_dict(), config=config)
    same_clips(ours, theirs, config.input_size)

    path = mvitv2.save_weights(drawn(ours), tmp_path / "model.pth", dialect="torchvision")
    theirs.load_state_dict(torch.load(path, weights_only=True), strict=True)
    same_clips(ours, theirs, config.input_size)


@pytest.mark.parametrize("rel_pos", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("seed", SEEDS)
def test_torchvision_without_a_configuration(seed: int, rel_pos: bool, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    settings = clip_settings(random.Random(f"told {seed} {rel_pos}"), rel_pos=rel_pos, told=True)
    theirs = torchvision_model(settings)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    same_clips(mvitv2.load_model(tmp_path / "theirs.pth"), theirs, (8, 64, 64))


def test_a_named_model_in_timm(tmp_path: Path) -> None:
    ours = mvitv2.create_model("mvitv2_t", img_size=64, num_classes=11).eval()
    path = mvitv2.save_weights(ours, tmp_path / "model.safetensors", dialect="timm")
    theirs = timm.create_model("mvitv2_tiny", checkpoint_path=str(path), img_size=64, num_classes=11).eval()
    same_images(ours, theirs, 64)
    back = backbone(mvitv2.load_model(path))
    assert back.card["provenance"]["variant"] == "mvitv2_t"


def test_features_are_timms() -> None:
    theirs: Any = drawn(timm.create_model("mvitv2_tiny", features_only=True, img_size=64))
    ours: Any = mvitv2.create_model("mvitv2_tiny", features_only=True, img_size=64)
    loaded = backbone(mvitv2.load_model(theirs.state_dict()))
    backbone(ours).load_state_dict(loaded.state_dict())
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(pixels)
        torch.testing.assert_close(ours.eval()(pixels), expected, **CLOSE)
        torch.testing.assert_close(loaded.forward_intermediates(pixels, intermediates_only=True), expected, **CLOSE)
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    assert ours.feature_info.reduction() == theirs.feature_info.reduction()


def shrunk(model: Any, grid: tuple[int, int, int]) -> nn.Module:
    """torchvision's model at another size: it looks up the grid of tokens where its positions are kept."""
    model.pos_encoding.temporal_size, *space = grid
    model.pos_encoding.spatial_size = tuple(space)
    return model


def test_a_named_model_of_torchvision(tmp_path: Path) -> None:
    theirs = drawn(torchvision_mvit.mvit_v2_s())
    ours = backbone(mvitv2.load_model(theirs.state_dict()))
    assert ours.card["provenance"]["variant"] == "mvitv2_s_16x4"
    clip = torch.randn(1, 3, 8, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(clip), shrunk(theirs, (4, 16, 16))(clip), **CLOSE)

    named = mvitv2.create_model("mvit_v2_s").eval()
    path = mvitv2.save_weights(named, tmp_path / "mvit_v2_s.pth", dialect="torchvision")
    theirs.load_state_dict(torch.load(path, weights_only=True), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(named(clip), theirs(clip), **CLOSE)


def test_what_is_written_holds_tensors_only(tmp_path: Path) -> None:
    """torchvision's file is a bare state dict, timm's has no wrapper: nothing may stand beside the tensors."""
    ours = mvitv2.load_model(timm_model(image_size(random.Random(0), **TOLD), img_size=64, num_classes=3).state_dict())
    path = mvitv2.save_weights(ours, tmp_path / "x.safetensors", dialect="timm")
    stored: dict[str, Tensor] = files.read(path).tensors
    assert sum(v.numel() for v in stored.values()) == sum(p.numel() for p in ours.parameters())
