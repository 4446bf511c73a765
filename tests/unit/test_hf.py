"""MViTv2 as a backbone of transformers: the same maps, inside DETR and Mask2Former, written and read by it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mvitv2.core.config import MViTConfig
from mvitv2.core.model import MViT
from mvitv2.weights.peers.detectron2 import detectron2_config
from tests import tiny

transformers: Any = pytest.importorskip("transformers", reason="transformers comes with the extra `hf`")
hf: Any = pytest.importorskip("mvitv2.hf", reason="transformers comes with the extra `hf`", exc_type=ImportError)
SMALL = {"embed_dim": 8, "depth": 5, "num_heads": 1, "last_block_indexes": (0, 1, 3, 4), "norm_eps": 1e-6}


def four_stages() -> MViTConfig:
    return detectron2_config(SMALL)


def test_its_maps_are_the_models() -> None:
    model = MViT(four_stages()).eval()
    theirs = hf.with_weights(model, out_indices=[1, 3]).eval()
    pixels = torch.randn(1, 3, 64, 96)
    for found, expected in zip(theirs(pixels).feature_maps, model.maps(pixels, (1, 3)), strict=True):
        assert torch.equal(found, expected)
    assert theirs.channels == [16, 64] and theirs.out_features == ["stage2", "stage4"]


def test_transformers_writes_and_reads_it(tmp_path: Path) -> None:
    model = transformers.AutoBackbone.from_config(hf.backbone_config(four_stages())).eval()
    model.save_pretrained(tmp_path)
    again = hf.MViTv2Backbone.from_pretrained(tmp_path).eval()  # AutoBackbone asks the hub about every path
    pixels = torch.randn(1, 3, 64, 64)
    for found, expected in zip(again(pixels).feature_maps, model(pixels).feature_maps, strict=True):
        torch.testing.assert_close(found, expected)
    assert again.config.mvit == model.config.mvit or MViTConfig.from_dict(again.config.mvit) == four_stages()


def test_detr_finds_and_learns() -> None:
    config = transformers.DetrConfig(
        backbone_config=hf.backbone_config(four_stages()),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=5,
        num_labels=3,
    )
    model = transformers.DetrForObjectDetection(config)
    found = model(torch.randn(2, 3, 64, 96))
    assert found.pred_boxes.shape == (2, 5, 4) and found.logits.shape == (2, 5, 4)
    found.pred_boxes.sum().backward()
    backbone = next(module for module in model.modules() if isinstance(module, MViT))
    assert all(p.grad is not None for p in backbone.blocks.parameters())


def test_mask2former_segments() -> None:
    config = transformers.Mask2FormerConfig(
        backbone_config=hf.backbone_config(four_stages()),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=4,
    )
    model = transformers.Mask2FormerForUniversalSegmentation(config).eval()
    with torch.no_grad():
        found = model(torch.randn(1, 3, 64, 64))
    assert found.masks_queries_logits.shape == (1, 4, 16, 16)


def test_options_and_names() -> None:
    config = hf.backbone_config("mvitv2_t_det", drop_path_rate=0.3, out_features=["stage4"])
    assert config.mvit["drop_path"] == 0.3 and config.out_indices == [3]
    assert hf.backbone_config(tiny.detector()).out_features == ["stage1", "stage2"]
